//! TOML: its syntax.

use std::rc::Rc;

use parador_config::{Diagnostics, Severity};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::structured::node::{Key, Node, Place, Table, Value};
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
