//! `cargo xtask tidy`: the invariants of ARCHITECTURE.md and STYLE.md that a program can check, each
//! with its reason. A new one is a line in `RULES`.

mod arrows;
mod code;
mod rules;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// One file of the tree.
pub(super) struct File {
    /// From the top of the tree.
    path: String,
    text: String,
    /// The text without comments and literals, if it is Rust.
    code: String,
}

/// What one rule found in one place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    path: String,
    /// From 1.
    line: usize,
    what: String,
}

/// An invariant.
struct Rule {
    why: &'static str,
    check: fn(&[File]) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule {
        check: arrows::dependencies,
        why: "a crate is a wall with a reason: devices build without KVM and can be served out of process, \
              and the ground floor stands on nothing of ours",
    },
    Rule { check: arrows::names, why: "what another crate re-exports is no way around a wall" },
    Rule { check: rules::kvm_fence, why: "KVM is fenced, not abstracted: one hypervisor needs no trait" },
    Rule { check: rules::architectures, why: "a second architecture is one folder" },
    Rule { check: rules::unsafe_modules, why: "the list of modules to review must stay short and visible" },
    Rule {
        check: rules::typed_errors,
        why: "libraries have typed errors; anyhow is for those nobody matches on",
    },
    Rule {
        check: rules::file_length,
        why: "a file is read top-down in one sitting; split it by what changes together",
    },
    Rule { check: rules::open_ends, why: "what is left to do has an issue, where others find it" },
    Rule { check: rules::machine_paths, why: "the tree means the same on every machine" },
    Rule {
        check: rules::examples,
        why: "the first thing a reader of a library wants is a use of it that runs",
    },
    Rule { check: rules::dependency_reasons, why: "a dependency is code we answer for" },
    Rule { check: rules::vague_names, why: "a name says what a thing is or does" },
];

/// Checks the tree and prints `path:line: what — why` for each violation.
pub fn tidy() -> Result<()> {
    let files = tracked(command::root())?;
    let findings = check(&files);
    for (finding, why) in &findings {
        println!("{}:{}: {} — {why}", finding.path, finding.line, finding.what);
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} places are not tidy"),
    }
}

fn check(files: &[File]) -> Vec<(Finding, &'static str)> {
    let of_rule =
        |rule: &Rule| (rule.check)(files).into_iter().map(|found| (found, rule.why)).collect::<Vec<_>>();
    RULES.iter().flat_map(of_rule).collect()
}

/// All files that are, or are about to be, under version control; binary ones are left out.
fn tracked(root: &Path) -> Result<Vec<File>> {
    let mut list = Command::new("git");
    list.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut files = Vec::new();
    for path in command::output_text(&mut list)?.split_terminator('\0') {
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            files.push(File::new(path, &text));
        }
    }
    Ok(files)
}

impl File {
    fn new(path: &str, text: &str) -> File {
        let code = if path.ends_with(".rs") { code::code_of(text) } else { String::new() };
        File { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The crate this file belongs to: `virtio` for `crates/virtio/...`, `xtask`, `tests`, `fuzz`.
    fn room(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or_default()
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    /// The lines of code (no comments, no literals) with their numbers from 1.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

#[cfg(test)]
mod tests;
