//! What real files become: every file of `tests/golden/<format>/` is read, and compared with the
//! files beside it that have its name and another end.
//!
//! | file | holds |
//! |---|---|
//! | `NAME.<anything else>` | what is read, in the format that is the folder's name |
//! | `NAME.flat` | the tree it becomes |
//! | `NAME.errors` | in place of that: what is wrong with it |
//! | `NAME.out`, `NAME.<format>.out` | the tree written in the same, or in another format; only if there is such a file |
//! | `NAME.origin` | that tree with the place of every value; only if there is such a file |
//! | `NAME.losses` | what was lost on the way in, and on the way to each of those; no file if nothing was |
//!
//! `UPDATE_GOLDEN=1 cargo test -p parador-translate --test golden` writes them anew; an empty
//! `NAME.out` asks for one. Read the difference before it is committed: it was checked by hand.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use parador_config::{Diagnostics, Dump, Tree};
use parador_translate::{Format, Input, Loss, export, import_with};

/// Ends of files that are compared rather than read.
const COMPARED: &[&str] = &["flat", "errors", "losses", "origin", "out"];

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// What a file is compared with.
#[derive(Debug, Default)]
struct Expected {
    differences: String,
    update: bool,
}

impl Expected {
    /// Compares `text` with the file; an empty one is one that is not there.
    fn compare(&mut self, path: &Path, text: &str) {
        let there = fs::read_to_string(path).unwrap_or_default();
        if there == text {
            return;
        }
        if self.update && text.is_empty() {
            fs::remove_file(path).unwrap();
        } else if self.update {
            fs::write(path, text).unwrap();
        } else {
            let _ = writeln!(
                self.differences,
                "{} differs\n--- expected\n{there}--- found\n{text}",
                path.display()
            );
        }
    }

    /// Compares what `tree` is in each format that there is a file for, and says what was lost.
    fn compare_exports(&mut self, path: &Path, own: Format, tree: &Tree) -> String {
        let mut lost = String::new();
        let own = std::iter::once((own, path.with_extension("out")));
        let others = Format::ALL.iter().map(|f| (*f, path.with_extension(format!("{}.out", f.name()))));
        for (format, path) in own.chain(others) {
            if !path.exists() {
                continue;
            }
            let mut diagnostics = Diagnostics::default();
            let expanded = if format.has_references() { tree.clone() } else { tree.expand(&mut diagnostics) };
            assert_eq!(diagnostics.to_string(), "", "{}", path.display());
            match export(format, &expanded) {
                Ok(exported) => {
                    self.compare(&path, &exported.output.to_string());
                    lost += &losses(&format!("to {}", format.name()), &exported.losses);
                }
                Err(diagnostics) => self.compare(&path, &diagnostics.to_string()),
            }
        }
        lost
    }
}

fn losses(way: &str, losses: &[Loss]) -> String {
    let mut text = String::new();
    for Loss { what, why, origin } in losses {
        let _ = write!(text, "{way}: {what}: {why}");
        let _ = origin.as_ref().map_or(Ok(()), |origin| write!(text, " ({origin})"));
        text.push('\n');
    }
    text
}

#[test]
fn files_become_what_is_beside_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut expected = Expected { update, ..Expected::default() };
    for folder in sorted(&root) {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let format = Format::named(name).expect("a folder has the name of a format");
        for path in sorted(&folder) {
            let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
            if path.is_dir() || COMPARED.contains(&end) {
                continue;
            }
            one(&mut expected, format, &folder, &path);
        }
    }
    assert!(expected.differences.is_empty(), "{}", expected.differences);
}

fn one(expected: &mut Expected, format: Format, folder: &Path, path: &Path) {
    let bytes = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let load = |included: &Path| fs::read(folder.join(included));
    let (flat, errors, lost) = match import_with(format, Input::Text { name, bytes: &bytes }, &load) {
        Ok(imported) => {
            if let Some(guessed) = Format::guess(Input::Text { name, bytes: &bytes }) {
                let same = guessed == format || (guessed == Format::Flat && format.name() == "bhyve-config");
                assert!(same, "{} looks like {}", path.display(), guessed.name());
            }
            let mut lost = losses("from", &imported.losses);
            lost += &expected.compare_exports(path, format, &imported.tree);
            let origin = path.with_extension("origin");
            if origin.exists() {
                expected.compare(&origin, &imported.tree.dump(Dump::Origin, true));
            }
            let flat = export(Format::Flat, &imported.tree).unwrap().output.to_string();
            (flat, String::new(), lost)
        }
        Err(diagnostics) => (String::new(), diagnostics.to_string(), String::new()),
    };
    expected.compare(&path.with_extension("flat"), &flat);
    expected.compare(&path.with_extension("errors"), &errors);
    expected.compare(&path.with_extension("losses"), &lost);
}
