//! The command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use parador_config::Dump;

use crate::device;
use crate::messages::Messages;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// To be told about something.
    Help(Topic),
    /// The version.
    Version,
    /// A machine.
    Run(Request),
    /// `parador config`, with the words after it.
    Config(Vec<OsString>),
    /// `parador image`, with the words after it.
    Image(Vec<OsString>),
    /// A device in a process of its own.
    Device(device::Request),
    /// A machine that the words from number `first` on describe, in bhyve's way.
    Bhyve {
        /// The first of bhyve's own words.
        first: usize,
    },
}

/// What there is help on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The command as a whole.
    Short,
    /// `parador vmm`.
    Vmm,
    /// `parador run`.
    Run,
    /// `parador device`.
    Device,
}

/// A machine that was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// What describes it, in the order of the command line.
    pub(crate) given: Vec<Given>,
    /// Whether a person sits at the terminal (`parador run`).
    pub(crate) interactive: bool,
    /// The form in which to print its keys, rather than run it.
    pub(crate) dump: Option<Dump>,
    /// Whether what is printed has secrets in it.
    pub(crate) dump_secrets: bool,
    /// How findings are told.
    pub(crate) messages: Messages,
    /// What to say of it, rather than run it.
    pub(crate) dry_run: Option<DryRun>,
}

/// What is said of a machine that is not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun {
    /// What would be done.
    Plan,
    /// That, and whether this host can do it.
    Host,
}

/// One piece of a machine's description, and the number of the argument it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A file to read; `-` is standard input.
    File(usize, OsString),
    /// An inherited descriptor to read as a file.
    Descriptor(usize, i32),
    /// `key=value`.
    Option(usize, String),
    /// A key that is not to be set.
    Unset(usize, String),
    /// The machine's name.
    Name(usize, String),
}

/// Parses `arguments`, the program's name first. The error is what to print.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let called = arguments.first().and_then(|name| Path::new(name).file_name()?.to_str());
    if called == Some("bhyve") {
        return Ok(Command::Bhyve { first: 1 });
    }
    if let Some(model) = called.and_then(device::called) {
        return device::parse(arguments, Some(model));
    }
    let Some(verb) = arguments.get(1) else { return Ok(Command::Help(Topic::Short)) };
    match verb.to_str() {
        Some("vmm") => match compat(arguments)? {
            Some(command) => Ok(command),
            None => machine(arguments, false),
        },
        Some("run") => machine(arguments, true),
        Some("device") => device::parse(arguments, None),
        Some("config") => Ok(Command::Config(arguments[2..].to_vec())),
        Some("image") => Ok(Command::Image(arguments[2..].to_vec())),
        Some("help") => topic(&arguments[2..]),
        Some("-h" | "--help") => Ok(Command::Help(Topic::Short)),
        Some("-V" | "--version") => Ok(Command::Version),
        _ => Err(wrong(&format!("there is no command {}", quoted(verb)), "parador --help")),
    }
}

fn topic(words: &[OsString]) -> Result<Command, String> {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => Ok(Command::Help(Topic::Short)),
        ["vmm"] => Ok(Command::Help(Topic::Vmm)),
        ["run"] => Ok(Command::Help(Topic::Run)),
        ["device"] => Ok(Command::Help(Topic::Device)),
        ["image", ..] => Ok(Command::Image(vec!["--help".into()])),
        ["config" | "keys", rest @ ..] => {
            let first = if words[0] == "keys" { "keys" } else { "--help" };
            Ok(Command::Config(
                std::iter::once(first).chain(rest.iter().copied()).map(OsString::from).collect(),
            ))
        }
        _ => Err(wrong("there is no help on that", "parador --help")),
    }
}

/// Whose command line follows `vmm`, if it is not our own.
fn compat(arguments: &[OsString]) -> Result<Option<Command>, String> {
    let Some(word) = arguments.get(2).and_then(|word| word.to_str()) else { return Ok(None) };
    let (whose, first) = match word.strip_prefix("--compat") {
        Some("") => (arguments.get(3).and_then(|word| word.to_str()), 4),
        Some(rest) if rest.starts_with('=') => (rest.strip_prefix('='), 3),
        Some(_) | None => return Ok(None),
    };
    match whose {
        Some("bhyve") => Ok(Some(Command::Bhyve { first })),
        _ => Err(wrong("--compat takes the command line of bhyve only", "parador vmm --help")),
    }
}

