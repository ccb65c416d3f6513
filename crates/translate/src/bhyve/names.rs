//! Where bhyve's words differ from ours: settings of devices, and text with `%` in it.

/// What a setting is called on the other side.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spelt {
    /// The same, with the same value.
    Same,
    /// These keys with these values; none, if others say it all.
    Other(Vec<(String, String)>),
    /// Nothing: there is no such setting.
    Unknown,
}

static BLOCK: &[&str] = &["path", "nocache", "nodelete", "sync", "ro", "sectorsize", "bootindex"];
static NET: &[&str] = &["backend", "mac", "hostfwd", "peerhook", "hook", "socket", "bootindex"];

/// The settings of each model of bhyve's that are called so on both sides.
static FIELDS: &[(&str, &[&str], &[&str])] = &[
    ("ahci", &[], &[]),
    ("e1000", NET, &[]),
    ("fbuf", &["rfb", "w", "h", "vga", "wait", "password"], &[]),
    ("hda", &["play", "rec"], &[]),
    ("hostbridge", &["pcireg.vendor", "pcireg.device"], &[]),
    ("lpc", &["pcireg.vendor", "pcireg.device", "pcireg.revid", "pcireg.subvendor", "pcireg.subdevice"], &[]),
    ("nvme", BLOCK, &["ram", "maxq", "qsz", "ioslots", "sectsz", "ser", "eui64", "dsm"]),
    ("passthru", &["bus", "slot", "func", "pptdev", "rom", "bootindex"], &[]),
    ("uart", &["path"], &[]),
    ("virtio-9p", &["sharename", "path", "ro"], &[]),
    ("virtio-blk", BLOCK, &["ser"]),
    ("virtio-console", &[], &[]),
    ("virtio-input", &["path"], &[]),
    ("virtio-net", NET, &["mtu"]),
    ("virtio-rnd", &[], &[]),
    ("virtio-scsi", &["dev", "iid", "bootindex"], &[]),
    ("xhci", &[], &[]),
];

/// Settings below a numbered part, as in `port.0.path`.
static NUMBERED: &[(&str, &str, &[&str])] = &[
    ("ahci", "port", BLOCK),
    ("ahci", "port", &["type", "nmrr", "ser", "rev", "model"]),
    ("virtio-console", "port", &["name", "path"]),
    ("xhci", "slot", &["device"]),
];

/// Whether bhyve has this model.
pub(super) fn has_model(model: &str) -> bool {
    FIELDS.iter().any(|(known, ..)| *known == model)
}

/// Whether a model has a setting that is called so on both sides.
fn has(model: &str, field: &str) -> bool {
    let plain = FIELDS
        .iter()
        .any(|(known, some, more)| *known == model && (some.contains(&field) || more.contains(&field)));
    plain || {
        let mut parts = field.splitn(3, '.');
        let parts = (parts.next(), parts.next(), parts.next());
        let (Some(list), Some(number), Some(rest)) = parts else { return false };
        number.bytes().all(|b| b.is_ascii_digit())
            && NUMBERED
                .iter()
                .any(|(known, part, some)| *known == model && *part == list && some.contains(&rest))
    }
}

fn other(field: &str, value: impl Into<String>) -> Spelt {
    Spelt::Other(vec![(field.to_owned(), value.into())])
}

/// What bhyve's `field` of a `model` is here; `sibling` looks up others of the device.
pub(super) fn field_in<'a>(
    model: &str,
    field: &str,
    value: &str,
    sibling: impl Fn(&str) -> Option<&'a str>,
) -> Spelt {
    match (model, field) {
        (_, "device") => Spelt::Other(Vec::new()),
        // Ours mean something else.
        (_, "model" | "addr") => Spelt::Unknown,
        ("virtio-net" | "e1000", "backend") => backend_in(value, sibling("type")),
        ("virtio-net" | "e1000", "type") => Spelt::Other(Vec::new()),
        ("virtio-net" | "e1000", "path") => other("port", value),
        ("fbuf", "tcp") => other("rfb", value),
        ("virtio-console", _) if has(model, field) && field.ends_with(".path") => {
            other(field, format!("unix:{value}"))
        }
        _ => match field.rsplit('.').next() {
            Some("direct") if has(model, &direct(field)) => other(&direct(field), value),
            _ if has(model, field) || !has_model(model) => Spelt::Same,
            _ => Spelt::Unknown,
        },
    }
}

/// `sync` in place of its other name.
fn direct(field: &str) -> String {
    format!("{}sync", field.strip_suffix("direct").unwrap_or(field))
}

/// The host's end of a network interface; `kind` is its type, if it does not follow from the name.
fn backend_in(backend: &str, kind: Option<&str>) -> Spelt {
    let kind = kind.or_else(|| {
        let prefixes = [
            ("tap", "tap"),
            ("vmnet", "tap"),
            ("netgraph", "netgraph"),
            ("netmap", "netmap"),
            ("vale", "netmap"),
            ("slirp", "slirp"),
        ];
        prefixes.iter().find(|(prefix, _)| backend.starts_with(prefix)).map(|(_, kind)| *kind)
    });
    let kept = |kind: &str, key: &str| {
        Spelt::Other(vec![("backend".to_owned(), kind.to_owned()), (key.to_owned(), backend.to_owned())])
    };
    match kind {
        Some("tap") if backend.starts_with("vmnet") => kept("vmnet", "tap.name"),
        Some("tap") => other("tap.name", backend),
        Some("netmap") => kept("netmap", "port"),
        Some("netgraph") => other("backend", "netgraph"),
        Some("slirp") => other("backend", "user"),
        _ => Spelt::Same,
    }
}

