//! The command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// To be told about something.
    Help(Topic),
    /// The version.
    Version,
    /// A machine.
    Run(Request),
}

/// What there is help on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    /// The command as a whole.
    Short,
    /// `parador vmm`.
    Vmm,
    /// `parador run`.
    Run,
    /// The keys of the configuration, or those that begin with something.
    Keys(Option<String>),
}

/// A machine that was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// What describes it, in the order of the command line.
    pub(crate) given: Vec<Given>,
    /// Whether a person sits at the terminal (`parador run`).
    pub(crate) interactive: bool,
}

/// One piece of a machine's description, and the number of the argument it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A file to read; `-` is standard input.
    File(usize, OsString),
    /// `key=value`.
    Option(usize, String),
    /// The machine's name.
    Name(usize, String),
}

/// Parses `arguments`, the program's name first. The error is what to print.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let Some(verb) = arguments.get(1) else { return Ok(Command::Help(Topic::Short)) };
    match verb.to_str() {
        Some("vmm") => machine(arguments, false),
        Some("run") => machine(arguments, true),
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
        ["keys"] => Ok(Command::Help(Topic::Keys(None))),
        ["keys", prefix] => Ok(Command::Help(Topic::Keys(Some((*prefix).to_owned())))),
        _ => Err(wrong("there is no help on that", "parador --help")),
    }
}

/// Parses what follows `vmm`, or `run` when `interactive`.
fn machine(arguments: &[OsString], interactive: bool) -> Result<Command, String> {
    let (topic, see) =
        if interactive { (Topic::Run, "parador run --help") } else { (Topic::Vmm, "parador vmm --help") };
    let mut request = Request { given: Vec::new(), interactive };
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
            [b'-', letter @ (b'k' | b'o'), attached @ ..] => {
                let (number, value) = match attached {
                    [] => rest
                        .next()
                        .ok_or_else(|| wrong(&format!("nothing after {}", quoted(argument)), see))?,
                    _ => (number, &OsStr::from_bytes(attached).to_owned()),
                };
                request.given.push(match letter {
                    b'k' => Given::File(number, value.clone()),
                    _ => Given::Option(number, text(value, see)?),
                });
            }
            _ => return Err(wrong(&format!("there is no option {}", quoted(argument)), see)),
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

fn text(argument: &OsStr, see: &str) -> Result<String, String> {
    let text = argument.to_str().map(str::to_owned);
    text.ok_or_else(|| wrong(&format!("{} is not UTF-8", quoted(argument)), see))
}

/// `argument` in backquotes, without what a terminal would obey.
fn quoted(argument: &OsStr) -> String {
    let text: String = argument.to_string_lossy().chars().take(100).collect();
    format!("`{}`", text.escape_debug())
}

fn wrong(message: &str, see: &str) -> String {
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
        let request = Request { given: expected, interactive: false };
        assert_eq!(parsed("parador vmm -k a -kb -o cpus=2 -oname=x -k - web"), Ok(Command::Run(request)));
    }

    #[test]
    fn a_word_may_begin_with_a_dash_after_two() {
        let request = Request { given: vec![Given::Name(3, "-x".to_owned())], interactive: false };
        assert_eq!(parsed("parador vmm -- -x"), Ok(Command::Run(request)));
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        assert_eq!(parsed("parador"), Ok(Command::Help(Topic::Short)));
        assert_eq!(parsed("parador vmm -k x --help"), Ok(Command::Help(Topic::Vmm)));
        assert_eq!(parsed("parador help run"), Ok(Command::Help(Topic::Run)));
        assert_eq!(
            parsed("parador help keys memory"),
            Ok(Command::Help(Topic::Keys(Some("memory".to_owned()))))
        );
    }
}
