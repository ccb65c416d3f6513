//! The command as a user meets it: the real binary, its words, its exit status.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bhyve;
mod config;
mod convert;
mod device;
mod image;
mod isolation;
mod machine;
mod network;
mod payload;
mod plan;
mod split;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder to run the command in, so that messages name files without a path.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(name), contents).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parador"));
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null()).env_remove("PARADOR_LOG");
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(arguments).output().unwrap())
    }
}

/// How a command ended and what it said.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// It said nothing but an error: exit status `status`, and the words of a snapshot.
    /// `UPDATE_SNAPSHOTS=1` writes that anew.
    fn refused(&self, status: i32, name: &str) {
        assert_eq!((self.status, self.stdout.as_str()), (Some(status), ""), "{}", self.stderr);
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name).with_extension("txt");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &self.stderr).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(self.stderr, expected, "{} differs", path.display());
    }
}

#[test]
fn without_anything_it_says_what_it_is_for() {
    let place = Place::new();
    let ended = place.run(&[]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("parador run FILE"), "{}", ended.stdout);
    assert_eq!(place.run(&["--help"]), ended);
    assert_eq!(place.run(&["help"]), ended);
}

#[test]
fn help_tells_what_a_user_has_to_know() {
    let place = Place::new();
    let run = place.run(&["run", "--help"]).stdout;
    assert!(run.contains("Ctrl-A x") && run.contains("terminal"), "{run}");
    let vmm = place.run(&["vmm", "-h"]).stdout;
    assert!(vmm.contains("SIGTERM") && vmm.contains("PARADOR_LOG"), "{vmm}");
    let keys = place.run(&["help", "keys"]).stdout;
    assert!(keys.contains("memory.size=SIZE [256M]"), "{keys}");
    let console = place.run(&["help", "keys", "virtio-console"]).stdout;
    assert!(console.contains("device.*.port.0.path=") && !console.contains("memory."), "{console}");
}

#[test]
fn the_version_is_the_packages() {
    let ended = Place::new().run(&["--version"]);
    assert_eq!((ended.status, ended.stdout), (Some(0), format!("parador {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_command_line_that_means_nothing_is_refused() {
    let place = Place::new();
    place.run(&["boot"]).refused(2, "unknown_command");
    place.run(&["vmm", "--verbose"]).refused(2, "unknown_option");
    place.run(&["vmm"]).refused(2, "no_machine");
    place.run(&["vmm", "-k"]).refused(2, "option_without_value");
    place.run(&["vmm", "a", "b"]).refused(2, "one_word_too_many");
    place.run(&["run", "-o", "cpus=1"]).refused(2, "run_without_file");
}

#[test]
fn files_of_keys_that_cannot_be_read() {
    let place = Place::new();
    place.run(&["run", "web.conf"]).refused(2, "no_such_file");
    place.run(&["vmm", "-k", "."]).refused(2, "file_is_a_directory");
    std::fs::File::create(place.path("disk.img")).unwrap().set_len(5 << 20).unwrap();
    place.run(&["run", "disk.img"]).refused(2, "file_is_too_large");
}

#[test]
fn all_that_is_wrong_with_a_machine_is_said_at_once() {
    let text =
        "name=web\nmemory=1G\ncpus=two\nboot.kernel=vmlinuz\ndevice.d.model=virtio-blk\ndevice.d.pth=d\n";
    let place = Place::new().with("web.conf", text);
    place.run(&["run", "web.conf", "-o", "boot.cmdlin=quiet"]).refused(2, "wrong_keys");
}

#[test]
fn keys_come_from_standard_input_too() {
    let place = Place::new();
    let mut child = place
        .command(&["vmm", "-k", "-", "-o", "memory.size=64M"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"cpus=1\nmemory.size=128M\nkernel=x\n").unwrap();
    Ended::of(&child.wait_with_output().unwrap()).refused(2, "keys_from_stdin");
}

#[test]
fn keys_are_printed_when_asked_for() {
    let text =
        "name=web\nboot.kernel=/k/%(name)\npci.0.4.0.device=fbuf\npci.0.4.0.password=hush\nconfig.dump=1\n";
    let place = Place::new().with("web.conf", text);
    let raw = place.run(&["run", "web.conf", "--unset", "pci.0.4.0", "-o", "cpus=2"]);
    assert_eq!((raw.status, raw.stderr.as_str()), (Some(0), ""));
    assert_eq!(raw.stdout, "boot.kernel=/k/%(name)\ncpus=2\nname=web\n");
    let expanded = place.run(&["vmm", "-k", "web.conf", "--dump=expanded", "www"]);
    assert!(expanded.stdout.starts_with("boot.kernel=/k/www\n"), "{}", expanded.stdout);
    assert!(expanded.stdout.contains("\n# device.pci-0-4-0.password is secret\n"), "{}", expanded.stdout);
    let all = place.run(&["vmm", "-k", "web.conf", "--dump=json", "--dump-secrets"]);
    assert!(all.stdout.contains("\"device.pci-0-4-0.password\": \"hush\""), "{}", all.stdout);
    let place = Place::new().with("web.conf", "name=%(nam)\n");
    place.run(&["vmm", "-k", "web.conf", "--dump=expanded"]).refused(2, "dump_that_cannot_be");
}

#[test]
fn keys_come_from_a_descriptor() {
    let mut child = Place::new()
        .command(&["vmm", "--config-fd", "0", "--dump"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"name=web\n").unwrap();
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.status, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "name=web\n", ""));
    Place::new().run(&["vmm", "--config-fd=777"]).refused(2, "no_descriptor");
}

#[test]
fn kernels_that_cannot_be_opened() {
    let place = Place::new().with("web.conf", "boot.kernel=vmlinuz\n");
    place.run(&["run", "web.conf"]).refused(1, "no_kernel");
    let place = Place::new().with("k", "").with("web.conf", "boot.kernel=k\nboot.initrd=initrd.img\n");
    place.run(&["run", "web.conf"]).refused(1, "no_initrd");
}

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let mut child = Place::new()
        .command(&["help", "keys"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
}
