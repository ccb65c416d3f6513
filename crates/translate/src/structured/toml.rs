//! TOML: its syntax, in and out.

use std::rc::Rc;

use parador_config::{Diagnostics, Severity};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};
use toml_writer::{ToTomlKey, ToTomlValue, TomlKeyBuilder, TomlStringBuilder};

use crate::structured::node::{Key, Node, Place, Table, Value};
use crate::structured::page::{Item, Page, Rows};
use crate::text::Text;

/// The table that `text` is.
pub(crate) fn parse(text: &Rc<Text>, diagnostics: &mut Diagnostics) -> Option<Table> {
    let (table, mut errors) = DeTable::parse_recoverable(&text.text);
    errors.sort_by_key(|error| error.span().map(|span| span.start));
    for error in &errors {
        let end = text.text.len();
        let place = Place { text: Rc::clone(text), range: error.span().unwrap_or(end..end) };
        diagnostics.add(Severity::Error, || place.finding(format!("this is not TOML: {}", error.message())));
    }
    errors.is_empty().then(|| entries(text, table.get_ref()))
}

fn entries(text: &Rc<Text>, table: &DeTable<'_>) -> Table {
    let place = |range| Place { text: Rc::clone(text), range };
    let mut entries: Table = table
        .iter()
        .map(|(key, value)| {
            let key = Key { name: key.get_ref().to_string(), place: place(key.span()) };
            (key, node(text, value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.place.range.start);
    entries
}

fn node(text: &Rc<Text>, value: &Spanned<DeValue<'_>>) -> Node {
    let place = Place { text: Rc::clone(text), range: value.span() };
    let value = match value.get_ref() {
        DeValue::String(string) => Value::Text(string.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Float(number) => Value::Bare(number.as_str().trim_start_matches('+').to_owned()),
        DeValue::Boolean(truth) => Value::Bare(truth.to_string()),
        DeValue::Datetime(_) => Value::Odd("a date or time"),
        DeValue::Array(elements) => Value::List(elements.iter().map(|element| node(text, element)).collect()),
        DeValue::Table(table) => Value::Table(entries(text, table)),
    };
    Node { place, value }
}

/// A number as keys take it: decimal, or hexadecimal after `0x`.
fn integer(number: &DeInteger<'_>) -> Value {
    let digits = number.as_str().trim_start_matches('+');
    Value::Bare(match number.radix() {
        10 => digits.to_owned(),
        16 => format!("0x{digits}"),
        radix => match u128::from_str_radix(digits, radix) {
            Ok(number) => number.to_string(),
            Err(_) => return Value::Odd("a number this long"),
        },
    })
}

/// Longest line, in characters, before a list has a line for each of its elements.
const WIDTH: usize = 100;

/// `page` as TOML.
pub(crate) fn write(page: &Page) -> String {
    let mut text = String::new();
    lines(&mut text, "", &page.top);
    for (name, item) in &page.blocks {
        if let Item::Table(rows) = item {
            block(&mut text, &name_of(name), rows);
        }
    }
    for rows in &page.devices {
        header(&mut text, "[[device]]");
        lines(&mut text, "", rows);
    }
    text
}

fn header(text: &mut String, header: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    *text += header;
    text.push('\n');
}

/// A table, or a table for each of its tables if it has nothing else.
fn block(text: &mut String, path: &str, rows: &Rows) {
    if rows.iter().all(|(_, item)| matches!(item, Item::Table(_))) {
        for (name, item) in rows {
            if let Item::Table(inner) = item {
                block(text, &format!("{path}.{}", name_of(name)), inner);
            }
        }
    } else {
        header(text, &format!("[{path}]"));
        lines(text, "", rows);
    }
}

fn lines(text: &mut String, prefix: &str, rows: &Rows) {
    for (name, item) in rows {
        let name = format!("{prefix}{}", name_of(name));
        match item {
            Item::Table(inner) if !prefix.is_empty() || !shortcut(&name) => {
                lines(text, &format!("{name}."), inner);
            }
            item => {
                let mut value = inline(item);
                if let Item::List(elements) = item
                    && name.chars().count() + 3 + value.chars().count() > WIDTH
                {
                    let elements: Vec<String> =
                        elements.iter().map(|item| format!("  {},\n", inline(item))).collect();
                    value = format!("[\n{}]", elements.concat());
                }
                *text += &format!("{name} = {value}\n");
            }
        }
    }
}

/// Whether a table under `name` is written on one line, as it is one thing.
fn shortcut(name: &str) -> bool {
    ["disk", "net", "share"].contains(&name)
}

fn inline(item: &Item) -> String {
    match item {
        Item::Bare(text) => text.clone(),
        Item::Text(text) => {
            let text = TomlStringBuilder::new(text);
            let chosen = text.as_basic_pretty().or_else(|| text.as_literal());
            chosen.unwrap_or_else(|| text.as_basic()).to_toml_value()
        }
        Item::List(elements) => {
            let elements: Vec<String> = elements.iter().map(inline).collect();
            format!("[{}]", elements.join(", "))
        }
        Item::Table(rows) => {
            let mut words = Vec::new();
            inline_rows(&mut words, "", rows);
            format!("{{{}}}", words.join(", "))
        }
    }
}

fn inline_rows(words: &mut Vec<String>, prefix: &str, rows: &Rows) {
    for (name, item) in rows {
        let name = format!("{prefix}{}", name_of(name));
        match item {
            Item::Table(inner) => inline_rows(words, &format!("{name}."), inner),
            item => words.push(format!("{name} = {}", inline(item))),
        }
    }
}

fn name_of(name: &str) -> String {
    TomlKeyBuilder::new(name).as_default().to_toml_key()
}
