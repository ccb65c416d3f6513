//! The tree: flat keys, their values, and where each came from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::diagnose::Diagnostics;
use crate::keys;
use crate::parse;

/// Something that sets keys.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file of `key=value` lines.
    File {
        /// What messages call it.
        name: &'a str,
        /// All of it.
        bytes: &'a [u8],
    },
    /// One `key=value` of a command line.
    Option {
        /// Which argument it is, for messages; the program's name is number 0.
        argument: usize,
        /// The text of it.
        text: &'a str,
    },
    /// The machine's name, as the one positional argument of a command line.
    Name {
        /// Which argument it is.
        argument: usize,
        /// The name.
        text: &'a str,
    },
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// What messages call the file.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column of the key's first character, from 1.
        column: usize,
    },
    /// On the command line: the number of the argument.
    Argument(usize),
}

impl Origin {
    /// The same origin, `columns` characters further to the right.
    pub(crate) fn shifted(&self, columns: usize) -> Self {
        match self {
            Self::File { name, line, column } => {
                Self::File { name: Arc::clone(name), line: *line, column: column + columns }
            }
            Self::Argument(number) => Self::Argument(*number),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => {
                write!(f, "{}:{line}:{column}", crate::diagnose::printable(name, 200))
            }
            Self::Argument(number) => write!(f, "command line, argument {number}"),
        }
    }
}

/// A value as it was written, and where.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Verbatim.
    pub value: String,
    /// Where it was written; of several, the one that counts.
    pub origin: Origin,
    /// When its key was first mentioned.
    order: usize,
    /// The synonym that was written in place of its key.
    spelt: Option<&'static str>,
}

impl Setting {
    /// The key as it was written; `key` is the one it is kept under.
    pub(crate) fn spelt<'a>(&self, key: &'a str) -> &'a str {
        self.spelt.unwrap_or(key)
    }
}

/// Flat keys and their values, as written. Nothing in it has been judged yet.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub(crate) settings: BTreeMap<String, Setting>,
    next: usize,
}

impl Tree {
    /// A tree of what `sources` set, and what is wrong with how they are written.
    ///
    /// Files come first, in order, then options in order, then the name: whatever comes later
    /// wins, wherever it stands in `sources`.
    #[must_use]
    pub fn from_sources(sources: &[Source<'_>]) -> (Self, Diagnostics) {
        let mut tree = Self::default();
        let mut diagnostics = Diagnostics::default();
        let mut sorted: Vec<&Source<'_>> = sources.iter().collect();
        sorted.sort_by_key(|source| match source {
            Source::File { .. } => 0,
            Source::Option { .. } => 1,
            Source::Name { .. } => 2,
        });
        for source in sorted {
            match *source {
                Source::File { name, bytes } => parse::file(&mut tree, &mut diagnostics, name, bytes),
                Source::Option { argument, text } => {
                    parse::option(&mut tree, &mut diagnostics, argument, text);
                }
                Source::Name { argument, text } => {
                    tree.set("name", text.to_owned(), Origin::Argument(argument));
                }
            }
        }
        (tree, diagnostics)
    }

    /// Sets `key`, or the key it is a synonym of, and returns what that replaced. A key keeps the
    /// rank of its first mention.
    pub fn set(&mut self, key: &str, value: String, origin: Origin) -> Option<Setting> {
        let (spelt, key) = keys::synonym(key).map_or((None, key), |(other, key)| (Some(other), key));
        if let Some(old) = self.settings.get_mut(key) {
            let new = Setting { value, origin, order: old.order, spelt };
            return Some(std::mem::replace(old, new));
        }
        self.settings.insert(key.to_owned(), Setting { value, origin, order: self.next, spelt });
        self.next += 1;
        None
    }

    /// What `key` was set to.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&Setting> {
        self.settings.get(key)
    }

    /// All settings, in the order in which their keys were first mentioned.
    #[must_use]
    pub fn in_order(&self) -> Vec<(&str, &Setting)> {
        let mut all: Vec<_> = self.settings.iter().map(|(key, setting)| (key.as_str(), setting)).collect();
        all.sort_by_key(|(_, setting)| setting.order);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_files_and_the_name_over_all() {
        let (tree, diagnostics) = Tree::from_sources(&[
            Source::Name { argument: 5, text: "web" },
            Source::Option { argument: 2, text: "cpus=3" },
            Source::Option { argument: 4, text: "name=other" },
            Source::File { name: "a", bytes: b"cpus=1\nname=a\n" },
            Source::File { name: "b", bytes: b"cpus=2\nmemory.size=1G" },
        ]);
        assert_eq!(diagnostics.to_string(), "");
        assert_eq!(tree.setting("cpus").unwrap().value, "3");
        assert_eq!(tree.setting("name").unwrap().value, "web");
        assert_eq!(tree.setting("name").unwrap().origin, Origin::Argument(5));
        assert_eq!(
            tree.setting("memory.size").unwrap().origin,
            Origin::File { name: "b".into(), line: 2, column: 1 }
        );
        assert_eq!(tree.in_order()[0].0, "cpus", "a key keeps the rank of its first mention");
    }
}
