//! A QEMU that was started from a tree.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parador_config::{Source, Tree};
use parador_translate::{Format, Input, Output, export, import};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::qmp::Qmp;

/// How long QEMU may take to listen.
const PATIENCE: Duration = Duration::from_secs(180);
/// What QEMU is told where no KVM is wanted; of an option that comes twice, the last counts.
const BY_TCG: &[&str] = &["-machine", "accel=tcg", "-cpu", "Nehalem"];
/// A network of its own, where interfaces can be made without being in anyone's way.
const NETWORK: &str = "ip tuntap add tap0 mode tap multi_queue vnet_hdr && ip tuntap add tap1 mode tap vnet_hdr \
                       && exec \"$@\"";

/// A QEMU that has not run an instruction of its guest.
#[derive(Debug)]
pub(crate) struct Machine {
    tree: Tree,
    child: Child,
    qmp: Qmp,
    _dir: TempDir,
}

impl Machine {
    /// Starts what the keys in `text` describe; `DIR` in it is a folder with images.
    pub(crate) fn start(text: &str) -> Result<Self> {
        Self::start_tree(text, tree)
    }

    /// Starts what a command line becomes when it was a tree.
    pub(crate) fn start_again(text: &str) -> Result<Self> {
        Self::start_tree(text, |text| {
            let input = Input::Text { name: "line", bytes: text.as_bytes() };
            let imported = import(Format::QemuArgs, input).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
            ensure!(imported.losses.is_empty(), "{:?}", imported.losses);
            Ok(imported.tree)
        })
    }

