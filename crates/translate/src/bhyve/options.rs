//! A bhyve command line, read as bhyve reads it: from left to right, what comes later replaces what
//! came before, and only `-p` adds to it.

use std::fmt::Display;
use std::path::Path;

use parador_config::{Diagnostic, Diagnostics, Origin, Severity};

use super::leaves::{Leaves, Wrong};
use super::{file, slot};
use crate::format::{Load, Loss};
use crate::words::Word;

/// Options without a value, and what they set. bhyve's own `-I` sets nothing any more.
pub(super) static FLAGS: &[(char, &str, &str)] = &[
    ('A', "acpi_tables", "true"),
    ('a', "x86.x2apic", "false"),
    ('C', "memory.guest_in_core", "true"),
    ('D', "destroy_on_poweroff", "true"),
    ('e', "x86.strictio", "true"),
    ('H', "x86.vmexit_on_hlt", "true"),
    ('M', "monitor", "true"),
    ('P', "x86.vmexit_on_pause", "true"),
    ('S', "memory.wired", "true"),
    ('u', "rtc.use_localtime", "false"),
    ('W', "virtio_msix", "false"),
    ('w', "x86.strictmsr", "false"),
    ('x', "x86.x2apic", "true"),
    ('Y', "x86.mptable", "false"),
];

/// Options with a value.
const VALUED: &str = "cfGKklmnoprsU";

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// bhyve's tree.
    pub(super) leaves: Leaves,
    /// Options that set nothing in it, one word each.
    pub(super) rest: Vec<(String, Origin)>,
    /// What bhyve would not have taken so, and what has no meaning here.
    pub(super) losses: Vec<Loss>,
    /// What nobody can take.
    pub(super) diagnostics: Diagnostics,
    /// Whether bhyve is asked for help.
    pub(super) help: bool,
}

impl Reading {
    /// Reads the words after the program's name.
    pub(super) fn arguments(&mut self, words: &[Word], load: Load<'_>) {
        let mut words = words.iter();
        let mut operands = Vec::new();
        while let Some(word) = words.next() {
            let letters = word.text.strip_prefix('-').unwrap_or_default();
            if letters.is_empty() {
                operands.push(word);
                break;
            }
            if letters == "-" {
                break;
            }
            for (at, letter) in letters.char_indices() {
                if !VALUED.contains(letter) {
                    self.flag(letter, word);
                    continue;
                }
                let attached = &letters[at + letter.len_utf8()..];
                if attached.is_empty() {
                    match words.next() {
                        Some(value) => self.option(letter, &value.text, &value.origin, load),
                        None => self.wrong(
                            Wrong::new(format!("nothing after `-{letter}`"), "this option takes a value"),
                            &word.text,
                            &word.origin,
                        ),
                    }
                } else {
                    self.option(letter, attached, &word.origin, load);
                }
                break;
            }
        }
        operands.extend(words);
        if let Some(name) = operands.first() {
            self.set("name", &name.text, &name.origin);
        }
        if let Some(word) = operands.get(1) {
            let hint = "options come before the machine's name, and there is one name";
            self.wrong(Wrong::new("a word after the machine's name", hint), &word.text, &word.origin);
        }
    }

    fn flag(&mut self, letter: char, word: &Word) {
        if let Some((_, path, value)) = FLAGS.iter().find(|(known, ..)| *known == letter) {
            self.set(path, value, &word.origin);
        } else if letter == 'h' {
            self.help = true;
            self.lose(format!("-{letter}"), "it asks bhyve for help", &word.origin);
        } else if letter != 'I' {
            let wrong =
                Wrong::new(format!("bhyve has no option `-{}`", letter.escape_debug()), "see bhyve(8)");
            self.wrong(wrong, &word.text, &word.origin);
        }
    }

    fn option(&mut self, letter: char, value: &str, origin: &Origin, load: Load<'_>) {
        let result = match letter {
            'c' => self.topology(value, origin),
            'G' => self.debugger(value, origin),
            'K' => self.leaves.set("keyboard.layout", value, origin),
            'k' => return self.file(value, origin, load),
            'l' | 's' if value == "help" => {
                self.help = true;
                self.lose(format!("-{letter} help"), "it asks bhyve for what there is", origin);
                Ok(())
            }
            'l' => self.lpc(value, origin),
            'm' => self.leaves.set("memory.size", value, origin),
            'n' => self.domain(value, origin),
            'o' => self.assign(value, origin),
            'p' => self.pin(value, origin),
            's' => slot::read(&mut self.leaves, value, origin),
            'U' => self.leaves.set("uuid", value, origin),
            // fw_cfg items and snapshots have no place in bhyve's tree.
            _ => {
                let words = [format!("-{letter}"), value.to_owned()];
                self.rest.extend(words.map(|word| (word, origin.clone())));
                Ok(())
            }
        };
        if let Err(wrong) = result {
            self.wrong(wrong, value, origin);
        }
    }

