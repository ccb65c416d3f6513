//! `parador config`: what is generated from the table of keys, judged by those it is for.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Place;

fn said(arguments: &[&str]) -> String {
    let ended = Place::new().run(arguments);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    ended.stdout
}

/// What `program` writes when it reads `input`: standard output and standard error.
fn filtered(program: &str, arguments: &[&str], input: &str) -> (String, String) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect(program);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn manual_pages_format_without_a_warning() {
    for page in ["parador", "parador-vmm", "parador.conf"] {
        let roff = said(&["config", "man", page]);
        assert!(!roff.lines().any(|line| line.starts_with('@') || line.is_empty()), "{page}");
        let (text, warnings) = filtered("groff", &["-ww", "-mdoc", "-Tascii", "-P-cbou"], &roff);
        assert_eq!(warnings, "", "{page}");
        assert!(text.contains("NAME\n") && text.contains("SEE ALSO"), "{page}");
    }
}

#[test]
fn the_manual_has_every_key() {
    let (text, _) =
        filtered("groff", &["-mdoc", "-Tascii", "-P-cbou"], &said(&["config", "man", "parador.conf"]));
    for key in parador_config::keys::all() {
        let name = key.pattern.replace("device.*", "device.ID").replace("engine.*", "engine.SYSTEM");
        let name = name.replace(".*", ".N");
        assert!(text.contains(&format!(" {name}=")), "{name} is missing");
    }
}

fn schema() -> jsonschema::Validator {
    let schema = serde_json::from_str(&said(&["config", "schema"])).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

/// The machine that the README begins with.
fn readme() -> &'static str {
    let (_, first) = include_str!("../../../../README.md").split_once("$ cat web.toml\n").unwrap();
    first.split_once("$ ").unwrap().0
}

#[test]
fn the_first_machine_of_the_readme_is_one() {
    let ended = Place::new().with("web.toml", readme()).run(&["config", "check", "web.toml"]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert!(readme().lines().count() <= 10);
}

fn fits(schema: &jsonschema::Validator, text: &str) -> bool {
    schema.is_valid(&toml::from_str(text).unwrap())
}

#[test]
fn the_schema_takes_what_parador_run_takes() {
    let schema = schema();
    for good in [
        readme(),
        "memory = 512\n",
        "memory = '%(var.size)'\ncpus = '%(var.n)'\nvar = { n = 4, size = '1G', a = { b = true } }\n",
        "[memory]\nsize = '1G'\nthp = false\nbacking = 'hugetlb'\npage_size = '2M'\n",
        "disk = 'a.img'\n",
        "disk = ['a.img', { path = 'b.img', zoned = 'host-managed', ro = true, id = 'b', queues = 4 }]\n",
        "net = [{ bridge = 'br0', mac = '52:54:00:12:34:56' }, 'br1']\nshare = { data = '/srv' }\n",
        "console = 'pty'\n[domains.0]\nsize = '1G'\ncpus = [0, '2-3']\n",
        "[[device]]\nid = 'd'\nmodel = 'virtio-blk'\npath = 'd.img'\naddr = '0:5.0'\n",
        "[device.c]\nmodel = 'virtio-console'\nport.0.path = 'stdio'\n",
        "[engine.qemu]\nargs = ['-no-hpet']\n",
        "include = ['a.toml']\napply = ['b', { template = 'c', root = 'x' }]\n[template.b]\nparams = ['root']\ncpus = 2\n",
    ] {
        assert!(fits(&schema, good), "{good}");
    }
}

#[test]
fn the_schema_refuses_what_parador_run_refuses() {
    let schema = schema();
    for bad in [
        "cpu = 2\n",
        "cpus = 0\n",
        "cpus = true\n",
        "memory = 'lots'\n",
        "[memory]\nsise = '1G'\n",
        "disk = [{ pth = 'a.img' }]\n",
        "disk = 1\n",
        "net = { bridge = 'br0', path = 'a' }\n",
        "[[device]]\nid = 'd'\npath = 'd.img'\n",
        "[[device]]\nid = 'd'\nmodel = 'virtio-blk'\nmac = '52:54:00:12:34:56'\n",
        "[device.d]\nmodel = 'virtio-block'\n",
        "[device.n]\nmodel = 'virtio-net'\nmac = 'x'\n",
    ] {
        assert!(!fits(&schema, bad), "{bad}");
    }
}

/// What bash offers after `line`, by the script and the binary themselves.
fn offered(line: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_parador");
    let script = said(&["config", "completion", "bash"]);
    let line = line.replacen("parador", program, 1);
    let ask = format!(
        "{script}\nCOMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n\
         _parador\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let (offers, _) = filtered("bash", &["--norc", "-s"], &ask);
    offers.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_keys_and_values() {
    let (_, errors) = filtered("bash", &["-n"], &said(&["config", "completion", "bash"]));
    assert_eq!(errors, "");
    assert_eq!(offered("parador conf"), ["config"]);
    assert_eq!(offered("parador vmm -k web.conf -o memory.si"), ["memory.size="]);
    assert_eq!(offered("parador vmm -o memory.backing=m"), ["memfd"], "readline replaces what follows `=`");
    assert_eq!(offered("parador vmm -o device.a.model=virtio-net -o device.a.tap.n"), ["device.a.tap.name="]);
    assert_eq!(offered("parador vmm -k "), [""], "files are for the shell to find");
}

#[test]
fn scripts_for_other_shells_are_understood_by_them() {
    for shell in ["zsh", "fish"] {
        let script = said(&["config", "completion", shell]);
        // Few machines have them; where they are, they judge.
        if Command::new(shell).arg("--version").output().is_ok() {
            let file = Place::new().with("script", &script);
            let output = Command::new(shell).arg("-n").arg(file.path("script")).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
        }
    }
}

#[test]
fn a_configuration_is_checked_without_a_machine() {
    let place = Place::new()
        .with("good.conf", "boot.kernel=k\n")
        .with("bad.conf", "boot.kernel=k\ncpus=none\nmemry.size=1G\n")
        .with("other.toml", "kernel = 'k'\nbootrom = 'fw.fd'\n");
    assert_eq!(place.run(&["config", "check", "good.conf"]).status, Some(0));
    place.run(&["config", "check", "bad.conf"]).refused(2, "check_bad");
    place.run(&["config", "check", "--message-format=json", "bad.conf"]).refused(2, "check_bad_json");
    place.run(&["config", "check", "other.toml"]).refused(2, "check_native");
    assert_eq!(place.run(&["config", "check", "--engine", "none", "other.toml"]).status, Some(0));
    place.run(&["config", "check", "missing.conf"]).refused(2, "check_missing");
}
