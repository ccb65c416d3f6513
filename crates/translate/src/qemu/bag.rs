//! Properties with values, as QEMU writes them: `virtio-blk-pci,drive=d,serial=a,,b`, or JSON.

use std::fmt::Write;

use parador_config::{Diagnostic, Origin};
use serde_json::{Map, Value as Json};

use crate::words::Word;

/// A value, of the type that JSON wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Any text; all that the other syntax knows.
    Text(String),
    /// A number.
    Int(u64),
    /// A switch.
    Bool(bool),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Int(number) => number.to_string(),
            Self::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<bool> for Value {
    fn from(on: bool) -> Self {
        Self::Bool(on)
    }
}

/// Properties, in order. What is nested in JSON has a name with dots, as in the other syntax.
#[derive(Debug, Clone)]
pub(super) struct Bag {
    /// Where it was written.
    pub(super) origin: Origin,
    properties: Vec<(String, Value)>,
}

impl Bag {
    /// No properties.
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, properties: Vec::new() }
    }

    /// The properties in `word`. A first one without a name is called `first`.
    pub(super) fn parse(word: &Word, first: Option<&str>) -> Result<Self, Diagnostic> {
        let mut bag = Self::new(word.origin.clone());
        if word.text.starts_with('{') {
            let json: Json = serde_json::from_str(&word.text)
                .map_err(|e| Diagnostic::new("this is not JSON").at(word.origin.clone()).cause(&e))?;
            bag.flatten("", &json);
        } else {
            bag.split(&word.text, first);
        }
        Ok(bag)
    }

    fn flatten(&mut self, name: &str, json: &Json) {
        let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
        match json {
            Json::Null => {}
            Json::Bool(on) => self.put(name, *on),
            Json::Number(number) => {
                self.put(name, number.as_u64().map_or_else(|| Value::Text(number.to_string()), Value::Int));
            }
            Json::String(text) => self.put(name, text.as_str()),
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(&below(&index.to_string()), item);
                }
            }
            Json::Object(members) => {
                for (member, value) in members {
                    self.flatten(&below(member), value);
                }
            }
        }
    }

    /// A comma ends a value unless it is doubled; a name without a value is a switch, which `no`
    /// before it turns off.
    fn split(&mut self, text: &str, first: Option<&str>) {
        let mut rest = text;
        let mut implied = first;
        while !rest.is_empty() {
            let end = rest.find([',', '=']).unwrap_or(rest.len());
            let named = rest[end..].starts_with('=');
            if let (Some(name), false) = (implied, named) {
                let (value, after) = value(rest);
                self.put(name, Value::Text(value));
                rest = after;
            } else if named {
                let (value, after) = value(&rest[end + 1..]);
                self.put(&rest[..end], Value::Text(value));
                rest = after;
            } else {
                match rest[..end].strip_prefix("no") {
                    Some("") | None => self.put(&rest[..end], "on"),
                    Some(name) => self.put(name, "off"),
                }
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            implied = None;
        }
    }

    /// Adds a property.
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.properties.push((name.to_owned(), value.into()));
    }

    /// The bag with one property more.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.put(name, value);
        self
    }

    /// The value of `name`; of several, the last.
    pub(super) fn peek(&self, name: &str) -> Option<String> {
        self.properties.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.text())
    }

    /// As [`Bag::peek`], and then it is no longer there.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let value = self.peek(name);
        self.properties.retain(|(known, _)| known != name);
        value
    }

    /// All values of `name`, and of `name.0`, `name.1` …, and then they are no longer there.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<String> {
        let belongs = |known: &str| {
            known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let values = self
            .properties
            .iter()
            .filter(|(known, _)| belongs(known))
            .map(|(_, value)| value.text())
            .collect();
        self.properties.retain(|(known, _)| !belongs(known));
        values
    }

    /// Whether `name` has one of `values`; only then is it taken.
    pub(super) fn take_if(&mut self, name: &str, values: &[&str]) -> bool {
        let fits = self.peek(name).is_some_and(|value| values.contains(&value.as_str()));
        if fits {
            self.take(name);
        }
        fits
    }

    /// What is in it, as text.
    pub(super) fn rest(&self) -> impl Iterator<Item = (&str, String)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value.text()))
    }

    /// Moves the properties into `other`, each under `prefix`.
    pub(super) fn pour(self, other: &mut Self, prefix: &str) {
        for (name, value) in self.properties {
            other.put(&format!("{prefix}{name}"), value);
        }
    }

    /// As JSON, with dots in names as nested objects.
    pub(super) fn json(&self) -> String {
        let mut members = Map::new();
        for (name, value) in &self.properties {
            let value = match value {
                Value::Text(text) => Json::from(text.as_str()),
                Value::Int(number) => Json::from(*number),
                Value::Bool(on) => Json::from(*on),
            };
            nest(&mut members, name, value);
        }
        lists(Json::Object(members)).to_string()
    }

    /// As `name=value,…`; a first property that is called `first` goes without its name.
    pub(super) fn human(&self, first: &str) -> String {
        let mut text = String::new();
        for (index, (name, value)) in self.properties.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            if index > 0 || name != first {
                // Lists of texts are objects in JSON, and repeated here.
                let name =
                    name.split_once(".").filter(|_| name.ends_with(".str")).map_or(name.as_str(), |(n, _)| n);
                let _ = write!(text, "{name}=");
            }
            text.push_str(&value.text().replace(',', ",,"));
        }
        text
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.properties.is_empty()
    }
}

/// The value at the start of `text`, and what follows the comma after it.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(',').unwrap_or(rest.len());
        value.push_str(&rest[..end]);
        let after = rest.get(end + 1..).unwrap_or_default();
        let Some(more) = after.strip_prefix(',') else { return (value, after) };
        value.push(',');
        rest = more;
    }
}

/// Puts a value where the dots of its name lead.
fn nest(members: &mut Map<String, Json>, name: &str, value: Json) {
    match name.split_once('.') {
        None => {
            members.insert(name.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = members.entry(head).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                nest(inner, rest, value);
            }
        }
    }
}

/// What was nested under numbers is a list.
fn lists(json: Json) -> Json {
    let Json::Object(members) = json else { return json };
    let list = members.keys().all(|name| name.bytes().all(|c| c.is_ascii_digit()));
    let members = members.into_iter().map(|(name, value)| (name, lists(value)));
    if list { members.map(|(_, value)| value).collect() } else { Json::Object(members.collect()) }
}
