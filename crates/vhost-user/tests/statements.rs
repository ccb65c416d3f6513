//! docs/vhost-user.md says of each statement which test shows it: the tests exist.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// How many statements there are.
const STATEMENTS: usize = 142;

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
fn every_statement_is_there_and_its_tests_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = HashSet::new();
    for folder in ["crates/vhost-user", "crates/virtio/tests", "crates/parador/tests", "tests/tests"] {
        functions(&root.join(folder), &mut names);
    }
    let text = fs::read_to_string(root.join("docs/vhost-user.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id"));
    let mut ids = HashSet::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(ids.insert(cells[0]), "{row} is there twice");
        let tests = cells[4].split('`').skip(1).step_by(2);
        let missing: Vec<_> = tests.filter(|test| !names.contains(*test)).collect();
        assert!(missing.is_empty(), "{}: there is no test {missing:?}", cells[0]);
        let said = ["holds: `", "does not apply: ", "does not hold yet: "];
        assert!(said.iter().any(|words| cells[4].starts_with(words)), "{row}");
    }
    assert_eq!(ids.len(), STATEMENTS);
}
