//! Options that are made of parts: what Cloud Hypervisor, Firecracker and crosvm have in common.
//!
//! A reader makes [`Group`]s of a command line or of JSON, a writer makes those of groups. Between
//! groups and keys stands a table of [`Row`]s, which is read in both directions; what no row can say
//! is up to the format. A part that no row names is kept under `engine.<name>.arg.<n>`, as two words:
//! where it belongs (`--disk/disk0/iommu`) and its value.

use parador_config::{Diagnostic, Origin};

/// Processors are numbered below this.
const MAX_CPUS: u32 = 4096;

/// The value of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text, as all values of a command line are when they are read.
    Text(String),
    /// A number.
    Number(u64),
    /// A number of bytes.
    Size(u64),
    /// Yes or no.
    Switch(bool),
    /// Values in brackets.
    List(Vec<Self>),
    /// JSON that has no other form here.
    Json(String),
}

/// One part of an option, or a member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Its name; empty for the value of an option that has one value only.
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// An option with one value, or an object.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The option without its dashes, or the name of the object.
    pub(crate) option: String,
    /// Of several groups of one option: which one it is.
    pub(crate) id: String,
    pub(crate) parts: Vec<Part>,
    pub(crate) origin: Origin,
}

/// How a part and a key write the same thing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    /// The same way.
    Text,
    /// Both as a number.
    Number,
    /// As a switch.
    Switch,
    /// As a switch that is on when the other is off.
    Not,
    /// As a number of bytes.
    Size,
    /// The part counts MiB.
    Mebibytes,
    /// With these words: theirs, ours.
    Words(&'static [(&'static str, &'static str)]),
    /// The part counts so many for each one of the key.
    Times(u64),
}

/// One part and its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) option: &'static str,
    pub(crate) part: &'static str,
    /// The key; `*` stands for the device.
    pub(crate) key: &'static str,
    pub(crate) how: How,
    /// What it means there when the part is left out, in our words; `None` if that is what it means
    /// here as well, or cannot be said.
    pub(crate) absent: Option<&'static str>,
}

/// A row whose part, left out, means what the key's default is.
pub(crate) const fn row(option: &'static str, part: &'static str, key: &'static str, how: How) -> Row {
    Row { option, part, key, how, absent: None }
}

impl Row {
    /// The row, where leaving out the part means `value` of ours.
    pub(crate) const fn absent(mut self, value: &'static str) -> Self {
        self.absent = Some(value);
        self
    }

    /// The key for the device `id`.
    pub(crate) fn key_of(&self, id: &str) -> String {
        self.key.replacen('*', id, 1)
    }
}

impl Group {
    /// An empty group that is about to be written.
    pub(crate) fn new(option: &str, id: &str) -> Self {
        Self { option: option.to_owned(), id: id.to_owned(), parts: Vec::new(), origin: Origin::Argument(0) }
    }

    /// Adds a part that is about to be written.
    pub(crate) fn push(&mut self, name: &str, value: Value) {
        self.parts.push(Part { name: name.to_owned(), value, origin: Origin::Argument(0) });
    }

    /// Takes the part `name` out; of several, the last one, which counts.
    pub(crate) fn take(&mut self, name: &str) -> Option<Part> {
        let index = self.parts.iter().rposition(|part| part.name == name)?;
        let part = self.parts.remove(index);
        self.parts.retain(|other| other.name != name);
        Some(part)
    }

    /// The part `name`, left where it is.
    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().rev().find(|part| part.name == name)
    }
}

impl Value {
    /// Text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// As it is shown in messages and kept in keys.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Json(text) => text.clone(),
            Self::Number(n) => n.to_string(),
            Self::Size(n) => size(*n),
            Self::Switch(on) => if *on { "on" } else { "off" }.to_owned(),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(Self::shown).collect();
                format!("[{}]", values.join(","))
            }
        }
    }

    /// It as a number, if it is one.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(n) | Self::Size(n) => Some(*n),
            Self::Text(text) => text.parse().ok(),
            Self::Switch(_) | Self::List(_) | Self::Json(_) => None,
        }
    }

    /// It as a switch, if it is one.
    pub(crate) fn switch(&self) -> Option<bool> {
        match self {
            Self::Switch(on) => Some(*on),
            Self::Text(text) => match text.as_str() {
                "on" | "true" => Some(true),
                "off" | "false" => Some(false),
                _ => None,
            },
            Self::Number(_) | Self::Size(_) | Self::List(_) | Self::Json(_) => None,
        }
    }

    /// It as a number of bytes, if it is one.
    pub(crate) fn size(&self) -> Option<u64> {
        let Self::Text(text) = self else { return self.number() };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
    }

    /// What it holds, if it is a list; the text of a list counts as well.
    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(values) => Some(values.clone()),
            Self::Text(text) => {
                let inner = text.strip_prefix('[')?.strip_suffix(']')?;
                Some(elements(inner).into_iter().map(Self::Text).collect())
            }
            Self::Number(_) | Self::Size(_) | Self::Switch(_) | Self::Json(_) => None,
        }
    }
}

/// The elements between the commas that are not in brackets.
pub(crate) fn elements(text: &str) -> Vec<String> {
    let (mut elements, mut depth) = (Vec::new(), 0_usize);
    let mut element = String::new();
    for c in text.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                elements.push(std::mem::take(&mut element));
                continue;
            }
            _ => {}
        }
        element.push(c);
    }
    if !element.is_empty() || !elements.is_empty() {
        elements.push(element);
    }
    elements
}

