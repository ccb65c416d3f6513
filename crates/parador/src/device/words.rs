//! The command line of `parador device`: our own options, and those that vhost-user programs have in
//! common (QEMU's docs/interop/vhost-user.rst, "Backend program conventions").

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::args::{self, Command, Given, Topic};

/// A device that can have a process of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// What it is called on the command line.
    pub(crate) word: &'static str,
    /// What `device.*.model` is set to for one in a machine.
    pub(crate) model: &'static str,
    /// What the conventions call it.
    pub(crate) kind: &'static str,
    /// Options of the conventions that are for it alone.
    pub(crate) features: &'static [&'static str],
}

const fn model(word: &'static str, model: &'static str, kind: &'static str) -> Model {
    Model { word, model, kind, features: &[] }
}

/// The devices there are.
pub(crate) static MODELS: &[Model] = &[
    Model { features: &["read-only", "blk-file"], ..model("blk", "virtio-blk", "block") },
    model("net", "virtio-net", "net"),
    model("rng", "virtio-rnd", "rng"),
    model("console", "virtio-console", "console"),
    model("vsock", "virtio-vsock", "vsock"),
    model("balloon", "virtio-balloon", "balloon"),
];

/// What `parador device` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To say what a back-end can do.
    Capabilities(&'static Model),
    /// To be one.
    Serve(Serve),
}

/// A back-end that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    /// What it is.
    pub(crate) model: &'static Model,
    /// The argument that says so.
    pub(crate) model_at: usize,
    /// Its keys.
    pub(crate) keys: args::Request,
    /// Where front-ends come from; `None` is whoever activated the process.
    pub(crate) door: Option<Door>,
}

/// Where front-ends come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// To a socket of this name.
    Path(PathBuf),
    /// To, or through, an inherited socket.
    Descriptor(i32),
}

const SEE: &str = "parador device --help";

/// What a program is that is called `name`: descriptors of back-ends name programs without arguments.
pub(crate) fn called(name: &str) -> Option<&'static Model> {
    named(name.strip_prefix("parador-device-")?)
}

fn named(word: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.word == word)
}

/// Parses `arguments`, the program's name first. That says the model, or the words after `device` do.
pub(crate) fn parse(arguments: &[OsString], called: Option<&'static Model>) -> Result<Command, String> {
    let first = if called.is_some() { 1 } else { 2 };
    let asks = |names: &[&str]| arguments[first..].iter().any(|word| names.iter().any(|name| word == name));
    if asks(&["-h", "--help"]) {
        return Ok(Command::Help(Topic::Device));
    }
    let mut model = called.map(|model| (0, model));
    let mut request = args::Request::default();
    let mut door = None;
    // Whoever asks for this asks with what it would start the back-end with, and more.
    let capabilities = asks(&["--print-capabilities"]);
    let mut rest = arguments.iter().enumerate().skip(first);
    while let Some((number, argument)) = rest.next() {
        match argument.as_bytes() {
            b"--print-capabilities" => {}
            [b'-', b'k' | b'o', ..] => args::short(&mut request, number, argument, &mut rest, SEE)?,
            [b'-', ..] if capabilities => {}
            [b'-', ..] => match conventional(number, argument, &mut rest)? {
                Some(Conventional::Door(_)) if door.is_some() => {
                    return Err(wrong("--socket-path and --fd are one, once"));
                }
                Some(Conventional::Door(found)) => door = Some(found),
                Some(Conventional::Key(key)) if model.is_some_and(|(_, model)| model.word == "blk") => {
                    request.given.push(key);
                }
                Some(Conventional::Key(_)) => return Err(wrong(&format!("{} is for blk", quoted(argument)))),
                None => args::long(&mut request, number, argument, &mut rest, SEE)?,
            },
            _ if model.is_some() && capabilities => {}
            _ if model.is_some() => return Err(wrong(&format!("one word too many: {}", quoted(argument)))),
            _ => {
                let known = argument.to_str().and_then(named);
                model = Some((number, known.ok_or_else(|| no_model(argument))?));
            }
        }
    }
    let Some((model_at, model)) = model else { return Err(wrong("no device")) };
    Ok(Command::Device(if capabilities {
        Request::Capabilities(model)
    } else {
        Request::Serve(Serve { model, model_at, keys: request, door })
    }))
}

