//! Which option is what.

use parador_config::{Diagnostic, Severity, keys};

use super::super::bag::Bag;
use super::super::form::Form;
use super::super::options::Opt;
use super::super::table::{GLOBALS, PLAIN, SLOTS};
use super::{Front, Import, Part};
use crate::words::Word;

/// What a device can be connected to: the option, its property that may go without a name, and the
/// property that names it.
static PARTS: &[(&str, &str, &str)] = &[
    ("blockdev", "driver", "node-name"),
    ("chardev", "backend", "id"),
    ("drive", "file", "id"),
    ("fsdev", "fsdriver", "id"),
    ("netdev", "type", "id"),
    ("object", "qom-type", "id"),
    ("tpmdev", "type", "id"),
];
/// What every export says, and what therefore needs no keeping.
static IMPLIED: &[(&str, &str)] = &[
    ("no-user-config", ""),
    ("enable-kvm", ""),
    ("accel", "kvm"),
    ("cpu", "host"),
    ("monitor", "none"),
    ("parallel", "none"),
    ("net", "none"),
    ("nic", "none"),
    ("vga", "none"),
    ("vnc", "none"),
    ("display", "none"),
];

impl Import {
    /// Puts an option where it belongs.
    pub(super) fn sort(&mut self, index: usize, option: Opt) {
        let origin = option.origin();
        self.whole.first.get_or_insert_with(|| origin.clone());
        self.whole.networked |= ["net", "netdev", "nic", "device"].contains(&option.name.as_str());
        self.whole.displayed |=
            ["nographic", "display", "vga", "vnc", "device"].contains(&option.name.as_str());
        if IMPLIED.contains(&(option.name.as_str(), option.value.text.as_str())) {
            return;
        }
        if let Some((_, key)) = PLAIN.iter().find(|(name, _)| *name == option.name) {
            self.set(key, option.value.text, &option.value.origin);
            return;
        }
        if let Some((kind, first, id)) = PARTS.iter().find(|(kind, ..)| *kind == option.name) {
            if let Some(bag) = self.bag(&option.value, first) {
                self.part(index, kind, id, bag, option.words);
            }
            return;
        }
        if GLOBALS.iter().any(|global| global.option == option.name) {
            self.global(index, &option);
            return;
        }
        let word = option.value.clone();
        match option.name.as_str() {
            "device" => {
                if let Some(bag) = self.bag(&word, "driver") {
                    self.front(index, bag, option.words);
                }
            }
            "" | "hda" => self.image(index, option, 0, "ide-hd"),
            "hdb" => self.image(index, option, 1, "ide-hd"),
            "hdc" => self.image(index, option, 2, "ide-hd"),
            "hdd" => self.image(index, option, 3, "ide-hd"),
            "cdrom" => self.image(index, option, 2, "ide-cd"),
            "bios" => self.set("bootrom", word.text, &word.origin),
            "pflash" => self.pflash(index, option),
            "cpu" => self.processor(index, option),
            "accel" => self.accelerator(index, option),
            "vnc" => self.whole.vnc.push_back((index, option.words)),
            "gdb" => self.gdb(index, option),
            "s" => self.set("gdb.port", "1234", &origin),
            "S" => self.whole.stopped = Some((index, origin)),
            "mon" => {
                if let Some(bag) = self.bag(&word, "chardev") {
                    self.whole.monitors.push(Front { index, bag, words: option.words });
                }
            }
            "numa" => self.numa(index, option),
            "mem-path" => self.whole.path = Some(word),
            "mem-prealloc" => self.set("memory.prefault", "true", &origin),
            "no-reboot" => self.set("on_reset", "stop", &origin),
            "nodefaults" => self.whole.nodefaults = true,
            "nographic" => self.whole.nographic = Some(origin),
            "serial" => {
                let bag = Bag::new(word.origin.clone()).with("serial", word.text.as_str());
                self.serials.push(Front { index, bag, words: option.words });
            }
            "net" => self.net(index, option),
            "nic" => self.nic(index, option),
            "virtfs" => self.virtfs(index, option),
            "set" => self.whole.sets.push(word),
            _ => self.keep(index, option.words),
        }
    }

    /// The properties in `word`; if they cannot be read, that is noted.
    pub(super) fn bag(&mut self, word: &Word, first: &str) -> Option<Bag> {
        match Bag::parse(word, Some(first)) {
            Ok(bag) => Some(bag),
            Err(wrong) => {
                self.diagnostics.add(Severity::Error, || wrong);
                None
            }
        }
    }

