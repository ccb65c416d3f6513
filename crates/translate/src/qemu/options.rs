//! The options of a command line: which words are names, which are values.

use parador_config::{Diagnostic, Diagnostics, Origin};

use crate::text::one;
use crate::words::{Word, is_among};

/// Options that stand alone.
static ALONE: &str = "\
    S alt-grab ctrl-grab curses daemonize enable-kvm enable-sync-profile full-screen h help mem-prealloc \
    no-acpi no-fd-bootchk no-hpet no-kvm no-kvm-irqchip no-quit no-reboot no-shutdown no-user-config \
    nodefaults nographic nouserconfig old-param one-insn-per-tb only-migratable portrait preconfig s sdl \
    semihosting singlestep snapshot usb version win2k-hack xen-attach xen-domid-restrict";
/// Options with a value.
static WITH_VALUE: &str = "\
    D L accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev compat cpu \
    d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg gdb global hda \
    hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock \
    name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp \
    qmp-pretty readconfig rtc run-with runas sandbox sd seed serial set shim smbios smp spice tb-size \
    tpmdev trace usbdevice uuid vga virtfs vnc watchdog watchdog-action xen-domid";
/// Other names of options.
static ALIASES: &[(&str, &str)] = &[
    ("M", "machine"),
    ("hdachs", "hda"),
    ("h", "help"),
    ("nouserconfig", "no-user-config"),
    ("memory", "m"),
];

/// One option.
#[derive(Debug, Clone)]
pub(super) struct Opt {
    /// Its name, without hyphens; empty for a word that is no option.
    pub(super) name: String,
    /// Its value, or an empty text.
    pub(super) value: Word,
    /// What it was written as: one word or two.
    pub(super) words: Vec<Word>,
}

impl Opt {
    /// Where it starts.
    pub(super) fn origin(&self) -> Origin {
        self.words.first().map_or(Origin::Argument(0), |word| word.origin.clone())
    }
}

/// The options that `words` are.
pub(super) fn split(words: Vec<Word>) -> Result<Vec<Opt>, Diagnostics> {
    let mut options = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let name = word.text.strip_prefix("--").or_else(|| word.text.strip_prefix('-'));
        let Some(name) = name else {
            options.push(Opt { name: String::new(), value: word.clone(), words: vec![word] });
            continue;
        };
        let name =
            ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| *name).to_owned();
        if name.is_empty() {
            return Err(one(Diagnostic::new(format!("`{}` is not an option", word.text)).at(word.origin)));
        }
        let known = is_among(WITH_VALUE, &name);
        let follows = known || {
            // Of what nobody knows, a word that looks like an option is none of its value.
            let looks = |next: &Word| next.text.len() < 2 || !next.text.starts_with('-');
            !is_among(ALONE, &name) && words.peek().is_some_and(looks)
        };
        let value = if follows { words.next() } else { None };
        if known && value.is_none() {
            return Err(one(Diagnostic::new(format!("`{}` needs a value", word.text)).at(word.origin)));
        }
        let empty = Word { text: String::new(), origin: word.origin.clone() };
        let words = std::iter::once(word).chain(value.clone()).collect();
        options.push(Opt { name, value: value.unwrap_or(empty), words });
    }
    Ok(options)
}
