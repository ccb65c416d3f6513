//! vm-bhyve: the configuration of a guest, or a template for one. It becomes what vm-bhyve would run.
//!
//! The file is not shell, though it looks like it: a line counts if it begins with a small letter,
//! ends at the first `#` even between quotes, and loses its quotes; of two lines for one setting the
//! first counts.

use std::collections::{BTreeMap, BTreeSet};

use parador_config::{Diagnostic, Diagnostics, Origin};

use super::devices::Slots;
use super::options::Reading;
use super::{hub, names};
use crate::fates::{Fate, Fates, fates};
use crate::format::{Exported, Imported, Input, Load, Loss};
use crate::text::{Text, one};
use crate::words::Word;

/// Nothing is written in this format.
pub(crate) const FATES: Fates = fates![("**", Fate::Refused("files of vm-bhyve are only read"))];

/// Settings that are about something else than the machine that bhyve runs.
static ELSEWHERE: &[(&str, &str)] = &[
    ("bhyveload_", LOADED),
    ("grub_", LOADED),
    ("loader_timeout", LOADED),
    ("prestart", "`parador` runs nothing before a machine; do it in what starts it"),
    ("priority", "start the command with nice(1)"),
    ("limit_", "limit the process with a cgroup, as systemd does"),
    ("zfs_", "it is about making the guest's disks"),
    ("on_restart", "see `on_reset`"),
    ("on_fault", "whoever starts the machine decides"),
    ("debug", "see `log.level`"),
    ("install_slot", "it is about installing from an ISO image"),
    ("nulliso_fix", "it is about installing from an ISO image"),
    ("guest", "vm-bhyve itself no longer asks"),
    ("ignore_", "vm-bhyve always has bhyve ignore unknown registers"),
];

pub(super) const LOADED: &str = "the loader takes the kernel from the guest's disk; copy it out, and set `boot.kernel` and `boot.cmdline`";

/// The settings of a file.
pub(super) struct Guest {
    settings: BTreeMap<String, (String, Origin)>,
    used: BTreeSet<String>,
    /// Where the file begins: what it does not say was written there.
    pub(super) start: Origin,
    pub(super) reading: Reading,
    /// Names of devices, by their nodes.
    pub(super) ids: BTreeMap<String, String>,
}

/// Reads a file; the machine's name is that of the file without its last part.
pub(crate) fn import(input: Input<'_>, load: Load<'_>) -> Result<Imported, Diagnostics> {
    let mut guest = Guest {
        settings: BTreeMap::new(),
        used: BTreeSet::new(),
        start: Origin::Argument(0),
        reading: Reading::default(),
        ids: BTreeMap::new(),
    };
    let name = match input {
        Input::Text { name, bytes } => {
            let text = Text::new(name, bytes)?;
            guest.start = text.origin(0);
            let mut at = 0;
            for line in text.text.split('\n') {
                guest.line(line.strip_suffix('\r').unwrap_or(line), &text.origin(at));
                at += line.len() + 1;
            }
            let file = name.rsplit('/').next().unwrap_or(name);
            file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_owned()
        }
        Input::Arguments { first, words } => {
            for (index, word) in words.iter().enumerate() {
                guest.line(word, &Origin::Argument(first + index));
            }
            "guest".to_owned()
        }
    };
    guest.machine(load);
    Slots::new(&mut guest).devices();
    let start = guest.start.clone();
    guest.set("name", &names::text_out(&name), &start);
    guest.rest();
    if guest.reading.diagnostics.errors() > 0 {
        return Err(guest.reading.diagnostics);
    }
    Ok(hub::tree(guest.reading, &guest.ids))
}

/// Says that nothing is written in this format.
pub(crate) fn export() -> Result<Exported, Diagnostics> {
    let wrong = Diagnostic::new("files of vm-bhyve are only read");
    Err(one(wrong.hint("bhyve-args gives the command line, which vm-bhyve takes as `bhyve_options`")))
}

impl Guest {
    fn line(&mut self, line: &str, origin: &Origin) {
        if line.trim().is_empty() || line.starts_with('#') {
            return;
        }
        if !line.starts_with(|c: char| c.is_ascii_lowercase()) {
            self.lose(line, "vm-bhyve reads lines that begin with a small letter", origin);
            return;
        }
        let (said, comment) = line.split_once('#').map_or((line, None), |(said, rest)| (said, Some(rest)));
        if comment.is_some() && said.matches('"').count() % 2 == 1 {
            self.lose(line, "vm-bhyve ends the value at the `#`, quotes or not", origin);
        }
        let said = said.trim_end_matches(' ').replace('"', "");
        let Some((key, value)) = said.split_once('=') else {
            self.lose(line, "there is no `=` in it", origin);
            return;
        };
        if self.settings.contains_key(key) {
            self.lose(line, "it is set above, and vm-bhyve takes what comes first", origin);
            return;
        }
        self.settings.insert(key.to_owned(), (value.to_owned(), origin.clone()));
    }

    /// What a setting says, and where; nothing at all if that is nothing.
    pub(super) fn said(&mut self, key: &str) -> Option<(String, Origin)> {
        let found = self.settings.get(key)?;
        self.used.insert(key.to_owned());
        (!found.0.is_empty()).then(|| found.clone())
    }