/// Parses what follows `vmm`, or `run` when `interactive`.
fn machine(arguments: &[OsString], interactive: bool) -> Result<Command, String> {
    let (topic, see) =
        if interactive { (Topic::Run, "parador run --help") } else { (Topic::Vmm, "parador vmm --help") };
    let mut request = Request { interactive, ..Request::default() };
    let mut only_words = false;
    let mut words = 0;
    let mut rest = arguments.iter().enumerate().skip(2);
    while let Some((number, argument)) = rest.next() {
        let bytes = argument.as_bytes();
        if only_words || !bytes.starts_with(b"-") || bytes == b"-" {
            words += 1;
            match (words, interactive) {
                (1, true) => request.given.push(Given::File(number, argument.clone())),
                (1, false) | (2, true) => request.given.push(Given::Name(number, text(argument, see)?)),
                _ => return Err(wrong(&format!("one word too many: {}", quoted(argument)), see)),
            }
            continue;
        }
        match bytes {
            b"--" => only_words = true,
            b"-h" | b"--help" => return Ok(Command::Help(topic)),
            [b'-', b'k' | b'o', ..] => short(&mut request, number, argument, &mut rest, see)?,
            _ => long(&mut request, number, argument, &mut rest, see)?,
        }
    }
    if request.given.is_empty() {
        return Err(wrong("nothing describes a machine", see));
    }
    if interactive && words == 0 {
        return Err(wrong("no FILE", see));
    }
    Ok(Command::Run(request))
}

/// Parses the option `argument` of one letter, its value behind it or in the next of `rest`.
pub(crate) fn short<'a>(
    request: &mut Request,
    number: usize,
    argument: &OsStr,
    rest: &mut impl Iterator<Item = (usize, &'a OsString)>,
    see: &str,
) -> Result<(), String> {
    let (letter, attached) = argument.as_bytes()[1..].split_at(1);
    let (number, value) = match attached {
        [] => {
            let next =
                rest.next().ok_or_else(|| wrong(&format!("nothing after {}", quoted(argument)), see))?;
            (next.0, next.1.as_os_str())
        }
        _ => (number, OsStr::from_bytes(attached)),
    };
    request.given.push(match letter {
        b"k" => Given::File(number, value.to_owned()),
        _ => Given::Option(number, text(value, see)?),
    });
    Ok(())
}

/// Parses the option `argument` that has a long name, its value behind `=` or in the next of `rest`.
pub(crate) fn long<'a>(
    request: &mut Request,
    number: usize,
    argument: &OsStr,
    rest: &mut impl Iterator<Item = (usize, &'a OsString)>,
    see: &str,
) -> Result<(), String> {
    let whole = text(argument, see)?;
    let (name, attached) =
        whole.split_once('=').map_or((whole.as_str(), None), |(name, value)| (name, Some(value)));
    let mut value = || match attached {
        Some(value) => Ok((number, value.to_owned())),
        None => {
            let next = rest.next().ok_or_else(|| wrong(&format!("nothing after {}", quoted(argument)), see));
            next.and_then(|(number, value)| Ok((number, text(value, see)?)))
        }
    };
    match (name, attached) {
        ("--config-fd", _) => {
            let (number, value) = value()?;
            let fd = value.parse().ok().filter(|fd| *fd >= 0);
            let fd =
                fd.ok_or_else(|| wrong(&format!("{} is not a descriptor", quoted(value.as_ref())), see))?;
            request.given.push(Given::Descriptor(number, fd));
        }
        ("--unset", _) => {
            let (number, key) = value()?;
            request.given.push(Given::Unset(number, key));
        }
        ("--dump", form) => {
            let form = form.unwrap_or("raw");
            let found = Dump::ALL.iter().find(|(name, _)| *name == form);
            let (_, form) = found.ok_or_else(|| {
                let names: Vec<&str> = Dump::ALL.iter().map(|(name, _)| *name).collect();
                wrong(&format!("--dump is one of {}", names.join(", ")), see)
            })?;
            request.dump = Some(*form);
        }
        ("--message-format", _) => {
            request.messages = match value()?.1.as_str() {
                "text" => Messages::Text,
                "json" => Messages::Json,
                _ => return Err(wrong("--message-format is text or json", see)),
            };
        }
        ("--dry-run", None | Some("plan")) if request.interactive => request.dry_run = Some(DryRun::Plan),
        ("--dry-run", Some("host")) if request.interactive => request.dry_run = Some(DryRun::Host),
        ("--dump-secrets", None) => request.dump_secrets = true,
        _ => return Err(wrong(&format!("there is no option {}", quoted(argument)), see)),
    }
    Ok(())
}

