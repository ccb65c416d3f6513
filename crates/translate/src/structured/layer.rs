//! Leaves of one file, or of several that were laid over one another.

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Origin, Tree};

/// A key, its value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) path: String,
    pub(crate) value: String,
    pub(crate) origin: Origin,
    /// The list it was made from: when another file sets that, this goes.
    list: Option<String>,
}

/// Leaves in the order of their first mention.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    leaves: Vec<Option<Leaf>>,
    index: BTreeMap<String, usize>,
    lists: BTreeSet<String>,
}

impl Layer {
    /// The leaf at `path`.
    pub(crate) fn leaf(&self, path: &str) -> Option<&Leaf> {
        self.leaves[*self.index.get(path)?].as_ref()
    }

    /// How many leaves there are.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Says that the list `list` is set here, even if it is empty.
    pub(crate) fn has_list(&mut self, list: &str) {
        self.lists.insert(list.to_owned());
    }

    /// Sets a leaf that is not there yet.
    pub(crate) fn add(&mut self, path: String, value: String, origin: Origin, list: Option<&str>) {
        self.put(Leaf { path, value, origin, list: list.map(str::to_owned) });
    }

    fn put(&mut self, leaf: Leaf) {
        if let Some(at) = self.index.get(&leaf.path) {
            self.leaves[*at] = Some(leaf);
        } else {
            self.index.insert(leaf.path.clone(), self.leaves.len());
            self.leaves.push(Some(leaf));
        }
    }

    /// Lays `upper` over this one: its leaves win, and its lists stand in place of those here.
    pub(crate) fn cover(&mut self, upper: Self) {
        let replaced = |leaf: &Leaf| leaf.list.as_ref().is_some_and(|list| upper.lists.contains(list));
        for slot in &mut self.leaves {
            if slot.as_ref().is_some_and(replaced)
                && let Some(leaf) = slot.take()
            {
                self.index.remove(&leaf.path);
            }
        }
        for leaf in upper.leaves.into_iter().flatten() {
            self.put(leaf);
        }
        self.lists.extend(upper.lists);
    }

    /// The tree of these leaves.
    pub(crate) fn into_tree(self) -> Tree {
        let mut tree = Tree::default();
        for Leaf { path, value, origin, .. } in self.leaves.into_iter().flatten() {
            tree.set_raw(&path, value, origin);
        }
        tree
    }
}