/// An option that vhost-user programs have in common.
enum Conventional {
    Door(Door),
    Key(Given),
}

/// The option `argument`, if it is one of those; its value is behind `=` or in the next of `rest`.
fn conventional<'a>(
    number: usize,
    argument: &OsStr,
    rest: &mut impl Iterator<Item = (usize, &'a OsString)>,
) -> Result<Option<Conventional>, String> {
    let bytes = argument.as_bytes();
    let (name, attached) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    let mut value = || {
        let next = || rest.next().map(|(_, value)| value.as_os_str());
        attached.or_else(next).ok_or_else(|| wrong(&format!("nothing after {}", quoted(argument))))
    };
    Ok(Some(match name {
        b"--socket-path" => Conventional::Door(Door::Path(value()?.into())),
        b"--fd" => {
            let value = value()?;
            let fd = value.to_str().and_then(|text| text.parse().ok()).filter(|fd| *fd >= 0);
            let fd = fd.ok_or_else(|| wrong(&format!("{} is not a descriptor", quoted(value))))?;
            Conventional::Door(Door::Descriptor(fd))
        }
        b"--blk-file" => {
            // A path as it is: nothing in it is a reference.
            let path = args::text(value()?, SEE)?.replace('%', "%%");
            Conventional::Key(Given::Option(number, format!("path={path}")))
        }
        b"--read-only" if attached.is_none() => {
            Conventional::Key(Given::Option(number, "ro=true".to_owned()))
        }
        _ => return Ok(None),
    }))
}

fn no_model(argument: &OsStr) -> String {
    let words: Vec<_> = MODELS.iter().map(|model| model.word).collect();
    format!("error: there is no device {}\nhint: it is one of {}\n", quoted(argument), words.join(", "))
}

fn quoted(argument: &OsStr) -> String {
    args::quoted(argument)
}

fn wrong(message: &str) -> String {
    args::wrong(message, SEE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        args::parse(&arguments)
    }

    fn served(line: &str) -> Serve {
        match parsed(line) {
            Ok(Command::Device(Request::Serve(serve))) => serve,
            other => unreachable!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_of_the_conventions_are_keys_and_doors() {
        let serve = served("parador device blk --blk-file=50%.img --read-only --socket-path /s -onocache=1");
        assert_eq!(serve.door, Some(Door::Path("/s".into())));
        let given = [
            Given::Option(3, "path=50%%.img".to_owned()),
            Given::Option(4, "ro=true".to_owned()),
            Given::Option(7, "nocache=1".to_owned()),
        ];
        assert_eq!(serve.keys.given, given);
        assert_eq!(served("parador device rng --fd=3").door, Some(Door::Descriptor(3)));
        assert_eq!(served("/x/parador-device-rng --fd 3").door, Some(Door::Descriptor(3)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "blk --fd 3 --socket-path s",
            "blk --fd 3 --fd 4",
            "blk --fd x",
            "blk --fd",
            "rng --read-only",
            "rng --blk-file=x",
            "floppy",
            "",
            "blk disk.img",
            "blk --dry-run",
            "blk --read-only=yes",
        ] {
            assert!(parsed(&format!("parador device {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn whoever_asks_for_capabilities_gets_nothing_else() {
        for line in ["net --print-capabilities --what-else -o x x", "--print-capabilities --fd=9 net"] {
            let found = parsed(&format!("parador device {line}"));
            assert_eq!(found, Ok(Command::Device(Request::Capabilities(&MODELS[1]))), "{line}");
        }
    }
}
