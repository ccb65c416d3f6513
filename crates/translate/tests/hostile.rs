//! Structured files that nobody meant: each ends with an error or a result, soon.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cell::Cell;
use std::fmt::Write;
use std::io;
use std::path::Path;

use parador_translate::{Format, Input, export, import, import_with};

fn read(format: Format, text: impl AsRef<[u8]>) -> Result<usize, String> {
    let input = Input::Text { name: "f", bytes: text.as_ref() };
    let imported = import(format, input).map_err(|wrong| wrong.to_string())?;
    Ok(imported.tree.in_order().len())
}

/// The error that reading `text` ends with; it does not repeat the file.
fn wrong(format: Format, text: impl AsRef<[u8]>) -> String {
    let wrong = read(format, text).unwrap_err();
    assert!(wrong.len() < 10_000, "{} bytes", wrong.len());
    wrong
}

#[test]
fn a_line_of_a_megabyte() {
    let long = "x".repeat(1 << 20);
    for text in
        [format!("name = \"{long}\"\n"), format!("{long} = 1\n"), format!("# {long}\nname = {long}\n"), long]
    {
        assert!(wrong(Format::Toml, &text).contains("--> f:"), "{}", &text[..20]);
    }
    let list = format!("disk = [{}]\n", "\"é.img\", ".repeat(20_000));
    assert_eq!(read(Format::Toml, list), Ok(40_000));
    let members: Vec<String> = (0..20_000).map(|n| format!("\"var.é{n}\":1")).collect();
    assert!(
        wrong(Format::Json, format!("{{{}}}", members.join(","))).contains("19980 more errors are not shown")
    );
    let members: Vec<String> = (0..20_000).map(|n| format!("\"var.{n}\":\"é\"")).collect();
    assert_eq!(read(Format::Json, format!("{{{}}}", members.join(","))), Ok(20_000));
}

#[test]
fn ten_thousand_keys_come_back_and_too_many_are_refused() {
    let lines =
        |count| -> String { (0..count).map(|n| format!("[var.a{n}]\nb.c = \"%(name)\"\n")).collect() };
    let text = lines(10_000);
    let tree = import(Format::Toml, Input::Text { name: "f", bytes: text.as_bytes() }).unwrap().tree;
    for format in [Format::Toml, Format::Json] {
        let exported = export(format, &tree).unwrap();
        assert_eq!(read(format, exported.output.to_string()), Ok(10_000));
    }
    assert!(wrong(Format::Toml, lines(65_537)).contains("more than 65536 keys"));
}

#[test]
fn what_is_nested_deeply() {
    for depth in [60, 90, 600, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        assert!(wrong(Format::Toml, format!("cpus = {open}{close}\n")).contains("f:1:"));
        assert!(wrong(Format::Json, format!("{{\"cpus\": {open}{close}}}")).contains("f:1:"));
        let tables = "{\"a\":".repeat(depth);
        let json = format!("{tables}1{}", "}".repeat(depth));
        assert_eq!(read(Format::Json, json).is_ok(), depth <= 128);
        let keys = format!("{} = 1\n", vec!["a"; depth].join("."));
        assert_eq!(read(Format::Toml, keys).is_ok(), depth < 80);
    }
}

#[test]
fn bytes_that_are_no_text() {
    assert!(wrong(Format::Toml, b"name = \"w\xe9b\"\n").contains("not UTF-8: byte 0xe9\n  --> f:1:10\n"));
    assert!(wrong(Format::Json, b"{\"name\":\n\xff}").contains("not UTF-8: byte 0xff\n  --> f:2:1\n"));
    assert!(wrong(Format::Json, "").contains("no object here\n  --> f:1:1\n"));
    assert_eq!(read(Format::Toml, ""), Ok(0));
    assert!(wrong(Format::Toml, "name = \"a\\u0000b\\nc\"\n").contains("more than one line"));
}

#[test]
fn files_that_include_each_other() {
    let loads = Cell::new(0);
    // Every file includes two others that are not there yet: without a bound this would never end.
    let load = |path: &Path| -> io::Result<Vec<u8>> {
        loads.set(loads.get() + 1);
        let name = path.display();
        Ok(format!("include = [\"{name}a\", \"{name}b\"]\n").into_bytes())
    };
    let input = Input::Text { name: "f", bytes: b"include = \"x\"\n" };
    let wrong = import_with(Format::Toml, input, &load).unwrap_err().to_string();
    assert!(wrong.contains("more than 16 files deep, or more than 256 files"), "{wrong}");
    assert!(loads.get() < 300, "{}", loads.get());
}

#[test]
fn templates_that_grow() {
    let mut text = String::from("apply = [");
    for n in 0..1000 {
        let _ = write!(text, "{{template = \"t\", n = \"{n}\", x = \"{}\"}}, ", "x".repeat(1000));
    }
    text += "]\n[template.t]\nparams = [\"n\", \"x\"]\n[template.t.var]\n";
    for n in 0..1000 {
        let _ = writeln!(text, "\"a%(param.n)b{n}\" = \"{}\"", "%(param.x)".repeat(20));
    }
    assert!(wrong(Format::Toml, text).contains("templates stand for more than 4194304 bytes"));
}

#[test]
fn many_options_of_other_systems() {
    let disks = format!("{{\"disks\":[{}{{}}]}}", "{\"x\":1},".repeat(20_000));
    assert!(wrong(Format::ChJson, disks).contains("more than 4096 devices\n  --> f:1:"));
    let drives = format!("{{\"drives\":[{}7]}}", "{\"path_on_host\":\"é\"},".repeat(20_000));
    assert!(wrong(Format::FcJson, drives).contains("more than 4096 devices"));
    let members: String = (0..2_000).map(|n| format!("\"é{n}\":[1],")).collect();
    let text = format!("{{{members}\"payload\":{{}}}}");
    let tree = import(Format::ChJson, Input::Text { name: "f", bytes: text.as_bytes() }).unwrap().tree;
    let exported = export(Format::ChJson, &tree).unwrap();
    assert_eq!(read(Format::ChJson, exported.output.to_string()), Ok(tree.in_order().len()));
    let parts: String = (0..2_000).map(|n| format!(",x{n}=[1,2]")).collect();
    for (format, line) in [(Format::ChArgs, "--disk path=a"), (Format::CrosvmArgs, "run --block a")] {
        let text = format!("{line}{parts}\n");
        let tree = import(format, Input::Text { name: "f", bytes: text.as_bytes() }).unwrap().tree;
        let exported = export(format, &tree).unwrap();
        assert!(read(format, exported.output.to_string()).unwrap() >= tree.in_order().len());
    }
    let line = format!("cloud-hypervisor --cpus affinity=[0@[{}]]\n", "[".repeat(500_000));
    assert!(wrong(Format::ChArgs, line).contains("`affinity` of `cpus`"));
}
