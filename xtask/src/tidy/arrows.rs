//! Which crate may know which.

use super::code::has_word;
use super::{File, Finding};

/// Every arrow between our crates. What is not here is not allowed; crates that test or build the
/// others (`tests`, `fuzz`, `xtask`) are not bound by it.
const ARROWS: &[(&str, &[&str])] = &[
    ("virtio", &[]),
    ("block", &[]),
    ("config", &[]),
    ("devices", &["virtio", "block"]),
    ("vhost-user", &["virtio"]),
    ("machine", &["virtio"]),
    ("translate", &["config"]),
    ("conformance", &["vhost-user"]),
    ("engine", &["machine", "devices", "vhost-user", "virtio", "block", "config"]),
    ("parador", &["engine", "translate", "block", "config", "conformance"]),
];

/// The manifests: `parador-x` among the dependencies of any kind.
pub(super) fn dependencies(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in
        files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with("Cargo.toml"))
    {
        let Some(allowed) = allowed(file.room()) else {
            findings
                .push(file.finding(1, format!("the crate `{}` has no arrows in tidy's table", file.room())));
            continue;
        };
        let mut in_dependencies = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            }
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            let Some(target) = name.strip_prefix("parador-") else { continue };
            // A crate may ask for itself with other features in its own tests.
            if in_dependencies && target != file.room() && !allowed.contains(&target) {
                findings.push(file.finding(index + 1, format!("{} may not depend on {target}", file.room())));
            }
        }
    }
    findings
}

/// The sources: `parador_x` as a name; and `engine::qemu`, which has a stricter wall than its crate.
pub(super) fn names(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with(".rs")) {
        let Some(allowed) = allowed(file.room()) else { continue };
        let qemu = file.path.starts_with("crates/engine/src/qemu");
        for (number, line) in file.code_lines() {
            for (target, _) in ARROWS {
                let foreign = *target != file.room() && !allowed.contains(target);
                let walled = qemu && ["machine", "devices"].contains(target);
                if (foreign || walled) && has_word(line, &format!("parador_{}", target.replace('-', "_"))) {
                    let who = if walled { "engine::qemu" } else { file.room() };
                    findings.push(file.finding(number, format!("{who} may not use {target}")));
                }
            }
        }
    }
    findings
}

fn allowed(room: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(name, _)| *name == room).map(|(_, allowed)| *allowed)
}
