//! Reading what describes a machine.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use parador_config::{Diagnostic, Diagnostics, Severity, Source, Tree};
use parador_translate::{Format, Input, import_with};

use crate::args::{Given, Request};
use crate::{find, handover};

/// The most bytes of one file of keys.
const MAX_FILE: u64 = 4 << 20;

/// A file that was read.
enum Contents<'a> {
    Keys(Cow<'a, str>, Vec<u8>),
    Tree(Tree),
}

/// Reads all that `request` names into one tree, and adds to `diagnostics` what is wrong with how it
/// is written. `None` when something cannot be read.
pub(crate) fn read(request: &Request, diagnostics: &mut Diagnostics) -> Option<Tree> {
    let mut files = Vec::new();
    for given in &request.given {
        let (name, bytes) = match given {
            Given::File(_, path) if path == "-" => ("<stdin>".into(), stdin()),
            Given::File(_, path) => {
                let path = located(path);
                (path.to_string_lossy().into_owned().into(), open(path.as_os_str()))
            }
            Given::Descriptor(_, fd) => (format!("<descriptor {fd}>").into(), inherited(*fd)),
            Given::Option(..) | Given::Unset(..) | Given::Name(..) => continue,
        };
        match bytes {
            Ok(bytes) => files.extend(understood(given, name, bytes, diagnostics)),
            Err(e) => diagnostics.add(Severity::Error, || unreadable(&name, &e)),
        }
    }
    if diagnostics.errors() > 0 {
        return None;
    }
    let mut files = files.iter();
    let sources: Vec<Source<'_>> = request
        .given
        .iter()
        .filter_map(|given| match given {
            Given::File(..) | Given::Descriptor(..) => files.next().map(|file| match file {
                Contents::Keys(name, bytes) => Source::File { name, bytes },
                Contents::Tree(tree) => Source::Tree(tree),
            }),
            Given::Option(argument, text) => Some(Source::Option { argument: *argument, text }),
            Given::Unset(argument, key) => Some(Source::Unset { argument: *argument, key }),
            Given::Name(argument, text) => Some(Source::Name { argument: *argument, text }),
        })
        .collect();
    let (tree, found) = Tree::from_sources(&sources);
    diagnostics.append(&found);
    Some(tree)
}

/// What the file `name` says. A file of keys is left for who puts all sources together.
fn understood<'a>(
    given: &Given,
    name: Cow<'a, str>,
    bytes: Vec<u8>,
    diagnostics: &mut Diagnostics,
) -> Option<Contents<'a>> {
    let format = match given {
        Given::File(..) => match Path::new(&*name).extension().and_then(OsStr::to_str) {
            Some("toml") => Format::Toml,
            Some("json") => Format::Json,
            _ => return Some(Contents::Keys(name, bytes)),
        },
        _ => return handover::read(&name, &bytes, diagnostics).map(Contents::Tree),
    };
    let load = |path: &Path| open(path.as_os_str());
    match import_with(format, Input::Text { name: &name, bytes: &bytes }, &load) {
        Ok(imported) => Some(Contents::Tree(imported.tree)),
        Err(found) => {
            diagnostics.append(&found);
            None
        }
    }
}

/// The file `path`; or, if there is none and it may be the name of a machine, that machine's.
fn located(path: &OsStr) -> PathBuf {
    let itself = PathBuf::from(path);
    let name = path.to_str().filter(|name| !name.contains('/') && !itself.exists());
    let candidates =
        name.map_or(Vec::new(), |name| find::candidates(name, |variable| std::env::var_os(variable)));
    candidates.into_iter().find(|path| path.is_file()).unwrap_or(itself)
}

/// All that standard input has.
pub(crate) fn stdin() -> io::Result<Vec<u8>> {
    limited(io::stdin().lock())
}

/// All of a file, if it is not too large.
pub(crate) fn open(path: &OsStr) -> io::Result<Vec<u8>> {
    limited(File::open(path)?)
}

fn inherited(fd: i32) -> io::Result<Vec<u8>> {
    limited(File::from(parador_engine::inherited(fd)?))
}

fn limited(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("it has more than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// A finding about a file that cannot be read.
pub(crate) fn unreadable(name: &str, error: &io::Error) -> Diagnostic {
    let hint = match error.kind() {
        io::ErrorKind::NotFound if !name.contains(['/', '.']) => {
            "is there such a file, or NAME.toml in ~/.config/parador or /etc/xdg/parador?"
        }
        io::ErrorKind::NotFound => "does it exist? `parador --help` shows a first one",
        io::ErrorKind::IsADirectory => "name a file in it",
        io::ErrorKind::FileTooLarge => "is it the right one? a disk image is set with `device.<id>.path`",
        _ if error.raw_os_error() == Some(libc::EBADF) => {
            "whoever starts this process opens it and lets it be inherited"
        }
        _ => "can this user read it?",
    };
    Diagnostic::new(format!("cannot read {}", name.escape_debug())).cause(error).hint(hint)
}