    fn start_tree(text: &str, tree: impl Fn(&str) -> Result<Tree>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for name in ["a,b.img", "b.img", "c.img", "d.img", "e.img", "rom.fd", "vars.fd"] {
            File::create(dir.path().join(name))?.set_len(1 << 20)?;
        }
        let text = text.replace("DIR", &dir.path().display().to_string());
        let tree = tree(&text)?;
        let exported =
            export(Format::QemuArgs, &without_kvm(&tree)).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        ensure!(exported.losses.is_empty(), "{:?}", exported.losses);
        let Output::Arguments(words) = exported.output else { bail!("this is no command line") };

        let socket = dir.path().join("qmp");
        let log = dir.path().join("log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", NETWORK, "sh"])
            .args(&words)
            .args(["-S", "-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?)
            .spawn()
            .context("cannot start setpriv")?;
        let mut child = Ended(Some(child));
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) if start.elapsed() < PATIENCE && child.runs()? => sleep(Duration::from_millis(10)),
                Err(error) => {
                    let said = std::fs::read_to_string(&log)?;
                    bail!(
                        "QEMU did not start: {error}\n{said}\n{}\nhint: `cargo xtask test` installs QEMU, and runs this as root",
                        words.join(" ")
                    );
                }
            }
        };
        let qmp = Qmp::new(stream).with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        let said = std::fs::read_to_string(&log)?;
        // An interface may be connected to nothing, a terminal has a name, and TCG is no real processor.
        let even = [" has no peer", "char device redirected", "TCG doesn't support requested feature"];
        let odd: Vec<&str> =
            said.lines().filter(|line| !even.iter().any(|part| line.contains(part))).collect();
        ensure!(odd.is_empty(), "QEMU has something to say: {odd:?}");
        let child = child.0.take().context("it was started")?;
        Ok(Self { tree, child, qmp, _dir: dir })
    }

    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.ask_with(command, &json!({}))
    }

    pub(crate) fn ask_with(&mut self, command: &str, arguments: &Value) -> Value {
        self.qmp.ask(command, arguments).expect("QEMU answers")
    }

    /// What QEMU's monitor for people says.
    pub(crate) fn ask_human(&mut self, line: &str) -> String {
        let text = self.ask_with("human-monitor-command", &json!({ "command-line": line }));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// A property of a device.
    pub(crate) fn property(&mut self, device: &str, property: &str) -> Value {
        let path = format!("/machine/peripheral/{device}");
        self.ask_with("qom-get", &json!({ "path": path, "property": property }))
    }

    /// A node of the block layer.
    pub(crate) fn node(&mut self, name: &str) -> Value {
        let nodes = self.ask("query-named-block-nodes");
        let found = nodes.as_array().and_then(|nodes| nodes.iter().find(|node| node["node-name"] == name));
        found.cloned().unwrap_or_default()
    }

    /// The slots where devices with a name sit, ascending.
    pub(crate) fn slots(&mut self) -> Vec<u64> {
        let mut slots: Vec<u64> = self.pci().iter().filter_map(|device| device["slot"].as_u64()).collect();
        slots.sort_unstable();
        slots
    }

    /// The PCI devices that have a name.
    fn pci(&mut self) -> Vec<Value> {
        let buses = self.ask("query-pci");
        let devices = buses[0]["devices"].as_array().cloned().unwrap_or_default();
        devices
            .into_iter()
            .filter(|device| device["qdev_id"].as_str().is_some_and(|id| !id.is_empty()))
            .collect()
    }

    /// Holds what QEMU has built against the tree.
    pub(crate) fn compare(&mut self) -> Result<()> {
        let tree = self.tree.clone();
        let value = |key: &str| tree.setting(key).map(|setting| setting.value.clone());
        ensure!(self.ask("query-status")["status"] == "prelaunch");
        let cpus = value("cpus").map_or(Ok(1), |cpus| cpus.parse())?;
        let found = self.ask("query-cpus-fast");
        ensure!(found.as_array().map(Vec::len) == Some(cpus), "{found}");
        let memory: u64 =
            value("memory.size").context("it is in every tree")?.trim_end_matches('M').parse()?;
        let found = self.ask("query-memory-size-summary");
        ensure!(found["base-memory"] == memory << 20, "{found}");
        for (name, key) in [("com1", "console"), ("com2", "lpc.com2.path")] {
            if let Some(end) = value(key) {
                self.compare_end(name, &end)?;
            }
        }
        let pci = self.pci();
        for id in tree.devices() {
            let device = pci.iter().find(|device| device["qdev_id"] == id);
            let device = device.with_context(|| format!("`{id}` is not on the bus"))?;
            if let Some(addr) = value(&format!("device.{id}.addr")) {
                let found = format!("0:{}.{}", device["slot"], device["function"]);
                ensure!(found == addr, "`{id}` is at {found}");
            }
            for (key, name) in std::iter::once(("path".to_owned(), id.to_owned()))
                .chain((0..6).map(|n| (format!("port.{n}.path"), format!("{id}-{n}"))))
            {
                let Some(path) = value(&format!("device.{id}.{key}")) else { continue };
                let prefix = format!("device.{id}.{}", key.trim_end_matches("path"));
                match value(&format!("device.{id}.model")).as_deref() {
                    Some("virtio-console" | "uart") => self.compare_end(&name, &path)?,
                    Some("virtio-blk" | "nvme" | "ahci") => {
                        let cd = value(&format!("{prefix}type")).as_deref() == Some("cd");
                        let ro = cd || value(&format!("{prefix}ro")).as_deref() == Some("true");
                        let node = self.node(&name);
                        ensure!(node["image"]["filename"] == path.as_str(), "`{name}`: {node}");
                        ensure!(node["ro"] == ro && node["drv"] == "raw", "`{name}`: {node}");
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Whether the chardev `name` is the `end` of a port.
    fn compare_end(&mut self, name: &str, end: &str) -> Result<()> {
        let ends = self.ask("query-chardev");
        let found = ends.as_array().and_then(|ends| ends.iter().find(|end| end["label"] == name));
        let found = found.with_context(|| format!("{name} is not in {ends}"))?["filename"]
            .as_str()
            .unwrap_or_default();
        let fits = match end.split_once(':') {
            Some(("unix", path)) => found == format!("disconnected:unix:{path},server=on"),
            Some(("file", _)) => found == "file",
            None if end == "pty" => found.starts_with("pty:/dev/pts/"),
            None if end == "none" => found == "null",
            _ => false,
        };
        ensure!(fits, "{name} should be {end}, and is {found}");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is ended if nobody takes it.
struct Ended(Option<Child>);

impl Ended {
    fn runs(&mut self) -> Result<bool> {
        self.0.as_mut().map_or(Ok(false), |child| Ok(child.try_wait()?.is_none()))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tree(text: &str) -> Result<Tree> {
    let (tree, mut diagnostics) =
        Tree::from_sources(&[Source::File { name: "tree", bytes: text.as_bytes() }]);
    let _ = tree.check(&mut diagnostics);
    ensure!(diagnostics.errors() == 0, "{diagnostics}");
    Ok(tree)
}

/// The tree for a QEMU without KVM: as a user says it.
fn without_kvm(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    let first = (0..).find(|n| tree.setting(&format!("engine.qemu.arg.{n}")).is_none()).unwrap_or(0);
    for (number, word) in BY_TCG.iter().enumerate() {
        let key = format!("engine.qemu.arg.{}", first + number);
        tree.set(&key, *word, parador_config::Origin::Argument(0));
    }
    tree
}
