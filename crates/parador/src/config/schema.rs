//! The JSON Schema (draft 7, which editors of TOML know) of what `parador run` reads: the keys as
//! tables, and the words that stand for several keys.

use std::collections::BTreeMap;

use parador_config::keys::{self, Key, Kind, Support};
use serde_json::{Map, Value, json};

/// The schema's text.
pub(super) fn text() -> String {
    format!("{:#}\n", schema())
}

fn schema() -> Value {
    let mut root = Node::default();
    for key in keys::all().filter(|key| !key.pattern.starts_with("device.")) {
        root.insert(key.pattern.split('.'), key);
    }
    let mut properties = root.properties();
    for (word, key) in [("kernel", "boot.kernel"), ("initrd", "boot.initrd"), ("cmdline", "boot.cmdline")] {
        properties.insert(word.to_owned(), of_key(key));
    }
    let sizes = json!({ "anyOf": [of_key("memory.size"), properties["memory"]] });
    properties.insert("memory".to_owned(), sizes);
    for (word, value) in shortcuts() {
        properties.insert(word.to_owned(), value);
    }
    let mut definitions: Map<String, Value> =
        keys::MODELS.iter().map(|model| (model.name.to_owned(), model_keys(model.name))).collect();
    definitions.insert("device".to_owned(), device());
    let closed = "additionalProperties";
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A virtual machine of Parador",
        "type": "object",
        "properties": properties,
        closed: false,
        "definitions": definitions,
    })
}

/// Words at the top of a file that are no keys.
fn shortcuts() -> Vec<(&'static str, Value)> {
    let list = |one: Value| json!({ "anyOf": [one, { "type": "array", "items": one }] });
    let text = json!({ "type": "string" });
    let table = |model: &str, more: &str| {
        let mut table = model_keys(model);
        for word in ["id", "model", more] {
            table["properties"][word] = text.clone();
        }
        json!({ "anyOf": [text, table] })
    };
    let any = json!({ "type": "object" });
    let template = json!({ "type": "object", "properties": { "params": list(text.clone()) } });
    let devices = json!({ "$ref": "#/definitions/device" });
    vec![
        ("disk", described(list(table("virtio-blk", "id")), "Disks: paths of images, or tables of keys.")),
        (
            "net",
            described(
                list(table("virtio-net", "bridge")),
                "Network interfaces: names of bridges, or tables.",
            ),
        ),
        (
            "share",
            described(
                json!({ "type": "object", "additionalProperties": table("virtio-9p", "id") }),
                "Folders for the guest, by the names it mounts them under.",
            ),
        ),
        (
            "device",
            described(
                json!({ "anyOf": [
                    { "type": "array", "items": devices },
                    { "type": "object", "additionalProperties": devices },
                ]}),
                "Devices: each with its id, its model and its keys.",
            ),
        ),
        ("include", described(list(text.clone()), "Other files, which this one wins over.")),
        (
            "template",
            described(json!({ "type": "object", "additionalProperties": template }), "Parts to apply."),
        ),
        (
            "apply",
            described(
                list(json!({ "anyOf": [text, any] })),
                "Templates to apply, by name or with arguments.",
            ),
        ),
        (
            "var",
            described(json!({ "type": "object" }), "Values of your own, for references such as %(var.disk)."),
        ),
        (
            "engine",
            described(json!({ "type": "object", "additionalProperties": any }), "Options of other systems."),
        ),
    ]
}

fn described(mut schema: Value, doc: &str) -> Value {
    schema["description"] = json!(doc);
    schema
}

/// A device: its model says which keys it has.
fn device() -> Value {
    let cases: Vec<Value> = keys::MODELS
        .iter()
        .map(|model| {
            json!({
                "if": { "properties": { "model": { "const": model.name } } },
                "then": { "$ref": format!("#/definitions/{}", model.name) },
            })
        })
        .collect();
    let names: Vec<&str> = keys::MODELS.iter().map(|model| model.name).collect();
    json!({
        "type": "object",
        "required": ["model"],
        "properties": { "model": { "enum": names } },
        "allOf": cases,
    })
}

