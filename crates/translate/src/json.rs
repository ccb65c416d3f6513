//! JSON of other systems: its members as parts, and parts as its members.

use std::rc::Rc;

use parador_config::{Diagnostic, Diagnostics};
use serde_json::{Map, Value as Json};

use crate::format::Input;
use crate::parts::{self, Group, Part};
use crate::structured::json as syntax;
use crate::structured::node::{Node, Table, Value};
use crate::text::Text;

/// How deep objects may be in one another.
const MAX_DEPTH: usize = 16;

/// The members of the object that `input` is.
pub(crate) fn read(input: Input<'_>, hint: &str) -> Result<Table, Diagnostics> {
    let Input::Text { name, bytes } = input else {
        let finding = Diagnostic::new("this format is a file, not a command line");
        return Err(crate::text::one(finding.hint(hint)));
    };
    let text = Rc::new(Text::new(name, bytes)?);
    let mut wrong = Diagnostics::default();
    syntax::parse(&text, &mut wrong).filter(|_| wrong.errors() == 0).ok_or(wrong)
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
    let text = &node.place.text.text[node.place.range.clone()];
    let json: serde_json::Result<Json> = serde_json::from_str(text);
    json.map_or_else(|_| text.replace(['\n', '\r'], " "), |json| json.to_string())
}

/// `value` as JSON; a text stays a text.
pub(crate) fn json(value: &parts::Value) -> Json {
    match value {
        parts::Value::Text(text) => text.clone().into(),
        parts::Value::Number(n) | parts::Value::Size(n) => (*n).into(),
        parts::Value::Switch(on) => (*on).into(),
        parts::Value::List(values) => values.iter().map(json).collect(),
        parts::Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
    }
}

/// An object to which members are added.
#[derive(Debug, Default)]
pub(crate) struct Object(Map<String, Json>);

impl Object {
    /// Sets the member `name`, whatever is in its name.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Json>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// The member at `path`, whose parts stand between dots; what is not there yet is made.
    pub(crate) fn at(&mut self, path: &str) -> &mut Json {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let mut member = self.0.entry(first).or_insert(Json::Null);
        for name in rest.split('.').filter(|name| !name.is_empty()) {
            if !member.is_object() {
                *member = Json::Object(Map::new());
            }
            member = &mut member[name];
        }
        member
    }

    /// Adds `object` to the array at `path`.
    pub(crate) fn append(&mut self, path: &str, object: Self) {
        let member = self.at(path);
        if !member.is_array() {
            *member = Json::Array(Vec::new());
        }
        if let Json::Array(values) = member {
            values.push(object.into());
        }
    }

    /// Adds members that were kept whole: a place and JSON, by turns.
    pub(crate) fn kept(&mut self, words: &[String]) {
        for pair in words.chunks(2) {
            if let [place, value] = pair {
                self.set(place.trim_start_matches('/'), json(&parts::Value::Json(value.clone())));
            }
        }
    }

    /// The text of it, as a file.
    pub(crate) fn file(self) -> String {
        format!("{:#}\n", Json::from(self))
    }
}

impl From<Object> for Json {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}