    /// `[cpus=]N[,sockets=N][,cores=N][,threads=N]`; nothing at all is one of each.
    fn topology(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        const PARTS: [&str; 4] = ["sockets", "cores", "threads", "cpus"];
        if text.is_empty() {
            return PARTS.iter().try_for_each(|key| self.leaves.set(key, "1", origin));
        }
        text.split(',').try_for_each(|part| {
            let (key, value) = part.split_once('=').unwrap_or(("cpus", part));
            if !PARTS.contains(&key) {
                let hint = "write [cpus=]N[,sockets=N][,cores=N][,threads=N]";
                return Err(Wrong::new(format!("`{}` is no part of a topology", key.escape_debug()), hint));
            }
            self.leaves.set(key, value, origin)
        })
    }

    /// `[w][ADDRESS:]PORT`.
    fn debugger(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        let rest = text.strip_prefix('w');
        if rest.is_some() {
            self.leaves.set("gdb.wait", "true", origin)?;
        }
        let rest = rest.unwrap_or(text);
        let (address, port) =
            rest.rsplit_once(':').map_or((None, rest), |(address, port)| (Some(address), port));
        self.leaves.set("gdb.port", port, origin)?;
        address.map_or(Ok(()), |address| self.leaves.set("gdb.address", address, origin))
    }

    /// `DEVICE[,SETTINGS]` behind the LPC bridge.
    fn lpc(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        let (device, conf) = text.split_once(',').map_or((text, None), |(device, conf)| (device, Some(conf)));
        let device = device.to_ascii_lowercase();
        let nothing = || Wrong::new(format!("nothing after `{device}`"), "see `-l` in bhyve(8)");
        match (device.as_str(), conf) {
            ("com1" | "com2" | "com3" | "com4", Some(path)) => {
                self.leaves.set(&format!("lpc.{device}.path"), path, origin)
            }
            ("pc-testdev", _) => self.leaves.set("lpc.pc-testdev", "true", origin),
            ("fwcfg", Some(kind)) => self.leaves.set("lpc.fwcfg", kind, origin),
            ("bootrom", Some(conf)) => {
                let mut parts = conf.splitn(3, ',');
                self.leaves.set("bootrom", parts.next().unwrap_or_default(), origin)?;
                match parts.next() {
                    Some(settings) if settings.contains('=') => self.below("lpc", settings, origin)?,
                    Some(variables) => self.leaves.set("bootvars", variables, origin)?,
                    None => {}
                }
                parts.next().map_or(Ok(()), |settings| self.below("lpc", settings, origin))
            }
            ("tpm", Some(conf)) => {
                let mut parts = conf.splitn(3, ',');
                let (kind, path) = parts.next().zip(parts.next()).ok_or_else(nothing)?;
                self.leaves.set("tpm.type", kind, origin)?;
                self.leaves.set("tpm.path", path, origin)?;
                parts.next().map_or(Ok(()), |settings| self.below("tpm", settings, origin))
            }
            ("com1" | "com2" | "com3" | "com4" | "fwcfg" | "bootrom" | "tpm", None) => Err(nothing()),
            _ => Err(Wrong::new(
                format!("there is no LPC device `{}`", device.escape_debug()),
                "there are com1 to com4, bootrom, fwcfg, pc-testdev and tpm",
            )),
        }
    }