/// The table of the keys of a model.
fn model_keys(model: &str) -> Value {
    let mut root = Node::default();
    for key in keys::all() {
        let Some(field) = key.pattern.strip_prefix("device.*.") else { continue };
        if key.models.is_empty() || key.models.contains(model) {
            root.insert(field.split('.'), key);
        }
    }
    let mut properties = root.properties();
    properties
        .insert("id".to_owned(), json!({ "type": "string", "description": "What the device is called." }));
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn of_key(pattern: &str) -> Value {
    keys::all().find(|key| key.pattern == pattern).map_or(Value::Bool(true), |key| leaf(&key))
}

/// A place in the tables: keys there, and tables below.
#[derive(Default)]
struct Node {
    keys: Vec<Key>,
    below: BTreeMap<&'static str, Node>,
}

impl Node {
    fn insert(&mut self, mut path: std::str::Split<'static, char>, key: Key) {
        match path.next() {
            Some(part) => self.below.entry(part).or_default().insert(path, key),
            None => self.keys.push(key),
        }
    }

    fn properties(&self) -> Map<String, Value> {
        let named = self.below.iter().filter(|(part, _)| **part != "*");
        named.map(|(part, node)| ((*part).to_owned(), node.schema())).collect()
    }

    fn schema(&self) -> Value {
        let mut forms: Vec<Value> = self.keys.iter().map(leaf).collect();
        if !self.below.is_empty() {
            let others = self.below.get("*").map_or(Value::Bool(false), Node::schema);
            forms.push(json!({
                "type": "object",
                "properties": self.properties(),
                "additionalProperties": others,
            }));
        }
        if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) }
    }
}

/// A key's values. A text may always refer to another key.
fn leaf(key: &Key) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("^({pattern})$|%") });
    let number = |min: u64, max: u64| json!({ "type": "integer", "minimum": min, "maximum": max });
    let size = r"[0-9]+([KMGTkmgt]([iI][bB])?)?|0x[0-9a-fA-F]+";
    let mut forms = match key.kind {
        Kind::Bool => vec![json!({ "type": "boolean" }), text(&any_case("true|false|on|off|yes|no|1|0"))],
        Kind::Int { min, max } => vec![number(min, max), text("[0-9]+|0x[0-9a-fA-F]+")],
        Kind::Size { min, max } => vec![number(min, max), text(size)],
        // A small number counts MiB.
        Kind::Memory { max, .. } => vec![number(0, max), text(size)],
        Kind::Word(words) => {
            let mut forms = vec![json!({ "enum": words.iter().collect::<Vec<_>>() }), text("%.*")];
            if words.iter().any(|word| word.parse::<u64>().is_ok()) {
                forms.push(json!({ "type": "integer" }));
            }
            forms
        }
        Kind::Cpus => vec![
            text("[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*"),
            json!({ "type": "integer", "minimum": 0 }),
            json!({ "type": "array", "items": { "type": ["integer", "string"] } }),
        ],
        Kind::Descriptors => vec![text("[0-9]+(,[0-9]+)*"), number(3, 65_535)],
        Kind::Mac => vec![text("([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")],
        Kind::Address => vec![text(r"([0-9]+:)?[0-9]+(\.[0-7])?"), number(0, 31)],
        Kind::Uuid => vec![text("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")],
        Kind::Endpoint => vec![text("stdio|none|pty|file:.+|unix:.+")],
        Kind::Path => vec![json!({ "type": "string", "minLength": 1 })],
        Kind::Text { .. } => vec![json!({ "type": ["string", "integer", "boolean", "number"] })],
    };
    let mut schema = if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) };
    let refused = match key.support {
        Support::Refused(why) => format!(" Refused by Parador: {why}."),
        _ => String::new(),
    };
    schema["description"] = json!(format!("{}{refused}", key.doc));
    if let Some(default) = key.default {
        schema["default"] = json!(default);
    }
    schema
}

/// The pattern of `words` in capitals, small letters or both.
fn any_case(words: &str) -> String {
    words
        .chars()
        .map(
            |c| {
                if c.is_ascii_lowercase() {
                    format!("[{}{c}]", c.to_ascii_uppercase())
                } else {
                    c.to_string()
                }
            },
        )
        .collect()
}
