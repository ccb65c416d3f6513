//! The words of the command line: what manual pages and completion know of them. `args` and `config`
//! parse them; tests hold the three together.

use parador_translate::Format;

/// An option of some commands.
#[derive(Debug)]
pub(crate) struct Opt {
    /// The commands that have it, each as it is typed after `parador`.
    pub(crate) commands: &'static [&'static str],
    /// Its spellings.
    pub(crate) names: &'static [&'static str],
    /// What it takes; empty if nothing, and in brackets if it may also take nothing.
    pub(crate) value: &'static str,
    /// The values it can take, where they are few.
    pub(crate) choices: &'static [&'static str],
    /// What it does, in one sentence.
    pub(crate) doc: &'static str,
}

const fn opt(
    commands: &'static [&'static str],
    names: &'static [&'static str],
    value: &'static str,
    doc: &'static str,
) -> Opt {
    Opt { commands, names, value, choices: &[], doc }
}

/// The names of the formats.
pub(crate) static FORMATS: &[&str] = &{
    let mut names = [""; Format::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Format::ALL[index].name();
        index += 1;
    }
    names
};

/// The commands, and what each is for.
pub(crate) static COMMANDS: &[(&str, &str)] = &[
    ("run", "run a machine at this terminal"),
    ("vmm", "run a machine under a supervisor"),
    ("device", "be a device of another virtual machine monitor, over vhost-user"),
    ("image", "make, show, check and repair disk images, with zones and without"),
    ("config", "read, check, translate and document configurations"),
    ("help", "tell how to use the others"),
];

/// Options, those of all commands last.
pub(crate) static OPTIONS: &[Opt] = &[
    opt(
        &["run", "vmm", "device"],
        &["-k"],
        "FILE",
        "Reads lines KEY=VALUE from FILE, `-` for standard input.",
    ),
    opt(&["run", "vmm", "device"], &["-o"], "KEY=VALUE", "Sets one key; wins over all files."),
    opt(
        &["run", "vmm", "device"],
        &["--config-fd"],
        "N",
        "Reads lines KEY=VALUE from the inherited descriptor N.",
    ),
    opt(&["run", "vmm", "device"], &["--unset"], "KEY", "Takes away KEY and all keys below it."),
    Opt {
        choices: &["raw", "expanded", "origin", "json"],
        ..opt(
            &["run", "vmm", "device"],
            &["--dump"],
            "[=FORM]",
            "Prints the keys so that they can be read again, and runs nothing. FORM is raw, expanded, origin or json.",
        )
    },
    Opt {
        choices: &["plan", "host"],
        ..opt(
            &["run"],
            &["--dry-run"],
            "[=host]",
            "Prints what would be done, and does nothing; with `host` also whether this host can do it.",
        )
    },
    opt(&["run", "vmm", "device"], &["--dump-secrets"], "", "Prints the values of secret keys, too."),
    Opt {
        choices: &["bhyve"],
        ..opt(
            &["vmm"],
            &["--compat"],
            "bhyve",
            "Takes all that follows as a command line of bhyve; it comes first. See bhyve(8).",
        )
    },
    Opt {
        choices: &["text", "json"],
        ..opt(
            &["run", "vmm", "device", "config check", "config convert"],
            &["--message-format"],
            "text|json",
            "How findings are written: for people, or one JSON object a line for editors.",
        )
    },
    opt(&["device"], &["--socket-path"], "PATH", "Listens at PATH; one front-end is served after the other."),
    opt(&["device"], &["--fd"], "N", "Uses the inherited socket N, listening or connected."),
    opt(
        &["device"],
        &["--print-capabilities"],
        "",
        "Prints what the back-end can do, in JSON, and ignores the other options.",
    ),
    opt(&["device"], &["--blk-file"], "PATH", "The same as -o path=PATH; of blk only."),
    opt(&["device"], &["--read-only"], "", "The same as -o ro=true; of blk only."),
    Opt {
        choices: &["parador", "none"],
        ..opt(
            &["config check"],
            &["--engine"],
            "parador|none",
            "Whether keys and values are refused that Parador itself cannot do; by default they are.",
        )
    },
    Opt {
        choices: FORMATS,
        ..opt(
            &["config convert"],
            &["--from"],
            "FORMAT",
            "The format of what is read; by default what the file's name or contents say unmistakably.",
        )
    },
    Opt { choices: FORMATS, ..opt(&["config convert"], &["--to"], "FORMAT", "The format that is written.") },
    opt(&["config convert"], &["--strict"], "", "Writes nothing if something would be lost."),
    opt(&["image create"], &["--size"], "SIZE", "How large the disk is, such as 64G."),
    opt(&["image create"], &["--zoned"], "", "Makes an image with zones; the others below are for that."),
    opt(
        &["image create"],
        &["--zone-size"],
        "SIZE",
        "Size of each zone, a power of two; 64M if it is not said.",
    ),
    opt(
        &["image create"],
        &["--zone-capacity"],
        "SIZE",
        "What can be written of each zone; all of it if it is not said.",
    ),
    opt(
        &["image create"],
        &["--conventional"],
        "N",
        "How many zones at the start are written anywhere; none if it is not said.",
    ),
    opt(
        &["image create"],
        &["--max-open"],
        "N",
        "Zones that can be open at once, 0 for any number; 128 if it is not said.",
    ),
    opt(
        &["image create"],
        &["--max-active"],
        "N",
        "Zones that can be open or closed at once, 0 for any number; 128 if it is not said.",
    ),
    opt(
        &["image create"],
        &["--max-append"],
        "SIZE",
        "Bytes of one append at most; 1016K if it is not said.",
    ),
    Opt {
        choices: &["512", "4096"],
        ..opt(
            &["image create"],
            &["--block-size"],
            "512|4096",
            "What is written at once; 4096 if it is not said.",
        )
    },
    opt(&["image create"], &["--force"], "", "Makes a file anew that is there: all in it is lost."),
    opt(
        &["image convert"],
        &["--force"],
        "",
        "Replaces a file that is there, or what is on a device: all in it is lost.",
    ),
    opt(&["image info", "image report"], &["--json"], "", "Says it in JSON; sizes are in bytes."),
    opt(
        &["image report"],
        &["--map"],
        "",
        "Draws the zones: in colour on a terminal, unless NO_COLOR is set, otherwise in letters.",
    ),
    opt(
        &["image check"],
        &["--repair"],
        "",
        "Makes a damaged image whole, after asking if anything is lost.",
    ),
    opt(&["image check"], &["--yes"], "", "Does not ask."),
    opt(&["image reset"], &["--all"], "", "Resets every zone that is not empty."),
    opt(
        &[
            "run",
            "vmm",
            "device",
            "config keys",
            "config man",
            "config schema",
            "config completion",
            "config check",
            "config convert",
            "image create",
            "image info",
            "image report",
            "image check",
            "image convert",
            "image reset",
            "image inject",
        ],
        &["-h", "--help"],
        "",
        "Tells how to use the command.",
    ),
];

impl Opt {
    /// Whether the word after it is its value.
    pub(crate) fn takes_a_word(&self) -> bool {
        !self.value.is_empty() && !self.value.starts_with('[')
    }
}

/// The options of `command`.
pub(crate) fn of(command: &str) -> impl Iterator<Item = &'static Opt> {
    OPTIONS.iter().filter(move |option| option.commands.contains(&command))
}
