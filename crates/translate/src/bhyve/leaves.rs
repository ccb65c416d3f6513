//! bhyve's own tree: leaves with text, and nodes that only hold others (bhyve_config(5)).

use std::collections::BTreeMap;

use parador_config::Origin;

/// A value, and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) value: String,
    pub(super) origin: Origin,
    /// When its path was first mentioned.
    order: usize,
}

/// All values, by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaves {
    leaves: BTreeMap<String, Leaf>,
    next: usize,
}

impl Leaves {
    /// Sets a leaf; what it was set to before is replaced. The error is what is wrong with `path`
    /// or `value`, and what to do.
    pub(super) fn set(&mut self, path: &str, value: &str, origin: &Origin) -> Result<(), Wrong> {
        self.judge(path, value)?;
        let order = self.leaves.get(path).map_or(self.next, |old| old.order);
        self.next += 1;
        let leaf = Leaf { value: value.to_owned(), origin: origin.clone(), order };
        self.leaves.insert(path.to_owned(), leaf);
        Ok(())
    }

    fn judge(&self, path: &str, value: &str) -> Result<(), Wrong> {
        if let Some(c) = path.chars().find(|c| !(c.is_ascii_alphanumeric() || "_-.".contains(*c))) {
            let hint = "no blanks are allowed around `=`, and a key is letters, digits, `_`, `-` and dots";
            return Err(Wrong::new(format!("`{}` in a key", c.escape_debug()), hint));
        }
        if path.split('.').any(str::is_empty) {
            return Err(Wrong::new("an empty part in a key", "its parts are separated by single dots"));
        }
        if value.is_empty() {
            let hint = "leave the key out: nothing can be set to nothing";
            return Err(Wrong::new(format!("`{path}` has no value"), hint));
        }
        if self.is_node(path) {
            let hint = "a key with keys below it has no value of its own";
            return Err(Wrong::new(format!("`{path}` cannot be set: there are keys below it"), hint));
        }
        for (at, _) in path.match_indices('.') {
            if self.leaves.contains_key(&path[..at]) {
                let hint = "a key that has a value cannot have keys below it";
                return Err(Wrong::new(
                    format!("`{path}` cannot be set: `{}` has a value", &path[..at]),
                    hint,
                ));
            }
        }
        Ok(())
    }

    /// What is at `path`.
    pub(super) fn leaf(&self, path: &str) -> Option<&Leaf> {
        self.leaves.get(path)
    }

    /// The text at `path`.
    pub(super) fn value(&self, path: &str) -> Option<&str> {
        self.leaf(path).map(|leaf| leaf.value.as_str())
    }

    /// Takes the leaf at `path` out.
    pub(super) fn remove(&mut self, path: &str) -> Option<Leaf> {
        self.leaves.remove(path)
    }

    /// Whether there is something below `path`.
    pub(super) fn is_node(&self, path: &str) -> bool {
        self.below(path).next().is_some()
    }

    /// What is below `path`, by the rest of its path, sorted.
    pub(super) fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = (&'a str, &'a Leaf)> {
        let prefix = format!("{path}.");
        let length = prefix.len();
        self.leaves
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(move |(path, leaf)| (&path[length..], leaf))
    }

    /// What is below `path`, in the order in which it was first mentioned.
    pub(super) fn below_in_order(&self, path: &str) -> Vec<(&str, &Leaf)> {
        let mut all: Vec<_> = self.below(path).collect();
        all.sort_by_key(|(_, leaf)| leaf.order);
        all
    }

    /// All leaves, in the order in which their paths were first mentioned.
    pub(super) fn in_order(&self) -> Vec<(&str, &Leaf)> {
        let mut all: Vec<_> = self.leaves.iter().map(|(path, leaf)| (path.as_str(), leaf)).collect();
        all.sort_by_key(|(_, leaf)| leaf.order);
        all
    }
}

/// What is wrong, and what to do.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// A place on the buses, written as bhyve does in keys, `B.S.F`; `None` if there is no such place.
pub(super) fn place(bus: &str, slot: &str, function: &str) -> Option<(u8, u8, u8)> {
    let number = |text: &str, max: u8| {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|n| plain && *n <= max)
    };
    Some((number(bus, 255)?, number(slot, 31)?, number(function, 7)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin::Argument(1);

    #[test]
    fn a_leaf_has_nothing_below_it_and_a_node_no_value() {
        let mut leaves = Leaves::default();
        leaves.set("a.b", "1", &HERE).unwrap();
        assert!(leaves.set("a", "1", &HERE).unwrap_err().message.contains("keys below it"));
        assert!(leaves.set("a.b.c", "1", &HERE).unwrap_err().message.contains("`a.b` has a value"));
        leaves.set("a-b", "1", &HERE).unwrap();
        assert!(leaves.is_node("a") && !leaves.is_node("a.b") && !leaves.is_node("a-"));
        for (path, value) in [("", "1"), ("a..b", "1"), (".a", "1"), ("x ", "1"), ("x", "")] {
            assert!(leaves.set(path, value, &HERE).is_err(), "{path}");
        }
    }

    #[test]
    fn a_replaced_leaf_keeps_its_rank() {
        let mut leaves = Leaves::default();
        for (path, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
            leaves.set(path, value, &HERE).unwrap();
        }
        let all: Vec<_> =
            leaves.in_order().iter().map(|(path, leaf)| format!("{path}={}", leaf.value)).collect();
        assert_eq!(all, ["b=3", "a=2"]);
    }

    #[test]
    fn places_are_decimal_without_padding() {
        assert_eq!(place("0", "31", "7"), Some((0, 31, 7)));
        for (bus, slot, function) in [
            ("256", "0", "0"),
            ("0", "32", "0"),
            ("0", "0", "8"),
            ("0", "04", "0"),
            ("", "1", "1"),
            ("+1", "1", "1"),
        ] {
            assert_eq!(place(bus, slot, function), None);
        }
    }
}