    pub(super) fn front(&mut self, index: usize, bag: Bag, words: Vec<Word>) {
        if bag.peek("driver").as_deref() == Some("isa-serial") {
            self.serials.push(Front { index, bag, words });
            return;
        }
        self.fronts.push(Front { index, bag, words });
    }

    /// Adds something that a device can be connected to.
    pub(super) fn part(
        &mut self,
        index: usize,
        kind: &'static str,
        id: &str,
        mut bag: Bag,
        words: Vec<Word>,
    ) {
        if kind == "drive" {
            match self.drive(index, &mut bag, &words) {
                Some(name) => bag.put("id", name.as_str()),
                None => return,
            }
        }
        let name = bag.peek(id).unwrap_or_else(|| format!("#{index}"));
        self.by_name.insert((kind, name), self.parts.len());
        self.parts.push(Part { index, bag, words, used: false });
    }

    /// The part of this kind and name.
    pub(super) fn find(&self, kind: &'static str, name: &str) -> Option<usize> {
        self.by_name.get(&(kind, name.to_owned())).copied()
    }

    /// An option of the table.
    fn global(&mut self, index: usize, option: &Opt) {
        let globals = || GLOBALS.iter().filter(|global| global.option == option.name);
        let Some(first) = globals().next().map(|global| global.first) else { return };
        let Some(mut bag) = self.bag(&option.value, first) else { return };
        if option.name == "sandbox" && option.value.text.contains(',') {
            return self.keep(index, option.words.clone());
        }
        let fits = globals().find(|global| {
            global.constants.iter().all(|(name, value)| bag.peek(name).as_deref() == Some(value))
        });
        let mut constants = Vec::new();
        if option.name == "m" {
            bag.take_if("slots", &[SLOTS]);
        }
        if option.name == "machine" {
            self.machine(index, &mut bag);
        }
        if let Some(global) = fits {
            constants = global.constants.iter().filter(|(name, _)| bag.take(name).is_some()).collect();
            let whole = !divided(&bag);
            for row in global.rows {
                if option.name == "smp" && row.key != "cpus" && !whole {
                    continue;
                }
                let value = bag.peek(row.property).and_then(|theirs| row.form.import(&theirs));
                if let Some(value) = value {
                    bag.take(row.property);
                    let default = keys::all().find(|key| key.pattern == row.key).and_then(|key| key.default);
                    if matches!(row.form, Form::Words(_)) && default == Some(value.as_str()) {
                        continue;
                    }
                    self.set(row.key, value, &option.value.origin);
                }
            }
        }
        if !bag.is_empty() {
            let mut rest = Bag::new(bag.origin.clone());
            constants.iter().for_each(|(name, value)| rest.put(name, *value));
            bag.pour(&mut rest, "");
            self.keep_rest(index, &option.name, first, &rest);
        }
    }

    /// Gives things the properties that `-set` names.
    pub(super) fn set_properties(&mut self) {
        for word in std::mem::take(&mut self.whole.sets) {
            let parsed = word.text.split_once('=').and_then(|(path, value)| {
                let mut parts = path.splitn(3, '.');
                Some((parts.next()?, parts.next()?, parts.next()?, value))
            });
            let Some((group, id, name, value)) = parsed else {
                self.diagnostics.add(Severity::Error, || {
                    Diagnostic::new(format!("`-set {}` sets nothing", word.text))
                        .at(word.origin.clone())
                        .hint("it is `GROUP.ID.PROPERTY=VALUE`")
                });
                continue;
            };
            let named = |front: &&mut Front| front.bag.peek("id").as_deref() == Some(id);
            let bag = if group == "device" {
                self.fronts.iter_mut().find(named).map(|front| &mut front.bag)
            } else {
                let kind = PARTS.iter().find(|(kind, ..)| *kind == group).map(|(kind, ..)| *kind);
                kind.and_then(|kind| self.find(kind, id)).map(|part| &mut self.parts[part].bag)
            };
            match bag {
                Some(bag) => bag.put(name, value),
                None => self.whole.unknown.push(word),
            }
        }
    }
}

/// Whether the processors of `-smp` are more than sockets times cores times threads, or some of them
/// are not there yet: then the numbers do not mean what they mean here.
fn divided(smp: &Bag) -> bool {
    let number = |name: &str| smp.peek(name).and_then(|text| text.parse::<u64>().ok());
    let more = ["dies", "clusters", "modules", "books", "drawers"].iter().any(|name| number(name) > Some(1));
    more || number("maxcpus").is_some_and(|most| Some(most) != number("cpus"))
}
