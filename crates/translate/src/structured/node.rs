//! A structured file after its syntax: tables, lists and words, each with its place.

use std::ops::Range;
use std::rc::Rc;

use parador_config::{Diagnostic, Origin};

use crate::text::Text;

/// Some bytes of a file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The file.
    pub(crate) text: Rc<Text>,
    /// Which of its bytes.
    pub(crate) range: Range<usize>,
}

impl Place {
    pub(crate) fn origin(&self) -> Origin {
        self.text.origin(self.range.start)
    }

    /// A finding about this place.
    pub(crate) fn finding(&self, message: impl Into<String>) -> Diagnostic {
        self.text.finding(&self.range, message)
    }
}

/// The name of an entry of a table.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A string, without its quotes.
    Text(String),
    /// A number or a truth value, as it is written in a flat file.
    Bare(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Table),
    /// What has no meaning here, with an article.
    Odd(&'static str),
}

/// Entries, in the order of the file.
pub(crate) type Table = Vec<(Key, Node)>;

impl Node {
    /// The string, number or truth value it is.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Bare(text) => Some(text),
            Value::List(_) | Value::Table(_) | Value::Odd(_) => None,
        }
    }

    /// The elements of a list, or the one value that stands for a list of one.
    pub(crate) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(elements) => elements,
            Value::Text(_) | Value::Bare(_) | Value::Table(_) | Value::Odd(_) => std::slice::from_ref(self),
        }
    }

    /// What it is, with an article.
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Bare(_) => "a number or a truth value",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Odd(what) => what,
        }
    }
}

/// The entry called `name`.
pub(crate) fn entry<'a>(table: &'a Table, name: &str) -> Option<&'a Node> {
    table.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}