/// What our `field` of a `model` is in bhyve, or why it is nothing.
pub(super) fn field_out<'a>(
    model: &str,
    field: &str,
    value: &str,
    sibling: impl Fn(&str) -> Option<&'a str>,
) -> Result<Spelt, String> {
    match (model, field) {
        ("virtio-net" | "e1000", "backend") => match value {
            "netgraph" => Ok(Spelt::Same),
            "user" => Ok(other("backend", "slirp")),
            "tap" | "vmnet" | "netmap" => Ok(Spelt::Other(Vec::new())),
            _ => Err(format!("bhyve has no network of the kind `{value}`")),
        },
        ("virtio-net" | "e1000", "tap.name")
            if matches!(sibling("backend"), None | Some("tap" | "vmnet")) =>
        {
            let named = ["tap", "vmnet"].iter().any(|prefix| value.starts_with(prefix));
            let kind = (!named).then(|| ("type".to_owned(), "tap".to_owned()));
            let backend = ("backend".to_owned(), value.to_owned());
            Ok(Spelt::Other(std::iter::once(backend).chain(kind).collect()))
        }
        ("virtio-net" | "e1000", "port") => match sibling("backend") {
            Some("netmap") => Ok(other("backend", value)),
            Some("netgraph") => Ok(other("path", value)),
            _ => Err("bhyve has such a port for netmap and netgraph only".to_owned()),
        },
        ("virtio-console", _) if has(model, field) && field.ends_with(".path") => {
            let path = value.strip_prefix("unix:");
            let path = path.ok_or("a port of bhyve's virtio-console is a UNIX socket, unix:PATH")?;
            Ok(other(field, path))
        }
        _ if has(model, field) => Ok(Spelt::Same),
        _ => Err(format!("bhyve's {model} has no such setting")),
    }
}

/// The names in the references of `value`.
pub(super) fn references(value: &str) -> impl Iterator<Item = &str> {
    value.match_indices("%(").filter_map(|(at, _)| value[at + 2..].split_once(')').map(|(name, _)| name))
}

/// bhyve's text, as we write it: a percent sign that begins no reference is `\%` here, and names
/// in references are changed by `rename`. A backslash of bhyve's takes away the meaning of what
/// follows, but only where there is a percent sign at all.
pub(super) fn text_in(value: &str, rename: impl Fn(&str) -> Option<String>) -> String {
    if !value.contains('%') {
        return value.to_owned();
    }
    let mut out = String::with_capacity(value.len() + 8);
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\\' => {
                let Some(next) = after.chars().next() else { break };
                rest = &after[next.len_utf8()..];
                if next == '%' {
                    percent(&mut out);
                } else {
                    out.push(next);
                }
            }
            '%' => match after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                Some((name, behind)) if !name.is_empty() => {
                    let renamed = rename(name);
                    out.push_str("%(");
                    out.push_str(renamed.as_deref().unwrap_or(name));
                    out.push(')');
                    rest = behind;
                }
                _ => {
                    percent(&mut out);
                    // bhyve's manual has `%%` for one of them.
                    rest = after.strip_prefix('%').unwrap_or(after);
                }
            },
            _ => out.push(c),
        }
    }
    out
}

/// Appends a percent sign that begins nothing.
fn percent(out: &mut String) {
    // After a backslash of the text itself, `%%` would be read as `\%` and one more.
    out.push_str(if out.ends_with('\\') { r"\%" } else { "%%" });
}

/// Our text, all of whose references have been replaced, as bhyve reads it back.
pub(super) fn text_out(value: &str) -> String {
    if value.contains('%') { value.replace('\\', r"\\").replace('%', r"\%") } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_escaped_as_each_side_reads_them() {
        let same = |_: &str| None;
        for (bhyve, ours) in [
            (r"a\b", r"a\b"),
            ("/vm/%(name)/d", "/vm/%(name)/d"),
            (r"100\%", "100%%"),
            ("100%%", "100%%"),
            ("100%", "100%%"),
            (r"a\\b\%", r"a\b%%"),
            (r"a\\\%", r"a\\%"),
            ("%()", "%%()"),
        ] {
            assert_eq!(text_in(bhyve, same), ours, "{bhyve}");
        }
        let renamed = text_in("%(pci.0.4.0.path).bak", |_| Some("device.disk0.path".to_owned()));
        assert_eq!(renamed, "%(device.disk0.path).bak");
        assert_eq!(text_out(r"a\b"), r"a\b");
        assert_eq!(text_out(r"5\%"), r"5\\\%");
    }

    #[test]
    fn networks_are_told_by_their_names() {
        let none = |_: &str| None;
        let kept = |backend: &str, key: &str, value: &str| {
            Spelt::Other(vec![("backend".into(), backend.into()), (key.into(), value.into())])
        };
        assert_eq!(field_in("virtio-net", "backend", "tap3", none), other("tap.name", "tap3"));
        assert_eq!(field_in("virtio-net", "backend", "lan", |_| Some("tap")), other("tap.name", "lan"));
        assert_eq!(field_in("e1000", "backend", "vmnet0", none), kept("vmnet", "tap.name", "vmnet0"));
        assert_eq!(field_in("e1000", "backend", "vale0:1", none), kept("netmap", "port", "vale0:1"));
        assert_eq!(field_in("e1000", "backend", "slirp", none), other("backend", "user"));
        assert_eq!(field_in("virtio-blk", "direct", "true", none), other("sync", "true"));
        assert_eq!(field_in("ahci", "port.0.direct", "true", none), other("port.0.sync", "true"));
        assert_eq!(field_in("virtio-blk", "colour", "red", none), Spelt::Unknown);
    }
}
