//! `parador image`: files that disks are kept in.

mod change;
mod check;
mod convert;
mod create;
mod map;
mod open;
mod show;
mod words;

use std::ffi::OsString;

use parador_config::Diagnostic;

use crate::messages::Messages;
use words::Words;

/// The commands below `parador image`: word, arguments, purpose.
pub(crate) static COMMANDS: &[(&str, &str, &str)] = &[
    ("create", "[--zoned] FILE --size SIZE", "make an image: a raw one, or one with zones"),
    ("info", "[--json] FILE", "say what an image is"),
    (
        "report",
        "[--json|--map] FILE",
        "say how each zone is, in lines as blkzone(8) writes them, or draw them",
    ),
    ("check", "[--repair [--yes]] FILE", "say what is wrong with a zoned image, and make it whole"),
    ("convert", "[--force] SOURCE TARGET", "copy a zoned disk: each is an image, or a zoned block device"),
    ("reset", "FILE ZONE...|--all", "empty zones: numbers, or ranges such as 4-7"),
    (
        "inject",
        "read-only|offline ZONE FILE",
        "make a zone fail, also of a running machine, to see what runs on the disk",
    ),
];

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ended {
    /// All is well.
    Done = 0,
    /// The image or the host does not let us.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The image is damaged.
    Damaged = 3,
    /// It was damaged, and is not any more.
    Repaired = 4,
}

/// Why a command did not do what was asked for.
#[derive(Debug)]
enum Wrong {
    /// The command line.
    Words(Diagnostic),
    /// The image, or the host.
    Host(Diagnostic),
}

type Outcome = Result<Ended, Wrong>;

/// Does what `words`, those after `image`, ask for.
pub(crate) fn run(words: &[OsString]) -> u8 {
    let ended = outcome(words).unwrap_or_else(|wrong| {
        let (ended, diagnostic) = match wrong {
            Wrong::Words(diagnostic) => (Ended::Usage, diagnostic),
            Wrong::Host(diagnostic) => (Ended::Failed, diagnostic),
        };
        Messages::Text.show_error(diagnostic);
        ended
    });
    ended as u8
}

fn outcome(words: &[OsString]) -> Outcome {
    let asks = |word: &OsString| word == "-h" || word == "--help";
    if words.is_empty() || words.iter().take_while(|word| *word != "--").any(asks) {
        return print(&help());
    }
    let command = COMMANDS.iter().find(|(word, ..)| words[0] == **word);
    let (command, ..) = command.ok_or_else(|| {
        let known: Vec<_> = COMMANDS.iter().map(|(word, ..)| *word).collect();
        let message = format!("there is no command {}", crate::args::quoted(&words[0]));
        Wrong::Words(Diagnostic::new(message).hint(format!("it is one of {}", known.join(", "))))
    })?;
    let words = Words::parse(command, &words[1..])?;
    match *command {
        "create" => create::run(&words),
        "info" => show::info(&words),
        "report" => show::report(&words),
        "check" => check::run(&words),
        "convert" => convert::run(&words),
        "reset" => change::reset(&words),
        _ => change::inject(&words),
    }
}

/// Writes `text` to standard output.
fn print(text: &str) -> Outcome {
    match crate::print(text) {
        crate::status::Status::PoweredOff => Ok(Ended::Done),
        _ => Ok(Ended::Failed),
    }
}

fn help() -> String {
    let mut text = "Usage: parador image COMMAND\n\n".to_owned();
    for (word, arguments, purpose) in COMMANDS {
        text.push_str(&format!("  {word} {arguments}\n      {purpose}\n"));
        for option in
            crate::options::of(&format!("image {word}")).filter(|option| option.names != ["-h", "--help"])
        {
            let value = if option.value.is_empty() { String::new() } else { format!(" {}", option.value) };
            text.push_str(&format!("        {}{value}\n            {}\n", option.names[0], option.doc));
        }
    }
    text.push_str(
        "\nExit status: 0 done, 1 the image or the host does not allow it, 2 the command line is wrong,\n\
         3 the image is damaged, 4 it was damaged and is repaired.\n",
    );
    text
}
