//! Each rule on the smallest tree that breaks it, and the same tree mended.

use super::*;

/// The whats of all findings in a tree of `(path, text)`.
fn findings(tree: &[(&str, &str)]) -> Vec<String> {
    let files = tree.iter().map(|(path, text)| File::new(path, text)).collect::<Vec<_>>();
    check(&files)
        .into_iter()
        .map(|(found, _)| format!("{}:{}: {}", found.path, found.line, found.what))
        .collect()
}

fn manifest(dependency: &str) -> String {
    format!("[package]\nname = \"x\"\n\n[dependencies]\n{dependency}\n")
}

#[test]
fn arrows_between_crates() {
    let machine = manifest("parador-virtio.workspace = true");
    assert!(findings(&[("crates/machine/Cargo.toml", &machine)]).is_empty());
    let machine = manifest("parador-devices = { workspace = true }");
    assert_eq!(
        findings(&[("crates/machine/Cargo.toml", &machine)]),
        ["crates/machine/Cargo.toml:5: machine may not depend on devices"]
    );
    assert_eq!(findings(&[("crates/new/Cargo.toml", "")]).len(), 1);
    assert_eq!(
        findings(&[("crates/devices/src/a.rs", "// parador_machine\nuse parador_machine::Bus;\n")]),
        ["crates/devices/src/a.rs:2: devices may not use machine"]
    );
    assert!(findings(&[("crates/engine/src/native.rs", "use parador_machine::Bus;\n")]).is_empty());
    assert_eq!(
        findings(&[("crates/engine/src/qemu/args.rs", "use parador_machine::Bus;\n")]),
        ["crates/engine/src/qemu/args.rs:1: engine::qemu may not use machine"]
    );
}

#[test]
fn kvm_stays_behind_its_fence() {
    let text = "use kvm_ioctls::VmFd;\n";
    for path in ["crates/machine/src/kvm.rs", "crates/machine/src/vcpu/state.rs"] {
        assert!(findings(&[(path, text)]).is_empty(), "{path}");
    }
    for path in ["crates/machine/src/kvmish.rs", "crates/engine/src/native.rs"] {
        assert_eq!(findings(&[(path, text)]).len(), 1, "{path}");
    }
}

#[test]
fn architectures_stay_in_their_folder() {
    let text = "#[cfg(target_arch = \"x86_64\")]\nmod x86_64;\n";
    assert!(findings(&[("crates/machine/src/platform/mod.rs", text)]).is_empty());
    assert_eq!(findings(&[("crates/machine/src/bus.rs", text)]).len(), 1);
}

#[test]
fn unsafe_needs_its_line() {
    let text = "fn a() { unsafe { b() } }\n";
    assert_eq!(findings(&[("crates/virtio/src/a.rs", text)]).len(), 1);
    let declared = format!("#![expect(\n    unsafe_code,\n    reason = \"a pointer\"\n)]\n{text}");
    assert!(findings(&[("crates/virtio/src/a.rs", &declared)]).is_empty());
    assert!(findings(&[("crates/virtio/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\";\n")]).is_empty());
}

#[test]
fn libraries_have_typed_errors() {
    assert_eq!(findings(&[("crates/block/src/a.rs", "use anyhow::Result;\n")]).len(), 1);
    assert_eq!(findings(&[("crates/block/Cargo.toml", &manifest("anyhow = \"1\""))]).len(), 1);
    assert!(findings(&[("crates/engine/src/a.rs", "use anyhow::Result;\n")]).is_empty());
    assert!(findings(&[("crates/block/src/a.rs", "//! # Ok::<(), anyhow::Error>(())\n")]).is_empty());
}

#[test]
fn long_files() {
    let long = "fn a() {}\n".repeat(501);
    assert_eq!(findings(&[("crates/block/src/a.rs", &long)]).len(), 1);
    let mended = format!("{}\n#[cfg(test)]\nmod tests {{\n{long}}}\n", "// why\n".repeat(600));
    assert!(findings(&[("crates/block/src/a.rs", &mended)]).is_empty());
}

#[test]
fn open_ends_have_numbers() {
    let marker = concat!("TO", "DO");
    assert_eq!(findings(&[("README.md", &format!("{marker}: more\n"))]).len(), 1);
    assert!(findings(&[("README.md", &format!("{marker} (#12): more\n"))]).is_empty());
}

#[test]
fn nothing_of_one_machine() {
    let path = concat!("/ho", "me/me/disk");
    assert_eq!(findings(&[("README.md", path)]).len(), 1);
    let host = concat!("http://deb.debian", ".org/debian");
    assert_eq!(findings(&[("xtask/a.sh", host)]).len(), 1);
    assert!(findings(&[("README.md", "/var/lib/parador\n")]).is_empty());
}

#[test]
fn libraries_show_how_they_are_used() {
    assert_eq!(findings(&[("crates/block/src/lib.rs", "//! Disks.\n")]).len(), 1);
    assert_eq!(findings(&[("crates/block/src/lib.rs", "//! ```text\n//! ```text\n")]).len(), 1);
    assert!(findings(&[("crates/block/src/lib.rs", "//! ```\n//! block();\n//! ```\n")]).is_empty());
}

#[test]
fn dependencies_have_reasons() {
    let reasons = ("docs/decisions/0003-dependencies.md", "| crate |\n| libc | calls |\n");
    let listed = "[workspace.dependencies]\nparador-virtio = { path = \"\" }\nlibc = \"0.2\"\n";
    assert!(findings(&[("Cargo.toml", listed), reasons]).is_empty());
    let unlisted = format!("{listed}left-pad = \"1\"\n\n[profile.release]\nlto = true\n");
    assert_eq!(
        findings(&[("Cargo.toml", &unlisted), reasons]),
        ["Cargo.toml:4: `left-pad` has no reason in docs/decisions/0003-dependencies.md"]
    );
}

#[test]
fn names_say_something() {
    assert_eq!(
        findings(&[("crates/block/src/a.rs", "pub struct DiskManager;\nfn get_disk() {}\n")]).len(),
        2
    );
    assert!(findings(&[("crates/block/src/a.rs", "pub struct Disk;\nfn target_disk() {}\n")]).is_empty());
}
