//! TOML files that include each other and apply templates, in any combination.
//!
//! Shared by the fuzz target and by a replay among the tests of the crate.

use std::io;
use std::path::Path;

use parador_translate::{Format, Input, export, import, import_with};

/// Lines for the top of a file.
const TOP: &[&str] = &[
    "include = \"1.toml\"",
    "include = [\"1.toml\", \"./2.toml\"]",
    "include = \"x/../0.toml\"",
    "include = \"none.toml\"",
    "apply = \"a\"",
    "apply = [\"a\", {template = \"b\", x = \"1\"}, {template = \"b\", x = \"%(name)\"}]",
    "apply = {template = \"b\"}",
    "name = \"%%(param.x) %(param.x)\"",
    "cpus = 4",
    "memory = \"1G\"",
    "kernel = \"/k\"",
    "kernel = {a = 1}",
    "disk = []",
    "disk = \"a\"",
    "disk = [\"a\", {path = \"b\", ro = true, id = \"root\"}, {model = \"nvme\", port.0.path = \"c\"}]",
    "net = \"br0\"",
    "net = [{bridge = \"br0\", tap.create = \"no\"}, {tap = {name = \"t\"}}, {tap = 1}]",
    "share = {data = \"/d\", \"\" = {path = \"/e\", ro = true}}",
    "console = \"pty\"",
    "console.x = 1",
    "\"memory.thp\" = true",
    "\"device.disk0.ro\" = true",
    "\"engine.q.arg.1\" = \"one\"",
    "lpc.com1.path = \"stdio\"",
    "pci.0.3.0.device = \"virtio-rnd\"",
    "cpus.x = [1, 2]",
    "uuid = 2026-11-21",
    "name = \"a\\nb\"",
];

/// Tables.
const TABLES: &[&str] = &[
    "[template.a]\nname = \"from a\"\ndisk = \"/a\"",
    "[template.b]\nparams = [\"x\", \"y=2\"]\n\"var.%(param.x)\" = \"%(param.y)\\\\%(param.x)\"",
    "[template.b]\nparams = [\"x\", \"y\"]\n[[template.b.device]]\nid = \"%(param.x)\"\nmodel = \"virtio-rnd\"",
    "[memory]\nsize = 0x10\nbacking = \"memfd\"",
    "[device.disk0]\npath = \"/d\"",
    "[[device]]\nid = \"z\"\nmodel = \"virtio-net\"\ntap.name = \"t\"",
    "[[device]]\nid = \"%\"",
    "[engine.q]\nargs = [\"a\", 1]\narg.5 = \"five\"\narg.0.x = 1",
    "[domains.0]\ncpus = [\"0-1\", 3]\nsize = 1_024",
    "[var]\na = \"%(name)\"\n\"a.b\" = '\"\\'",
];

/// Files named `0.toml`, `1.toml` and so on, made of the lines that `bytes` name; says whether the
/// first could be read.
///
/// # Panics
///
/// The translation does, or a tree does not come back as it was.
pub fn exercise(bytes: &[u8]) -> bool {
    let files: Vec<String> = bytes.split(|byte| *byte == 0xff).take(4).map(file).collect();
    let load = |path: &Path| {
        let name = path.to_str().and_then(|name| name.strip_suffix(".toml"));
        let file = name.and_then(|name| files.get(name.parse::<usize>().ok()?));
        file.map(|file| file.clone().into_bytes()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let input = Input::Text { name: "0.toml", bytes: files[0].as_bytes() };
    let tree = match import_with(Format::Toml, input, &load) {
        Ok(imported) => imported.tree,
        Err(wrong) => {
            assert!(wrong.errors() > 0, "refused without a reason");
            return false;
        }
    };
    for format in [Format::Toml, Format::Json] {
        let exported = export(format, &tree).expect("every tree has this form");
        assert!(exported.losses.is_empty(), "{:?}", exported.losses);
        let text = exported.output.to_string();
        let again = import(format, Input::Text { name: "again", bytes: text.as_bytes() });
        let again = again.unwrap_or_else(|wrong| unreachable!("{wrong}\n{text}"));
        assert_eq!(again.tree, tree, "{text}");
    }
    true
}

/// The lines that `bytes` name, each once; tables come last.
fn file(bytes: &[u8]) -> String {
    let all: Vec<&str> = TOP.iter().chain(TABLES).copied().collect();
    let mut chosen: Vec<usize> = bytes.iter().map(|byte| usize::from(*byte) % all.len()).collect();
    chosen.sort_by_key(|index| *index >= TOP.len());
    let mut file = String::new();
    for (at, index) in chosen.iter().enumerate() {
        if !chosen[..at].contains(index) {
            file.push_str(all[*index]);
            file.push('\n');
        }
    }
    file
}
