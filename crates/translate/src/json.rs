//! JSON of other systems: its members as parts, and parts as its members.

use std::fmt::Write;
use std::rc::Rc;

use parador_config::{Diagnostics, Severity};

use crate::format::Input;
use crate::parts::{self, Group, Part};
use crate::structured::json;
use crate::structured::node::{Node, Table, Value};
use crate::text::Text;

/// How deep objects may be in one another.
const MAX_DEPTH: usize = 16;

/// The members of the object that `input` is.
pub(crate) fn read(input: Input<'_>, hint: &str) -> Result<Table, Diagnostics> {
    let Input::Text { name, bytes } = input else {
        let finding = parador_config::Diagnostic::new("this format is a file, not a command line");
        return Err(crate::text::one(finding.hint(hint)));
    };
    let text = Rc::new(Text::new(name, bytes)?);
    let mut wrong = Diagnostics::default();
    match json::parse(&text, &mut wrong) {
        Some(table) if wrong.errors() == 0 => Ok(table),
        Some(_) => Err(wrong),
        None => {
            if wrong.errors() == 0 {
                wrong.add(Severity::Error, || parador_config::Diagnostic::new("no object here"));
            }
            Err(wrong)
        }
    }
}

/// The members of the object `node` as the parts of a group. Members of objects inside it have names
/// with dots; null is nothing.
pub(crate) fn group(option: &str, node: &Node) -> Option<Group> {
    let Value::Table(table) = &node.value else { return None };
    let mut group = Group { origin: node.place.origin(), ..Group::new(option, "") };
    members(&mut group, "", table, 0);
    Some(group)
}

fn members(group: &mut Group, prefix: &str, table: &Table, depth: usize) {
    for (key, node) in table {
        let name = format!("{prefix}{}", key.name);
        match &node.value {
            Value::Odd(_) => {}
            Value::Table(inner) if depth < MAX_DEPTH && !inner.is_empty() => {
                members(group, &format!("{name}."), inner, depth + 1);
            }
            _ => group.parts.push(Part { name, value: value(node), origin: key.place.origin() }),
        }
    }
}

/// What `node` is as a value.
fn value(node: &Node) -> parts::Value {
    match &node.value {
        Value::Text(text) => parts::Value::Text(text.clone()),
        Value::Bare(text) => match (text.as_str(), text.parse()) {
            ("true", _) => parts::Value::Switch(true),
            ("false", _) => parts::Value::Switch(false),
            (_, Ok(number)) => parts::Value::Number(number),
            (_, Err(_)) => parts::Value::Json(text.clone()),
        },
        Value::List(nodes) if nodes.iter().all(|node| node.scalar().is_some()) => {
            parts::Value::List(nodes.iter().map(value).collect())
        }
        Value::List(_) | Value::Table(_) | Value::Odd(_) => parts::Value::Json(compact(node)),
    }
}

/// `node` as JSON on one line.
pub(crate) fn compact(node: &Node) -> String {
    let mut text = String::new();
    let mut within = false;
    let mut escaped = false;
    for c in node.place.text.text[node.place.range.clone()].chars() {
        if within || !c.is_ascii_whitespace() {
            text.push(c);
        }
        match c {
            '"' if !escaped => within = !within,
            '\\' if within && !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    text
}

/// JSON to be written; members keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// An object.
    Object(Vec<(String, Self)>),
    /// An array.
    Array(Vec<Self>),
    /// A string.
    Text(String),
    /// Anything else, or JSON as it was kept.
    Raw(String),
}

impl Json {
    /// Sets the member at `path`, whose parts stand between dots.
    pub(crate) fn insert(&mut self, path: &str, value: Self) {
        let Self::Object(members) = self else { return };
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let index = members.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
            members.push((name.to_owned(), Self::Object(Vec::new())));
            members.len() - 1
        });
        if rest.is_empty() {
            members[index].1 = value;
        } else {
            members[index].1.insert(rest, value);
        }
    }

    /// Adds the member `name`, whatever is in its name.
    pub(crate) fn push(&mut self, name: &str, value: Self) {
        if let Self::Object(members) = self {
            members.push((name.to_owned(), value));
        }
    }

    /// Adds `value` to the array at `path`.
    pub(crate) fn append(&mut self, path: &str, value: Self) {
        let Self::Object(members) = self else { return };
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        match members.iter_mut().find(|(other, _)| other == name) {
            Some((_, inner)) if !rest.is_empty() => inner.append(rest, value),
            Some((_, Self::Array(values))) => values.push(value),
            _ => self.insert(path, Self::Array(vec![value])),
        }
    }

    /// `value` as it is written; a text stays a text.
    pub(crate) fn of(value: &parts::Value) -> Self {
        match value {
            parts::Value::Text(text) => Self::Text(text.clone()),
            parts::Value::Number(n) | parts::Value::Size(n) => Self::Raw(n.to_string()),
            parts::Value::Switch(on) => Self::Raw(on.to_string()),
            parts::Value::List(values) => Self::Array(values.iter().map(Self::of).collect()),
            parts::Value::Json(text) => Self::Raw(text.clone()),
        }
    }

    /// The text of it, on one line unless it has an object in it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, 0);
        text
    }

    /// The text of it, as a file.
    pub(crate) fn pretty(&self) -> String {
        self.text() + "\n"
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = |out: &mut String, depth: usize| out.extend(std::iter::repeat_n("  ", depth));
        match self {
            Self::Raw(text) => out.push_str(text),
            Self::Text(text) => quote(text, out),
            Self::Array(values) if values.iter().all(|value| !matches!(value, Self::Object(_))) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    value.write(out, depth);
                }
                out.push(']');
            }
            Self::Array(values) => {
                out.push_str("[\n");
                for (index, value) in values.iter().enumerate() {
                    indent(out, depth + 1);
                    value.write(out, depth + 1);
                    out.push_str(if index + 1 < values.len() { ",\n" } else { "\n" });
                }
                indent(out, depth);
                out.push(']');
            }
            Self::Object(members) if members.is_empty() => out.push_str("{}"),
            Self::Object(members) => {
                out.push_str("{\n");
                for (index, (name, value)) in members.iter().enumerate() {
                    indent(out, depth + 1);
                    quote(name, out);
                    out.push_str(": ");
                    value.write(out, depth + 1);
                    out.push_str(if index + 1 < members.len() { ",\n" } else { "\n" });
                }
                indent(out, depth);
                out.push('}');
            }
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
