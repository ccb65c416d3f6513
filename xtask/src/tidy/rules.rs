//! Invariants of single files.

use super::code::{has_word, without_tests};
use super::{File, Finding};

/// Lines of code a file may have, its unit tests not counted.
const MAX_LINES: usize = 500;

/// Who may use `anyhow`.
const UNTYPED_ERRORS: &[&str] = &["engine", "parador", "xtask", "tests", "fuzz"];

/// Folders of somebody's machine. Written in two halves, or this file would be a violation.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];

/// Hosts that serve packages: which one is used is the machine's own configuration.
const REGISTRIES: &[&str] = &[
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("deb.debian", ".org"),
    concat!("ftp.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("snapshot.debian", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("ghcr", ".io"),
];

/// Only `machine::kvm` and `machine::vcpu` name the KVM bindings' calls.
pub(super) fn kvm_fence(files: &[File]) -> Vec<Finding> {
    let inside = |path: &str| {
        ["kvm", "vcpu"].iter().any(|module| {
            let base = format!("crates/machine/src/{module}");
            path == format!("{base}.rs") || path.starts_with(&format!("{base}/"))
        })
    };
    rust(files)
        .filter(|file| file.path.contains("/src/") && !inside(&file.path))
        .flat_map(|file| words(file, "kvm_ioctls", "kvm_ioctls outside of machine::kvm and machine::vcpu"))
        .collect()
}

/// `cfg(target_arch)` only under `machine::platform`.
pub(super) fn architectures(files: &[File]) -> Vec<Finding> {
    rust(files)
        .filter(|file| !file.path.starts_with("crates/machine/src/platform"))
        .flat_map(|file| words(file, "target_arch", "target_arch outside of machine::platform"))
        .collect()
}

/// `unsafe` only in modules that begin with the line that says why.
pub(super) fn unsafe_modules(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let compact = file.code.split_whitespace().collect::<String>();
        let declared = compact.contains("#![expect(unsafe_code,reason=");
        if !declared && let Some((line, _)) = file.code_lines().find(|(_, line)| has_word(line, "unsafe")) {
            findings.push(
                file.finding(line, "unsafe in a module without `#![expect(unsafe_code, reason = ..)]`"),
            );
        }
    }
    findings
}

/// `anyhow` only where nobody matches on errors.
pub(super) fn typed_errors(files: &[File]) -> Vec<Finding> {
    let libraries = |file: &&File| file.path.starts_with("crates/") && !UNTYPED_ERRORS.contains(&file.room());
    let mut findings = Vec::new();
    for file in files.iter().filter(libraries) {
        if file.path.ends_with(".rs") {
            findings.extend(words(file, "anyhow", "anyhow in a library"));
        } else if file.path.ends_with("Cargo.toml") {
            let found = lines(file).find(|(_, line)| line.starts_with("anyhow"));
            findings.extend(found.map(|(number, _)| file.finding(number, "anyhow in a library")));
        }
    }
    findings
}

/// Files that are too long to read.
pub(super) fn file_length(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let code = without_tests(&file.code).lines().filter(|line| !line.trim().is_empty()).count();
        if code > MAX_LINES {
            findings.push(file.finding(1, format!("{code} lines of code, more than {MAX_LINES}")));
        }
    }
    findings
}

/// Markers of unfinished work without the number of an issue.
pub(super) fn open_ends(files: &[File]) -> Vec<Finding> {
    const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path != "Cargo.lock") {
        for (number, line) in lines(file) {
            let marker = MARKERS.iter().find(|marker| has_word(line, marker));
            let numbered = line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if let Some(marker) = marker
                && !numbered
            {
                findings.push(file.finding(number, format!("{marker} without an issue's number")));
            }
        }
    }
    findings
}

/// Paths and hosts of one machine.
pub(super) fn machine_paths(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.path.ends_with("Cargo.lock")) {
        for (number, line) in lines(file) {
            for path in MACHINE_PATHS.iter().filter(|path| line.contains(**path)) {
                findings.push(file.finding(number, format!("a path of one machine, {path}")));
            }
            for host in REGISTRIES.iter().filter(|host| line.contains(**host)) {
                findings.push(file.finding(number, format!("the host name {host}")));
            }
        }
    }
    findings
}

/// Every library begins with documentation that has an example which runs.
pub(super) fn examples(files: &[File]) -> Vec<Finding> {
    let is_library = |file: &&File| file.path.starts_with("crates/") && file.path.ends_with("/src/lib.rs");
    let runs = |line: &str| matches!(line.strip_prefix("//! ```"), Some("" | "rust" | "should_panic"));
    let without = files.iter().filter(is_library).filter(|file| !file.text.lines().any(runs));
    without.map(|file| file.finding(1, "no example in the crate's documentation")).collect()
}

/// Every outside crate has its line in the list of reasons.
pub(super) fn dependency_reasons(files: &[File]) -> Vec<Finding> {
    const REASONS: &str = "docs/decisions/0003-dependencies.md";
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let (Some(manifest), Some(reasons)) = (find("Cargo.toml"), find(REASONS)) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (number, line) in lines(manifest) {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        let ours = name.is_empty() || name.starts_with(['#', '[']) || name.starts_with("parador");
        let listed = || reasons.text.lines().any(|row| row.starts_with('|') && has_word(row, name));
        if in_dependencies && !ours && !listed() {
            findings.push(manifest.finding(number, format!("`{name}` has no reason in {REASONS}")));
        }
    }
    findings
}

/// Names that say nothing.
pub(super) fn vague_names(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        for (number, line) in file.code_lines() {
            let named = |keyword: &str| {
                let (_, name) = line.split_once(keyword)?;
                name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
            };
            let vague_type = ["struct ", "enum ", "trait "]
                .iter()
                .filter_map(|keyword| named(keyword))
                .find(|name| ["Manager", "Helper", "Util", "Utils"].iter().any(|word| name.ends_with(word)));
            let vague_function = named("fn ").filter(|name| name.starts_with("get_"));
            if let Some(name) = vague_type.or(vague_function) {
                findings.push(file.finding(number, format!("the name {name}")));
            }
        }
    }
    findings
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.path.ends_with(".rs"))
}

fn lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// A finding for each line of code with `word` in it.
fn words<'a>(file: &'a File, word: &'a str, what: &'a str) -> impl Iterator<Item = Finding> + 'a {
    let found = file.code_lines().filter(move |(_, line)| has_word(line, word));
    found.map(move |(number, _)| file.finding(number, what))
}
