//! Documents that say of each case which test shows it: every case is there, and its tests are.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// A document with a row for each case.
struct Document {
    path: &'static str,
    /// Where its tests are.
    folders: &'static [&'static str],
    is_case: fn(&str) -> bool,
    cases: usize,
    columns: usize,
    /// What the last column begins with.
    said: [&'static str; 3],
}

impl Document {
    fn check(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut names = HashSet::new();
        for folder in self.folders {
            functions(&root.join(folder), &mut names);
        }
        let text = fs::read_to_string(root.join(self.path)).unwrap();
        let mut ids = HashSet::new();
        for row in text.lines().filter(|line| (self.is_case)(line)) {
            let cells: Vec<_> = row.split(" | ").collect();
            assert_eq!(cells.len(), self.columns, "{row}");
            assert!(ids.insert(cells[0]), "{row} is there twice");
            let last = cells[self.columns - 1];
            let tests = last.split('`').skip(1).step_by(2);
            let missing: Vec<_> = tests.filter(|test| !names.contains(*test)).collect();
            assert!(missing.is_empty(), "{}: there is no test {missing:?}", cells[0]);
            assert!(self.said.iter().any(|words| last.starts_with(words)), "{row}");
        }
        assert_eq!(ids.len(), self.cases);
    }
}

/// The names of all functions in the files under `folder`.
fn functions(folder: &Path, names: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let after = |piece: &str| piece.split('(').next().unwrap_or_default().to_owned();
            names.extend(text.split("fn ").skip(1).map(after));
        }
    }
}

#[test]
fn every_statement_about_vhost_user_has_its_tests() {
    let document = Document {
        path: "docs/vhost-user.md",
        folders: &["crates/vhost-user", "crates/virtio/tests", "crates/parador/tests", "tests/tests"],
        is_case: |line| line.starts_with("| ") && !line.starts_with("| id"),
        cases: 142,
        columns: 5,
        said: ["holds: `", "does not apply: ", "does not hold yet: "],
    };
    document.check();
}

/// Cases of a device, and of what lasts.
#[test]
fn every_case_of_a_zoned_disk_has_its_tests() {
    let document = Document {
        path: "docs/zoned.md",
        folders: &["crates", "tests"],
        is_case: |line| {
            (line.starts_with("| T") || line.starts_with("| C")) && line.as_bytes()[3].is_ascii_digit()
        },
        cases: 84 + 12,
        columns: 3,
        said: ["holds: `", "does not apply: ", "not yet: "],
    };
    document.check();
}
