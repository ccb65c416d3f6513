//! Domain documents as we write them, judged by libvirt's own schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::guest;

/// What only newer versions of libvirt than the stable release's know: NVMe disks of bhyve's.
const TOO_NEW: &[&str] = &["bhyve-pinned.out"];

/// Golden files of the translation that are documents.
#[test]
fn documents_are_what_libvirts_schema_says() {
    let schema = guest::domain_schema().expect("libvirt's schema comes from the Debian archive");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/translate/tests/golden");
    let mut judged = 0;
    for format in fs::read_dir(golden).expect("there are golden files") {
        let format = format.expect("a folder can be listed").path();
        let own = format.ends_with("libvirt-xml");
        for file in fs::read_dir(&format).expect("each format has a folder") {
            let file = file.expect("a folder can be listed").path();
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_document = name.ends_with(".libvirt-xml.out") || (own && name.ends_with(".out"));
            if !is_document || TOO_NEW.contains(&name) {
                continue;
            }
            let output = Command::new("xmllint")
                .args(["--noout", "--nonet", "--relaxng"])
                .args([&schema, &file])
                .output()
                .expect("xmllint was installed");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:\n{said}", file.display());
            judged += 1;
        }
    }
    assert!(judged >= 8, "only {judged} documents were found");
}
