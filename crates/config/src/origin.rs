//! Where a value was written.

use std::fmt;
use std::sync::Arc;

use crate::printable::printable;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// What messages call the file.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column of the first character, from 1: of the key in a file of keys, of the value or
        /// option in a file of another system.
        column: usize,
    },
    /// On the command line: the number of the argument, the program's name being number 0.
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

    /// Whether both are in one file, as it was read once.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { name: a, .. }, Self::File { name: b, .. }) => Arc::ptr_eq(a, b),
            (Self::File { .. } | Self::Argument(_), _) => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{}:{line}:{column}", printable(name, 200)),
            Self::Argument(number) => write!(f, "command line, argument {number}"),
        }
    }
}
