//! `parador config keys`: the table, for a reader at a terminal.

use std::fmt::Write;

use parador_config::keys::{self, Elsewhere, Key, Kind, Support};

/// The keys that `pattern` fits: a model, the beginning of a key, or a key with `*` for some letters.
/// One after the other, all of them if it is empty.
pub(super) fn list(pattern: &str) -> String {
    let mut text = String::new();
    for key in keys::all().filter(|key| wanted(key, pattern)) {
        let default = key.default.map_or(String::new(), |default| format!(" [{default}]"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}={}{default}{}", key.pattern, values(key.kind), marks(&key));
        let _ = writeln!(text, "    {}", key.doc);
        if let Some(support) = support(key.support) {
            let _ = writeln!(text, "    {support}");
        }
        let elsewhere = elsewhere(key.elsewhere);
        if !pattern.is_empty() && !elsewhere.is_empty() {
            let _ = writeln!(text, "    elsewhere: {}", elsewhere.join("; "));
        }
    }
    if text.is_empty() {
        text = "no key is like that\n".to_owned();
    }
    text
}

fn marks(key: &Key) -> String {
    let mut marks = String::new();
    if !key.models.is_empty() {
        let _ = write!(marks, " ({})", key.models.join(", "));
    }
    if key.live {
        marks.push_str(" live");
    }
    if key.secret {
        marks.push_str(" secret");
    }
    marks
}

fn wanted(key: &Key, pattern: &str) -> bool {
    key.pattern.starts_with(pattern) || key.models.contains(pattern) || fits(pattern, key.pattern)
}

/// Whether `text` has the form of `pattern`, in which `*` is any letters.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            let Some(text) = text.strip_prefix(start) else { return false };
            text.char_indices().any(|(at, _)| fits(rest, &text[at..])) || fits(rest, "")
        }
    }
}

/// What values of `kind` look like.
pub(super) fn values(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true|false".to_owned(),
        Kind::Int { min, max } => format!("{min}..{max}"),
        Kind::Size { .. } | Kind::Memory { .. } => "SIZE".to_owned(),
        Kind::Text { .. } => "TEXT".to_owned(),
        Kind::Path => "PATH".to_owned(),
        Kind::Word(words) => words.join("|"),
        Kind::Mac => "XX:XX:XX:XX:XX:XX".to_owned(),
        Kind::Cpus => "CPUS".to_owned(),
        Kind::Address => "BUS:SLOT.FUNCTION".to_owned(),
        Kind::Uuid => "UUID".to_owned(),
        Kind::Endpoint => "stdio|none|pty|file:PATH|unix:PATH".to_owned(),
        Kind::Descriptors => "FD,FD...".to_owned(),
    }
}

/// What Parador makes of it, where that is not what it says.
pub(super) fn support(support: Support) -> Option<String> {
    match support {
        Support::Native => None,
        Support::Only(values, why) => Some(format!("only {}: {why}", values.join(", "))),
        Support::Always(why) => Some(format!("always so: {why}")),
        Support::NoEffect(why) => Some(format!("without effect: {why}")),
        Support::Runner => Some("done by `parador run`".to_owned()),
        Support::Refused(why) => Some(format!("refused: {why}")),
    }
}

/// What other systems call it, each with the system's name.
pub(super) fn elsewhere(names: Elsewhere) -> Vec<String> {
    let Elsewhere { bhyve, qemu, cloud_hypervisor, firecracker, crosvm, libvirt } = names;
    [
        ("bhyve", bhyve),
        ("QEMU", qemu),
        ("Cloud Hypervisor", cloud_hypervisor),
        ("Firecracker", firecracker),
        ("crosvm", crosvm),
        ("libvirt", libvirt),
    ]
    .iter()
    .filter(|(_, name)| !name.is_empty())
    .map(|(system, name)| format!("{system} {name}"))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_listed() {
        let count = |pattern| list(pattern).lines().filter(|line| !line.starts_with(' ')).count();
        assert_eq!(count(""), keys::all().count());
        assert_eq!(list("nothing"), "no key is like that\n");
    }

    #[test]
    fn a_pattern_is_a_model_a_beginning_or_has_stars() {
        let first = |pattern| list(pattern).lines().next().unwrap_or_default().to_owned();
        assert!(first("memory.si").starts_with("memory.size=SIZE [256M]"));
        assert!(list("virtio-balloon").contains("live"));
        assert!(first("*.cmdline").starts_with("boot.cmdline="));
        assert!(list("*.ro").lines().filter(|line| !line.starts_with(' ')).all(|line| line.contains(".ro=")));
    }
}