pub(crate) fn text(argument: &OsStr, see: &str) -> Result<String, String> {
    let text = argument.to_str().map(str::to_owned);
    text.ok_or_else(|| wrong(&format!("{} is not UTF-8", quoted(argument)), see))
}

/// `argument` in backquotes, without what a terminal would obey.
pub(crate) fn quoted(argument: &OsStr) -> String {
    let text: String = argument.to_string_lossy().chars().take(100).collect();
    format!("`{}`", text.escape_debug())
}

pub(crate) fn wrong(message: &str, see: &str) -> String {
    format!("error: {message}\nhint: see `{see}`\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn options_stand_alone_or_with_their_value() {
        let expected = vec![
            Given::File(3, "a".into()),
            Given::File(4, "b".into()),
            Given::Option(6, "cpus=2".to_owned()),
            Given::Option(7, "name=x".to_owned()),
            Given::File(9, "-".into()),
            Given::Name(10, "web".to_owned()),
        ];
        let request = Request { given: expected, ..Request::default() };
        assert_eq!(parsed("parador vmm -k a -kb -o cpus=2 -oname=x -k - web"), Ok(Command::Run(request)));
    }

    #[test]
    fn long_options_have_their_value_behind_an_equals_sign_or_after_them() {
        let expected = vec![
            Given::Descriptor(3, 5),
            Given::Descriptor(4, 6),
            Given::Unset(6, "device.disk0".to_owned()),
            Given::Unset(7, "cpus".to_owned()),
        ];
        let request =
            Request { given: expected, dump: Some(Dump::Json), dump_secrets: true, ..Request::default() };
        let line = "parador vmm --config-fd 5 --config-fd=6 --unset device.disk0 --unset=cpus --dump=json --dump-secrets";
        assert_eq!(parsed(line), Ok(Command::Run(request)));
        for wrong in
            ["--config-fd x", "--config-fd=-1", "--config-fd", "--dump=xml", "--dump-secrets=1", "--dum"]
        {
            assert!(parsed(&format!("parador vmm {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_word_may_begin_with_a_dash_after_two() {
        let request = Request { given: vec![Given::Name(3, "-x".to_owned())], ..Request::default() };
        assert_eq!(parsed("parador vmm -- -x"), Ok(Command::Run(request)));
    }

    #[test]
    fn options_of_the_table_are_understood() {
        for command in ["vmm", "run"] {
            for option in crate::options::of(command) {
                for name in option.names {
                    let value = match option.value {
                        "N" => "3",
                        _ if !option.takes_a_word() => "",
                        _ => option.choices.first().copied().unwrap_or("x=y"),
                    };
                    let parsed = parsed(&format!("parador {command} {name} {value} x"));
                    assert!(parsed.is_ok(), "{command} {name}: {parsed:?}");
                }
            }
        }
    }

    #[test]
    fn a_dry_run_is_of_what_a_person_runs() {
        let given = || vec![Given::File(3, "web".into())];
        for (option, dry_run) in [("", DryRun::Plan), ("=plan", DryRun::Plan), ("=host", DryRun::Host)] {
            let request =
                Request { given: given(), interactive: true, dry_run: Some(dry_run), ..Request::default() };
            assert_eq!(parsed(&format!("parador run --dry-run{option} web")), Ok(Command::Run(request)));
        }
        for wrong in ["vmm --dry-run web", "run --dry-run=x web"] {
            assert!(parsed(&format!("parador {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_line_of_bhyve_is_left_alone() {
        assert_eq!(parsed("parador vmm --compat bhyve -c 2 vm"), Ok(Command::Bhyve { first: 4 }));
        assert_eq!(parsed("parador vmm --compat=bhyve -h"), Ok(Command::Bhyve { first: 3 }));
        assert_eq!(parsed("/usr/sbin/bhyve vmm -c 2"), Ok(Command::Bhyve { first: 1 }));
        for wrong in ["--compat", "--compat=qemu", "--compat xen", "-c --compat"] {
            assert!(parsed(&format!("parador vmm {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        assert_eq!(parsed("parador"), Ok(Command::Help(Topic::Short)));
        assert_eq!(parsed("parador vmm -k x --help"), Ok(Command::Help(Topic::Vmm)));
        assert_eq!(parsed("parador help run"), Ok(Command::Help(Topic::Run)));
        assert_eq!(
            parsed("parador help keys memory"),
            Ok(Command::Config(vec!["keys".into(), "memory".into()]))
        );
    }
}
