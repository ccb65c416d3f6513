//! docs/zoned.md says of each case which test shows it: the tests exist.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Cases of a device, and of what lasts.
const CASES: usize = 84 + 12;

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
fn every_case_is_there_and_its_tests_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = HashSet::new();
    for folder in ["crates", "tests"] {
        functions(&root.join(folder), &mut names);
    }
    let text = fs::read_to_string(root.join("docs/zoned.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| T") || line.starts_with("| C"));
    let rows = rows.filter(|line| line.as_bytes()[3].is_ascii_digit());
    let mut ids = HashSet::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        assert!(ids.insert(cells[0]), "{row} is there twice");
        let tests = cells[2].split('`').skip(1).step_by(2);
        let missing: Vec<_> = tests.clone().filter(|test| !names.contains(*test)).collect();
        assert!(missing.is_empty(), "{}: there is no test {missing:?}", cells[0]);
        let said = ["holds: `", "does not apply: ", "not yet: "];
        assert!(said.iter().any(|words| cells[2].starts_with(words)), "{row}");
    }
    assert_eq!(ids.len(), CASES);
}