    /// What a setting says, as bhyve would read it.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.said(key).map(|(value, _)| names::text_out(&value))
    }

    /// Whether a setting says yes: everything but nothing, no, off, false and 0.
    pub(super) fn yes(&mut self, key: &str, default: bool) -> bool {
        self.said(key).map_or(default, |(value, _)| {
            !["no", "off", "false", "0"].contains(&value.to_ascii_lowercase().as_str())
        })
    }

    /// Where a setting is; the start of the file, if it is nowhere.
    pub(super) fn place(&self, key: &str) -> Origin {
        self.settings.get(key).map_or_else(|| self.start.clone(), |(_, origin)| origin.clone())
    }

    pub(super) fn lose(&mut self, what: &str, why: &str, origin: &Origin) {
        self.reading.lose(what, why, origin);
    }

    pub(super) fn set(&mut self, path: &str, value: &str, origin: &Origin) {
        self.reading.set(path, value, origin);
    }

    /// Sets `path` to what `key` says, if it says something.
    fn copy(&mut self, key: &str, path: &str) {
        if let Some(value) = self.text(key) {
            let origin = self.place(key);
            self.set(path, &value, &origin);
        }
    }

    /// The folder of the guest, in which its files are.
    pub(super) fn folder(&mut self) -> String {
        // Where vm-bhyve keeps its guests is in rc.conf(5).
        let start = self.start.clone();
        self.set("var.vm_dir", "/vm", &start);
        "%(var.vm_dir)/%(name)".to_owned()
    }

    pub(super) fn loader(&mut self) -> String {
        match self.text("loader") {
            Some(loader) => loader,
            None if self.yes("uefi", false) => "uefi".to_owned(),
            None => String::new(),
        }
    }

    /// Everything but the devices.
    fn machine(&mut self, load: Load<'_>) {
        let start = self.start.clone();
        self.copy("cpu", "cpus");
        self.copy("cpu_sockets", "sockets");
        self.copy("cpu_cores", "cores");
        self.copy("cpu_threads", "threads");
        self.copy("memory", "memory.size");
        for (path, value) in [
            ("acpi_tables", "true"),
            ("x86.vmexit_on_hlt", "true"),
            ("x86.vmexit_on_pause", "true"),
            ("x86.strictmsr", "false"),
        ] {
            self.set(path, value, &start);
        }
        let loader = self.loader();
        let origin = self.place("loader");
        match loader.as_str() {
            "" => {}
            uefi if uefi.starts_with("uefi") => self.firmware(uefi, &origin),
            other => self.lose(&format!("loader={other}"), LOADED, &origin),
        }
        if let Some((options, origin)) = self.said("bhyve_options") {
            // vm-bhyve splits them at blanks, whatever quotes there are.
            let word = |text: &str| Word { text: text.to_owned(), origin: origin.clone() };
            let words: Vec<Word> = options.split_whitespace().map(word).collect();
            self.reading.arguments(&words, load);
        }
        if self.yes("wired_memory", false) {
            self.set("memory.wired", "true", &self.place("wired_memory"));
        }
        self.copy("uuid", "uuid");
        if self.yes("utctime", true) {
            self.set("rtc.use_localtime", "false", &self.place("utctime"));
        }
        self.copy("fwcfg", "lpc.fwcfg");
        let ports = self.text("comports").unwrap_or_else(|| "com1".to_owned());
        let origin = self.place("comports");
        for (index, port) in ports.split_whitespace().enumerate() {
            // The first is what `vm start -f` shows; the others are null modems that vm-bhyve makes.
            let path =
                if index == 0 { "stdio".to_owned() } else { format!("/dev/nmdm-%(name).{}A", index + 1) };
            self.set(&format!("lpc.{port}.path"), &path, &origin);
        }
    }

    fn firmware(&mut self, loader: &str, origin: &Origin) {
        let file = match loader {
            "uefi-csm" => "BHYVE_UEFI_CSM.fd",
            "uefi-devel" => "BHYVE_UEFI_CODE-devel.fd",
            _ => "BHYVE_UEFI.fd",
        };
        let rom = match loader {
            "uefi-custom" => {
                self.folder();
                format!("%(var.vm_dir)/.config/{file}")
            }
            _ => format!("/usr/local/share/uefi-firmware/{file}"),
        };
        self.set("bootrom", &rom, origin);
        if self.yes("uefi_vars", false) {
            let folder = self.folder();
            self.set("bootvars", &format!("{folder}/uefi-vars.fd"), &self.place("uefi_vars"));
        }
    }

    /// Says what nobody asked for.
    fn rest(&mut self) {
        for (key, (value, origin)) in &self.settings {
            if self.used.contains(key) || value.is_empty() {
                continue;
            }
            let why = ELSEWHERE.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, why)| *why);
            let size = key.starts_with("disk") && key.ends_with("_size");
            let why = why.or(size.then_some("it is about making the disk"));
            let why = why.unwrap_or("vm-bhyve has no such setting, or does not look at it here");
            let what = format!("{key}={value}");
            self.reading.losses.push(Loss { what, why: why.to_owned(), origin: Some(origin.clone()) });
        }
    }
}
