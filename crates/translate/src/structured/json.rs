//! JSON: its syntax, in and out.

use std::rc::Rc;

use jsonc_parser::ast::{Object, Value as Json};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use parador_config::{Diagnostics, Severity};

use crate::structured::node::{Key, Node, Place, Table, Value};
use crate::structured::page::{Item, Page, Rows};
use crate::text::Text;

/// JSON as RFC 8259 has it.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The table that `text` is.
pub(crate) fn parse(text: &Rc<Text>, diagnostics: &mut Diagnostics) -> Option<Table> {
    let parsed = match parse_to_ast(&text.text, &CollectOptions::default(), &STRICT) {
        Ok(parsed) => parsed.value,
        Err(error) => {
            let reason = error.kind().to_string();
            let mut letters = reason.chars();
            let first = letters.next().map(|letter| letter.to_ascii_lowercase());
            let reason: String = first.into_iter().chain(letters).collect();
            let place = place(text, error.range());
            diagnostics.add(Severity::Error, || place.finding(format!("this is not JSON: {reason}")));
            return None;
        }
    };
    match parsed {
        Some(Json::Object(object)) => Some(entries(text, &object)),
        other => {
            let start = other.map_or(0, |value| value.start());
            let place = place(text, Range::from_byte_index(start));
            diagnostics.add(Severity::Error, || {
                place.finding("no object here").hint("a machine is an object: { \"name\": \"web\", … }")
            });
            None
        }
    }
}

fn place(text: &Rc<Text>, range: Range) -> Place {
    Place { text: Rc::clone(text), range: range.start..range.end }
}

fn entries(text: &Rc<Text>, object: &Object<'_>) -> Table {
    let entries = object.properties.iter();
    entries
        .map(|property| {
            let key =
                Key { name: property.name.as_str().to_owned(), place: place(text, property.name.range()) };
            (key, node(text, &property.value))
        })
        .collect()
}

fn node(text: &Rc<Text>, json: &Json<'_>) -> Node {
    let value = match json {
        Json::StringLit(string) => Value::Text(string.value.to_string()),
        Json::NumberLit(number) => Value::Bare(number.value.to_owned()),
        Json::BooleanLit(truth) => Value::Bare(truth.value.to_string()),
        Json::NullKeyword(_) => Value::Odd("a null"),
        Json::Array(array) => Value::List(array.elements.iter().map(|element| node(text, element)).collect()),
        Json::Object(object) => Value::Table(entries(text, object)),
    };
    Node { place: place(text, json.range()), value }
}

/// `page` as JSON.
pub(crate) fn write(page: &Page) -> String {
    let mut object = rows(&page.top);
    object.extend(rows(&page.blocks));
    if !page.devices.is_empty() {
        let devices = page.devices.iter().map(|device| serde_json::Value::Object(rows(device))).collect();
        object.insert("device".to_owned(), serde_json::Value::Array(devices));
    }
    format!("{:#}\n", serde_json::Value::Object(object))
}

fn rows(rows: &Rows) -> serde_json::Map<String, serde_json::Value> {
    rows.iter().map(|(name, item)| (name.clone(), value(item))).collect()
}

fn value(item: &Item) -> serde_json::Value {
    match item {
        Item::Text(text) => text.clone().into(),
        Item::Bare(text) => text.parse::<u64>().map_or_else(|_| (text == "true").into(), Into::into),
        Item::List(elements) => elements.iter().map(value).collect(),
        Item::Table(inner) => serde_json::Value::Object(rows(inner)),
    }
}
