//! `parador config convert`: files and command lines in, others out, losses told.

use std::io::Write;
use std::process::Stdio;

use crate::{Ended, Place};

const WEB: &str = "include = \"base.toml\"\nname = \"web\"\ndisk = \"/vm/%(name).img\"\n";
const BASE: &str = "cpus = 2\nmemory = \"1G\"\n";

fn place() -> Place {
    Place::new().with("web.toml", WEB).with("base.toml", BASE)
}

#[test]
fn a_file_says_what_it_is_and_includes_others() {
    let ended = place().run(&["config", "convert", "--to", "flat", "web.toml"]);
    let flat = "cpus=2\ndevice.disk0.model=virtio-blk\ndevice.disk0.path=/vm/%(name).img\nmemory.size=1G\nname=web\n";
    let note = "note: web.toml is taken as toml\n";
    assert_eq!(ended, Ended { status: Some(0), stdout: flat.to_owned(), stderr: note.to_owned() });
    let place = Place::new().with("flat", flat);
    let ended = place.run(&["config", "convert", "--from=flat", "--to=toml", "flat"]);
    let toml = "name = \"web\"\ncpus = 2\nmemory = \"1G\"\ndisk = \"/vm/%(name).img\"\n";
    assert_eq!(ended, Ended { status: Some(0), stdout: toml.to_owned(), stderr: String::new() });
}

#[test]
fn a_command_line_is_read_from_the_words_or_from_a_file() {
    let words = ["config", "convert", "--to=toml", "--", "bhyve", "-c", "2", "-m", "1G", "vm one"];
    let ended = Place::new().run(&words);
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("name = \"vm one\"\n") && ended.stdout.contains("cpus = 2\n"),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "note: the command line is taken as bhyve-args\n");
    let mut child = Place::new()
        .command(&["config", "convert", "--to=toml", "--from=bhyve-args", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"#!/bin/sh\nbhyve -c 2 \\\n  -m 1G 'vm one'\n").unwrap();
    assert_eq!(Ended::of(&child.wait_with_output().unwrap()).stdout, ended.stdout);
}

#[test]
fn what_is_lost_is_told_and_strict_refuses_it() {
    let place = Place::new().with("a.conf", "name=a\nmemory.thp=false\ndevice.b.model=virtio-vsock\n");
    let lenient = place.run(&["config", "convert", "--from=flat", "--to=bhyve-args", "a.conf"]);
    assert_eq!(lenient.status, Some(0));
    assert!(lenient.stdout.starts_with("bhyve "), "{}", lenient.stdout);
    assert!(
        lenient
            .stderr
            .contains("warning: lost on the way to bhyve-args: `memory.thp=false`\n  --> a.conf:2:1\n")
    );
    let strict = place.run(&["config", "convert", "--from=flat", "--to=bhyve-args", "--strict", "a.conf"]);
    assert_eq!((strict.status, strict.stdout.as_str()), (Some(2), ""));
    assert_eq!(strict.stderr.replace("error:", "warning:"), lenient.stderr);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let place = place()
        .with("odd", "hello\n")
        .with("loop.toml", "include = \"loop.toml\"\n")
        .with("wrong.toml", "name = %(b)\n");
    let convert = |rest: &[&str]| place.run(&[&["config", "convert"], rest].concat());
    convert(&["--to=flat", "none.toml"]).refused(2, "convert_no_file");
    let names = "flat, toml, json, ";
    let unclear = convert(&["--to=flat", "odd"]);
    assert_eq!(unclear.status, Some(2));
    let expected =
        "error: what is to be converted does not say what format it has\nhint: add --from, one of ";
    assert!(unclear.stderr.starts_with(&format!("{expected}{names}")), "{}", unclear.stderr);
    let rubbish = convert(&["--to=flat", "--from=rubbish", "odd"]);
    assert_eq!(rubbish.status, Some(2));
    let expected = "error: there is no format `rubbish`, only ";
    assert!(rubbish.stderr.starts_with(&format!("{expected}{names}")), "{}", rubbish.stderr);
    convert(&["--to=flat", "--from=toml", "loop.toml"]).refused(2, "convert_loop");
    convert(&["--to=flat", "--from=toml", "wrong.toml"]).refused(2, "convert_syntax");
    convert(&["web.toml"]).refused(2, "convert_to_nothing");
}