    fn below(&mut self, node: &str, settings: &str, origin: &Origin) -> Result<(), Wrong> {
        settings.split(',').try_for_each(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            self.leaves.set(&format!("{node}.{key}"), value, origin)
        })
    }

    /// `id=N[,size=SIZE][,cpus=LIST][,domain_policy=POLICY]`.
    fn domain(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        let form = "write id=N,size=SIZE,cpus=LIST[,domain_policy=POLICY]";
        let id = text.split(',').find_map(|part| part.strip_prefix("id="));
        let id = id
            .filter(|id| id.parse::<u8>().is_ok())
            .ok_or_else(|| Wrong::new("a domain without an id", form))?;
        text.split(',').try_for_each(|part| match part.split_once('=') {
            Some(("id", _)) => Ok(()),
            Some((key @ ("size" | "cpus" | "domain_policy"), value)) => {
                self.leaves.set(&format!("domains.{id}.{key}"), value, origin)
            }
            _ => Err(Wrong::new(format!("`{}` is nothing of a domain", part.escape_debug()), form)),
        })
    }

    /// `VCPU:HOSTCPU`, one more for that VCPU.
    fn pin(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        let number = |text: &str| text.parse::<u16>().ok();
        let pair = text.split_once(':').and_then(|(vcpu, host)| Some((number(vcpu)?, number(host)?)));
        let (vcpu, host) = pair.ok_or_else(|| {
            Wrong::new(
                "a processor is not pinned so",
                "write VCPU:HOSTCPU, once for each processor of the host",
            )
        })?;
        let path = format!("vcpu.{vcpu}.cpuset");
        let set = self.leaves.value(&path).map_or(host.to_string(), |old| format!("{old},{host}"));
        self.leaves.set(&path, &set, origin)
    }

    /// `key=value`.
    pub(super) fn assign(&mut self, text: &str, origin: &Origin) -> Result<(), Wrong> {
        let (path, value) =
            text.split_once('=').ok_or_else(|| Wrong::new("no `=` here", "write `key=value`"))?;
        self.leaves.set(path, value, origin)
    }

    fn file(&mut self, name: &str, origin: &Origin, load: Load<'_>) {
        match load(Path::new(name)) {
            Ok(bytes) => file::read(self, name, &bytes),
            Err(why) => {
                let name = name.escape_debug();
                let cannot = Diagnostic::new(format!("cannot read {name}: {why}")).at(origin.clone());
                self.diagnostics.add(Severity::Error, || cannot);
            }
        }
    }

    /// Sets a leaf, or says why it cannot be.
    pub(super) fn set(&mut self, path: &str, value: &str, origin: &Origin) {
        if let Err(wrong) = self.leaves.set(path, value, origin) {
            self.wrong(wrong, value, origin);
        }
    }

    /// Says what is wrong with `text`.
    pub(super) fn wrong(&mut self, wrong: Wrong, text: &str, origin: &Origin) {
        self.diagnostics.add(Severity::Error, || {
            let diagnostic = Diagnostic::new(wrong.message).at(origin.clone()).hint(wrong.hint);
            diagnostic.excerpt(text, 0, text.len())
        });
    }

    /// Says what is lost.
    pub(super) fn lose(&mut self, what: impl Display, why: &str, origin: &Origin) {
        self.losses.push(Loss { what: what.to_string(), why: why.to_owned(), origin: Some(origin.clone()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command line sets, and what is wrong with it.
    fn read(line: &str) -> (Vec<String>, String) {
        let word =
            |(index, text): (usize, &str)| Word { text: text.to_owned(), origin: Origin::Argument(index) };
        let words: Vec<Word> = line.split_whitespace().enumerate().map(word).collect();
        let mut reading = Reading::default();
        reading.arguments(&words, &|_| Ok(b"cpus=9\nname=file\n".to_vec()));
        let leaves = reading.leaves.in_order();
        let leaves = leaves.iter().map(|(path, leaf)| format!("{path}={}", leaf.value)).collect();
        (leaves, reading.diagnostics.to_string())
    }

    #[track_caller]
    fn is(line: &str, expected: &str) {
        let (leaves, wrong) = read(line);
        assert_eq!((leaves.join(" ").as_str(), wrong.as_str()), (expected, ""), "{line}");
    }

    #[track_caller]
    fn is_wrong(line: &str, message: &str) {
        let (_, wrong) = read(line);
        assert!(wrong.contains(message), "{line}: {wrong}");
    }

    #[test]
    fn what_comes_later_counts_files_included() {
        is("-o cpus=1 -k f", "cpus=9 name=file");
        is("-k f -o cpus=1 vm", "cpus=1 name=vm");
        is("-c 4 -c cpus=2,threads=2", "cpus=2 threads=2");
        is("-p 0:3 -p 1:4 -p 0:5", "vcpu.0.cpuset=3,5 vcpu.1.cpuset=4");
    }

    #[test]
    fn letters_stand_together_and_values_apart_or_attached() {
        is("-SHm2G -c2 -- -vm", "memory.wired=true x86.vmexit_on_hlt=true memory.size=2G cpus=2 name=-vm");
        is("-IuW", "rtc.use_localtime=false virtio_msix=false");
        is_wrong("-m", "nothing after `-m`");
        is_wrong("-Zm 1G", "bhyve has no option `-Z`");
        is_wrong("vm -c 2", "a word after the machine's name");
    }

    #[test]
    fn each_option_has_its_own_form() {
        is("-Gw[::1]:99", "gdb.wait=true gdb.port=99 gdb.address=[::1]");
        is("-l COM2,tcp=1.2.3.4:5", "lpc.com2.path=tcp=1.2.3.4:5");
        is("-l bootrom,R,fwcfg=qemu", "bootrom=R lpc.fwcfg=qemu");
        is("-l tpm,swtpm,/s", "tpm.type=swtpm tpm.path=/s");
        is("-n id=1,size=1G", "domains.1.size=1G");
        for (line, message) in [
            ("-c cpu=2", "no part of a topology"),
            ("-p 0", "a processor is not pinned so"),
            ("-n size=1G", "a domain without an id"),
            ("-n id=0,pages=1", "nothing of a domain"),
            ("-l com5,stdio", "no LPC device `com5`"),
            ("-l bootrom", "nothing after `bootrom`"),
            ("-l tpm,swtpm", "nothing after `tpm`"),
            ("-o cpus", "no `=` here"),
            ("-o cpus=", "has no value"),
            ("-o pci.0.4.0.x=1 -s 4,lpc", "already occupied!"),
        ] {
            is_wrong(line, message);
        }
    }
}
