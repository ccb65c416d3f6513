//! The examples of the manual are what it says they are.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use parador_config::{Diagnostics, Tree};
use parador_translate::{Format, Input, import_with};

/// The examples of the section on TOML files, without their indentation.
fn examples() -> Vec<String> {
    let manual = include_str!("../../../docs/manual.md");
    let (_, section) = manual.split_once("\n## TOML files\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut examples = vec![String::new()];
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(line) => *examples.last_mut().unwrap() += &format!("{line}\n"),
            None if line.is_empty() => examples.last_mut().unwrap().push('\n'),
            None => examples.push(String::new()),
        }
    }
    examples
        .into_iter()
        .map(|example| example.trim().to_owned())
        .filter(|example| !example.is_empty())
        .collect()
}

fn read(text: &str) -> Tree {
    let input = Input::Text { name: "web.toml", bytes: text.as_bytes() };
    let base = |_: &std::path::Path| Ok(b"cpus = 2\n".to_vec());
    import_with(Format::Toml, input, &base).map_err(|wrong| wrong.to_string()).unwrap().tree
}

#[test]
fn the_first_machine_has_nothing_wrong_with_it() {
    let tree = read(&examples()[0]);
    let mut diagnostics = Diagnostics::default();
    let keys = tree.check(&mut diagnostics);
    assert_eq!(diagnostics.to_string(), "");
    let ids: Vec<&str> = keys.devices().iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["disk0", "disk1", "net0", "vsock0"]);
}

#[test]
fn templates_are_applied() {
    let tree = read(&examples()[1]);
    let value = |key| tree.setting(key).map(|setting| setting.value.as_str());
    assert_eq!(value("cpus"), Some("2"));
    assert_eq!(value("boot.cmdline"), Some("quiet"));
    assert_eq!(value("device.disk0.path"), Some("/vm/a.img"));
    assert_eq!(value("device.net0.tap.bridge"), Some("br0"));
}
