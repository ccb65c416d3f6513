//! Cloud Hypervisor's command line: `--disk path=a,readonly=on path=b --cpus boot=4`.
//!
//! Parts stand between commas that are neither in `"…"` nor in `[…]`; quotes go away.

use parador_config::{Diagnostics, Origin, Tree};

use super::export::{Machine, machine};
use super::import::tree;
use super::{ENGINE, FATES, ROWS};
use crate::format::{Exported, Imported, Input, Loss, Output};
use crate::parts::{Group, Part, Value, is_list};
use crate::reading::Reading;
use crate::words::{Word, arguments};
use crate::writing::Writing;

/// Options whose value is one text.
static WHOLE: &[&str] = &["kernel", "initramfs", "cmdline", "firmware", "serial", "console"];
/// Options whose values have parts that are understood, in the order in which they are written.
static PARTED: &[&str] = &[
    "cpus",
    "memory",
    "memory-zone",
    "numa",
    "platform",
    "disk",
    "net",
    "fs",
    "rng",
    "vsock",
    "balloon",
    "device",
    "generic-vhost-user",
    "tpm",
];

pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let words = arguments(input, &["cloud-hypervisor"])?;
    let mut reading = Reading::new(ENGINE, ROWS);
    let mut groups: Vec<Group> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let (option, inline) = match word.text.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option.to_owned(), Some(value.to_owned())),
            _ => (word.text.clone(), None),
        };
        let mut values: Vec<Word> =
            inline.map(|text| Word { text, origin: word.origin.clone() }).into_iter().collect();
        while values.is_empty() || WHOLE.iter().all(|whole| option.get(2..) != Some(whole)) {
            match words.next_if(|next| !next.text.starts_with('-')) {
                Some(value) => values.push(value),
                None => break,
            }
        }
        let name = option.strip_prefix("--").unwrap_or_default();
        if WHOLE.contains(&name) || PARTED.contains(&name) {
            // `--rng` alone is how older versions ask for what is always there now.
            groups.extend(values.iter().map(|value| group(name, value)));
        } else {
            reading.keep(option, &word.origin);
            for value in values {
                reading.keep(value.text, &value.origin);
            }
        }
    }
    tree(reading, "--", groups)
}

fn group(option: &str, value: &Word) -> Group {
    let mut group = Group::new(option, "");
    group.origin = value.origin.clone();
    if WHOLE.contains(&option) {
        group.parts = match (option, value.text.split_once('=')) {
            ("serial" | "console", Some((mode, path))) => vec![part(mode, path, &value.origin)],
            _ => vec![part("", &value.text, &value.origin)],
        };
    } else {
        let parts = split(&value.text);
        let parts = parts.iter().filter(|text| !text.is_empty());
        group.parts = parts
            .map(|text| {
                let (name, text) = text.split_once('=').unwrap_or((text, ""));
                part(name, text, &value.origin)
            })
            .collect();
    }
    group
}

fn part(name: &str, text: &str, origin: &Origin) -> Part {
    Part { name: name.to_owned(), value: Value::text(text), origin: origin.clone() }
}

/// The parts of `text`, without their quotes.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut depth) = (false, 0_usize);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                continue;
            }
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
}

#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut writing = Writing::new(tree, FATES, ROWS);
    let Machine { whole } = machine(&mut writing, "--");
    let (groups, mut losses) = writing.finish();
    let mut words = vec!["cloud-hypervisor".to_owned()];
    for option in WHOLE.iter().chain(PARTED) {
        let mut values: Vec<String> = Vec::new();
        for group in groups.iter().filter(|group| group.option == *option) {
            match value(group) {
                Ok(value) => values.push(value),
                Err(what) => losses.push(Loss {
                    what,
                    why: "a `\"` cannot be written on its command line".to_owned(),
                    origin: None,
                }),
            }
        }
        match &values[..] {
            [] => {}
            // After the option, it would be taken for another one.
            [value] if value.starts_with('-') => words.push(format!("--{option}={value}")),
            _ => {
                words.push(format!("--{option}"));
                words.extend(values);
            }
        }
    }
    words.extend(whole);
    Ok(Exported { output: Output::Arguments(words), losses })
}

/// The group as one word, or the part that cannot be written.
fn value(group: &Group) -> Result<String, String> {
    let parts: Result<Vec<String>, String> = group
        .parts
        .iter()
        .map(|part| match (part.name.as_str(), part.value.shown()) {
            ("", value) => Ok(value),
            (name, value) if value.is_empty() => Ok(name.to_owned()),
            (name, value) if WHOLE.contains(&group.option.as_str()) => Ok(format!("{name}={value}")),
            (name, value) if value.contains('"') => Err(format!("--{} {name}={value}", group.option)),
            (name, value) => Ok(format!("{name}={}", quoted(&value))),
        })
        .collect();
    Ok(parts?.join(","))
}

/// `value`, in quotes if it needs them; a list has none.
fn quoted(value: &str) -> String {
    if !is_list(value) && value.contains([',', '[', ']']) { format!("\"{value}\"") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_and_brackets_do_not_separate() {
        assert_eq!(
            split(r#"path="/vm/a,b",affinity=[0@[1,2],1@[3]],x="a]b""#),
            ["path=/vm/a,b", "affinity=[0@[1,2],1@[3]]", "x=a]b"]
        );
        assert_eq!(split("tap=,mac="), ["tap=", "mac="]);
        assert_eq!(quoted("/a,b"), "\"/a,b\"");
        assert_eq!(quoted("[1,2]"), "[1,2]");
    }
}
