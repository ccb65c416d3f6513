//! Which format a file is in, where it says so unmistakably.

use crate::format::{Format, Input};

/// Programs whose name begins a command line, and the format of that.
static PROGRAMS: &[(&str, &str)] = &[
    ("qemu-system-", "qemu-args"),
    ("qemu-kvm", "qemu-args"),
    ("bhyve", "bhyve-args"),
    ("cloud-hypervisor", "ch-args"),
    ("crosvm", "crosvm-args"),
];
/// Words that may stand before a program's name.
static BEFORE: &[&str] = &["sudo", "doas", "exec", "nohup"];
/// Members that only one kind of JSON object has.
static MEMBERS: &[(&str, &str)] = &[
    ("\"boot-source\"", "fc-json"),
    ("\"machine-config\"", "fc-json"),
    ("\"payload\"", "ch-json"),
    ("\"boot_vcpus\"", "ch-json"),
];
/// How the keys begin that only the templates of vm-bhyve have.
static VM_BHYVE: &[&str] = &["loader", "disk0_", "network0_", "grub_", "bhyve_options"];

impl Format {
    /// The format that the name or the contents of `input` say unmistakably.
    #[must_use]
    pub fn guess(input: Input<'_>) -> Option<Self> {
        let name = match input {
            Input::Arguments { words, .. } => program(words.iter().map(String::as_str)),
            Input::Text { name, bytes } => of_text(name, &String::from_utf8_lossy(bytes)),
        };
        name.and_then(Self::named)
    }
}

/// The format of a command line of these words.
fn program<'a>(words: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let word = words.into_iter().find(|word| !BEFORE.contains(word))?;
    let name = word.rsplit('/').next()?;
    let known = |begin: &str| if begin.ends_with('-') { name.starts_with(begin) } else { name == begin };
    PROGRAMS.iter().find(|(begin, _)| known(begin)).map(|(_, format)| *format)
}

fn of_text(name: &str, text: &str) -> Option<&'static str> {
    let text = text.trim_start();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines().next()?;
    if let Some(format) = program(first.split_whitespace()) {
        Some(format)
    } else if text.starts_with('<') {
        text.contains("<domain").then_some("libvirt-xml")
    } else if text.starts_with('{') {
        Some(MEMBERS.iter().find(|(member, _)| text.contains(member)).map_or("json", |(_, format)| format))
    } else if name.ends_with(".toml") || lines().any(|line| line.starts_with('[') && line.ends_with(']')) {
        Some("toml")
    } else {
        let keys: Option<Vec<&str>> = lines().map(|line| Some(line.split_once('=')?.0)).collect();
        of_keys(&keys?)
    }
}

/// The format of lines `key=value`, all of them.
fn of_keys(keys: &[&str]) -> Option<&'static str> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if keys.iter().any(|key| VM_BHYVE.iter().any(|begin| key.starts_with(begin))) {
        Some("vm-bhyve")
    } else if keys.iter().any(|key| key.starts_with("pci.") && key.ends_with(".device")) {
        Some("bhyve-config")
    } else if keys.iter().all(|key| !key.is_empty() && key.chars().all(letter)) {
        Some("flat")
    } else if keys.iter().all(|key| key.ends_with(' ')) {
        Some("toml")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_looks_like() {
        for (name, text, format) in [
            ("x", "#!/bin/sh\nexec /usr/bin/qemu-system-x86_64 -m 4G\n", Some("qemu-args")),
            ("x", "sudo bhyve -c 2 vm\n", Some("bhyve-args")),
            ("x", "cloud-hypervisor --cpus boot=4\n", Some("ch-args")),
            ("x", "crosvm run --cpus 4 vmlinux\n", Some("crosvm-args")),
            ("x.xml", "<?xml version='1.0'?>\n<domain type='kvm'/>\n", Some("libvirt-xml")),
            ("x.xml", "<network/>\n", None),
            ("vm.json", "{\"boot-source\": {}}", Some("fc-json")),
            ("vm.json", "{\"payload\": {}}", Some("ch-json")),
            ("vm.json", "{\"name\": \"web\"}", Some("json")),
            ("x", "cpus = 2\n[[device]]\nid = \"a\"\n", Some("toml")),
            ("x", "cpus = 2\n", Some("toml")),
            ("x.toml", "cpus=2\n", Some("toml")),
            ("x", "cpus=2\nname=a b = c\n", Some("flat")),
            ("x", "pci.0.3.0.device=virtio-blk\n", Some("bhyve-config")),
            ("x", "loader=\"grub\"\ncpu=2\n", Some("vm-bhyve")),
            ("x", "hello\n", None),
            ("x", "", None),
        ] {
            assert_eq!(of_text(name, text), format, "{text}");
        }
    }

    #[test]
    fn words_begin_with_a_programs_name() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(program(words("./cloud-hypervisor --cpus").iter().map(String::as_str)), Some("ch-args"));
        assert_eq!(program(words("-m 4G").iter().map(String::as_str)), None);
    }

    #[test]
    fn what_is_guessed_is_a_format_or_nothing() {
        let guess = |name, text: &str| Format::guess(Input::Text { name, bytes: text.as_bytes() });
        assert_eq!(guess("x.toml", "cpus=2\n"), Some(Format::Toml));
        assert_eq!(guess("x", "name=web\n"), Some(Format::Flat));
        assert_eq!(guess("x", "\u{0}\n"), None);
    }
}
