//! The formats, and what goes in and out of them.

use std::fmt;
use std::io;
use std::path::Path;

use parador_config::{Diagnostics, Origin, Tree};

use crate::bhyve::{self, vm_bhyve};
use crate::cloud_hypervisor;
use crate::crosvm;
use crate::fates::Fates;
use crate::firecracker;
use crate::flat;
use crate::libvirt;
use crate::qemu;
use crate::structured::{self, Syntax};

/// A way to write a virtual machine down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Flat keys, one `key=value` a line.
    Flat,
    /// TOML, for people.
    Toml,
    /// JSON, for programs; what the tables say is what TOML's say.
    Json,
    /// bhyve's command line.
    BhyveArgs,
    /// bhyve's file of keys, bhyve_config(5).
    BhyveConfig,
    /// A guest's configuration, or a template, of vm-bhyve; only read.
    VmBhyve,
    /// A command line of Cloud Hypervisor.
    ChArgs,
    /// A VmConfig of Cloud Hypervisor, in JSON.
    ChJson,
    /// A configuration file of Firecracker, in JSON.
    FcJson,
    /// A command line of crosvm.
    CrosvmArgs,
    /// The command line of QEMU.
    QemuArgs,
    /// libvirt's domain XML.
    LibvirtXml,
}

/// What is read.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A file. One that holds a command line is split as a shell would.
    Text {
        /// What messages call it.
        name: &'a str,
        /// All of it.
        bytes: &'a [u8],
    },
    /// A command line, already in words.
    Arguments {
        /// The number of the first word, for messages; the program's name is number 0.
        first: usize,
        /// The words, without the program's name.
        words: &'a [String],
    },
}

/// Reads a file that another one includes. Its path is that of the including file, joined with
/// what that says.
pub type Load<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file's text.
    Text(String),
    /// A command line, the program's name first. It is shown quoted for a shell.
    Arguments(Vec<String>),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Arguments(words) => {
                let quoted: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                writeln!(f, "{}", quoted.join(" "))
            }
        }
    }
}

/// `word` as a shell takes it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Something that did not come through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// What was lost: a key with its value, or an option as it was written.
    pub what: String,
    /// Why, or what to do instead.
    pub why: String,
    /// Where it was written, if that is known.
    pub origin: Option<Origin>,
}

/// A tree, and what it does not say of what was read.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The tree. Nothing in it has been judged yet.
    pub tree: Tree,
    /// What was lost.
    pub losses: Vec<Loss>,
}

/// What was written, and what it does not say of the tree.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The text or the command line.
    pub output: Output,
    /// What was lost.
    pub losses: Vec<Loss>,
}

/// Reads `input`, which is in `format` and includes no other file.
///
/// # Errors
///
/// All that is wrong with how it is written, with places.
pub fn import(format: Format, input: Input<'_>) -> Result<Imported, Diagnostics> {
    import_with(format, input, &|_| Err(io::Error::new(io::ErrorKind::Unsupported, "nothing is read here")))
}

/// Reads `input`, which is in `format`; what it includes comes through `load`.
///
/// # Errors
///
/// All that is wrong with how it is written, with places.
pub fn import_with(format: Format, input: Input<'_>, load: Load<'_>) -> Result<Imported, Diagnostics> {
    match format {
        Format::Flat => flat::import(input),
        Format::Toml => structured::import(Syntax::Toml, input, load),
        Format::Json => structured::import(Syntax::Json, input, load),
        Format::BhyveArgs => bhyve::import_args(input, load),
        Format::BhyveConfig => bhyve::import_config(input),
        Format::VmBhyve => vm_bhyve::import(input, load),
        Format::ChArgs => cloud_hypervisor::args::import(input),
        Format::ChJson => cloud_hypervisor::json::import(input),
        Format::FcJson => firecracker::import(input),
        Format::CrosvmArgs => crosvm::import(input),
        Format::QemuArgs => qemu::import(input),
        Format::LibvirtXml => libvirt::import(input),
    }
}

/// Writes `tree` in `format`. Its references have been expanded, unless the format has them too
/// ([`Format::has_references`]).
///
/// # Errors
///
/// What makes the tree impossible to write at all; what merely has no words there is a [`Loss`].
pub fn export(format: Format, tree: &Tree) -> Result<Exported, Diagnostics> {
    match format {
        Format::Flat => flat::export(tree),
        Format::Toml => structured::export(Syntax::Toml, tree),
        Format::Json => structured::export(Syntax::Json, tree),
        Format::BhyveArgs => bhyve::export_args(tree),
        Format::BhyveConfig => bhyve::export_config(tree),
        Format::VmBhyve => vm_bhyve::export(),
        Format::ChArgs => cloud_hypervisor::args::export(tree),
        Format::ChJson => cloud_hypervisor::json::export(tree),
        Format::FcJson => firecracker::export(tree),
        Format::CrosvmArgs => crosvm::export(tree),
        Format::QemuArgs => qemu::export(tree),
        Format::LibvirtXml => libvirt::export(tree),
    }
}

impl Format {
    /// All formats.
    pub const ALL: &[Self] = &[
        Self::Flat,
        Self::Toml,
        Self::Json,
        Self::BhyveArgs,
        Self::BhyveConfig,
        Self::VmBhyve,
        Self::ChArgs,
        Self::ChJson,
        Self::FcJson,
        Self::CrosvmArgs,
        Self::QemuArgs,
        Self::LibvirtXml,
    ];

    /// The word for it on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Toml => "toml",
            Self::Json => "json",
            Self::BhyveArgs => "bhyve-args",
            Self::BhyveConfig => "bhyve-config",
            Self::VmBhyve => "vm-bhyve",
            Self::ChArgs => "ch-args",
            Self::ChJson => "ch-json",
            Self::FcJson => "fc-json",
            Self::CrosvmArgs => "crosvm-args",
            Self::QemuArgs => "qemu-args",
            Self::LibvirtXml => "libvirt-xml",
        }
    }

    /// Whether values can refer to others there (`%(key)`). A tree is expanded before it is written
    /// in a format where they cannot.
    #[must_use]
    pub fn has_references(self) -> bool {
        matches!(self, Self::Flat | Self::Toml | Self::Json)
    }

    /// The format that is called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|format| format.name() == name).copied()
    }

    /// Which keys of the table it can say. The first pattern that fits a key counts.
    #[must_use]
    pub fn fates(self) -> Fates {
        match self {
            Self::Flat => flat::FATES,
            Self::Toml | Self::Json => structured::FATES,
            Self::BhyveArgs | Self::BhyveConfig => bhyve::FATES,
            Self::VmBhyve => vm_bhyve::FATES,
            Self::ChArgs | Self::ChJson => cloud_hypervisor::FATES,
            Self::FcJson => firecracker::FATES,
            Self::CrosvmArgs => crosvm::FATES,
            Self::QemuArgs => qemu::FATES,
            Self::LibvirtXml => libvirt::FATES,
        }
    }
}