/// Whether `text` is a list: what its first bracket opens ends with its last one.
pub(crate) fn is_list(text: &str) -> bool {
    let mut depth = 0_usize;
    let end = text.find(|c| {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    text.starts_with('[') && end.is_some_and(|end| end + 1 == text.len())
}

/// `bytes` in the largest unit that leaves no rest.
pub(crate) fn size(bytes: u64) -> String {
    [(30, "G"), (20, "M"), (10, "K")]
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// `cpus` with ranges, as in `0-3,6`.
pub(crate) fn ranges(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let texts = ranges.iter().map(
        |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        },
    );
    texts.collect::<Vec<_>>().join(",")
}

/// Processors as we list them, of a list of numbers and ranges.
pub(crate) fn cpus(values: &[Value]) -> Option<String> {
    let mut all = std::collections::BTreeSet::new();
    for value in values {
        let text = value.shown();
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MAX_CPUS {
            return None;
        }
        all.extend(first..=last);
    }
    let all: Vec<u32> = all.into_iter().collect();
    (!all.is_empty()).then(|| ranges(&all))
}

impl How {
    /// `theirs` as the value of a key, or what it should have been.
    pub(crate) fn ours(self, theirs: &Value) -> Result<String, String> {
        match self {
            Self::Text => Ok(theirs.shown()),
            Self::Number => number(theirs).map(|n| n.to_string()),
            Self::Switch => {
                theirs.switch().map(|on| on.to_string()).ok_or_else(|| "`on` or `off`".to_owned())
            }
            Self::Not => {
                theirs.switch().map(|on| (!on).to_string()).ok_or_else(|| "`on` or `off`".to_owned())
            }
            Self::Size => theirs.size().map(size).ok_or_else(|| "a size in bytes, such as 512M".to_owned()),
            Self::Mebibytes => {
                let bytes = number(theirs)?.checked_mul(1 << 20);
                bytes.map(size).ok_or_else(|| "a number of MiB".to_owned())
            }
            Self::Words(words) => {
                let text = theirs.shown();
                let word =
                    words.iter().find(|(theirs, _)| *theirs == text).map(|(_, ours)| (*ours).to_owned());
                word.ok_or_else(|| {
                    format!(
                        "one of {}",
                        words.iter().map(|(theirs, _)| *theirs).collect::<Vec<_>>().join(", ")
                    )
                })
            }
            Self::Times(times) => match number(theirs)? {
                n if n > 0 && n.is_multiple_of(times) => Ok((n / times).to_string()),
                _ => Err(format!("a multiple of {times}")),
            },
        }
    }

    /// `ours` as the value of a part, or why it cannot be.
    pub(crate) fn theirs(self, ours: &parador_config::Value) -> Result<Value, &'static str> {
        use parador_config::Value as Ours;
        match (self, ours) {
            (Self::Text, Ours::Text(text)) => Ok(Value::text(text)),
            (Self::Text, Ours::Word(word)) => Ok(Value::text(*word)),
            (Self::Number, Ours::Descriptors(fds)) if fds.len() == 1 => Ok(Value::Text(fds[0].to_string())),
            (Self::Number, Ours::Descriptors(_)) => Err("one descriptor can be given there"),
            (Self::Text, Ours::Mac(mac)) => {
                let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(Value::Text(bytes.join(":")))
            }
            (Self::Text, Ours::Uuid(uuid)) => {
                let hex = format!("{:032x}", u128::from_be_bytes(*uuid));
                let groups = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                Ok(Value::Text(groups.join("-")))
            }
            (Self::Number, Ours::Int(n)) => Ok(Value::Number(*n)),
            (Self::Switch, Ours::Bool(on)) => Ok(Value::Switch(*on)),
            (Self::Not, Ours::Bool(on)) => Ok(Value::Switch(!on)),
            (Self::Size, Ours::Int(n)) => Ok(Value::Size(*n)),
            (Self::Mebibytes, Ours::Int(n)) if n.is_multiple_of(1 << 20) => Ok(Value::Number(n >> 20)),
            (Self::Mebibytes, Ours::Int(_)) => Err("sizes are in whole MiB there"),
            (Self::Words(words), Ours::Word(word)) => {
                let theirs = words.iter().find(|(_, ours)| ours == word);
                theirs.map(|(theirs, _)| Value::text(*theirs)).ok_or("there is no word for this value there")
            }
            (Self::Times(times), Ours::Int(n)) => Ok(Value::Number(n.saturating_mul(times))),
            _ => Err("there is no form for this value there"),
        }
    }
}

fn number(value: &Value) -> Result<u64, String> {
    value.number().ok_or_else(|| "a number".to_owned())
}

/// The finding that `part` of `option` is not what it should be.
pub(crate) fn bad_part(option: &str, part: &Part, expected: &str) -> Diagnostic {
    let mut value = part.value.shown();
    if value.chars().count() > 60 {
        value = value.chars().take(60).chain(['…']).collect();
    }
    let name = if part.name.is_empty() { option.to_owned() } else { format!("{}` of `{option}", part.name) };
    Diagnostic::new(format!("`{name}` cannot be `{value}`"))
        .at(part.origin.clone())
        .hint(format!("it is {expected}"))
}
