//! `parador config`: what can be configured, whether a configuration is right, and how others say it.

mod check;
mod complete;
mod convert;
mod keys;
mod man;
mod schema;

use std::ffi::OsString;

use crate::print;
use crate::status::Status;

/// The commands below `parador config`: word, arguments, purpose.
pub(crate) static COMMANDS: &[(&str, &str, &str)] = &[
    ("keys", "[PATTERN]", "list the keys, those of a model, or those that begin with or fit a pattern"),
    ("check", "[--engine ENGINE] FILE", "say what is wrong with a configuration"),
    (
        "convert",
        "[--from FORMAT] --to FORMAT [--strict] FILE|-|-- ARGS...",
        "write a configuration in another system's words, and say what those have no words for",
    ),
    ("man", "[parador|parador-vmm|parador.conf]", "write a manual page"),
    ("schema", "", "write a JSON Schema, for editors of TOML files"),
    ("completion", "bash|zsh|fish", "write a script that completes the words of this command"),
];

/// Does what `words`, those after `config`, ask for.
pub(crate) fn run(words: &[OsString]) -> Status {
    let Some(words) = words.iter().map(|word| word.to_str()).collect::<Option<Vec<&str>>>() else {
        return wrong("there is a word that is not UTF-8");
    };
    if let Some((_, rest)) = words.split_first()
        && words[0] != "complete"
        && rest.iter().take_while(|word| **word != "--").any(|word| ["-h", "--help"].contains(word))
    {
        return print(&help());
    }
    match words.as_slice() {
        [] | ["-h" | "--help"] => print(&help()),
        ["keys"] => print(&keys::list("")),
        ["keys", pattern] => print(&keys::list(pattern)),
        ["check", rest @ ..] => check::run(rest),
        ["convert", rest @ ..] => convert::run(rest),
        ["man"] => print(&man::page("parador.conf").unwrap_or_default()),
        ["man", page] => found(man::page(page), page, man::PAGES),
        ["schema"] => print(&schema::text()),
        ["completion", shell] => found(complete::script(shell), shell, complete::SHELLS),
        ["complete", typed @ ..] => print(&complete::lines(typed)),
        [command, ..] => wrong(&format!("cannot read `config {}`", command.escape_debug())),
    }
}

fn found(text: Option<String>, word: &str, known: &[&str]) -> Status {
    match text {
        Some(text) => print(&text),
        None => wrong(&format!("there is no `{}`, only {}", word.escape_debug(), known.join(", "))),
    }
}

/// Says what is wrong with the command line.
pub(crate) fn wrong(message: &str) -> Status {
    eprint!("error: {message}\nhint: see `parador config --help`\n");
    Status::Usage
}

fn help() -> String {
    let mut text = "Usage: parador config COMMAND\n\n".to_owned();
    for (word, arguments, purpose) in COMMANDS {
        text.push_str(&format!("  {word} {arguments}\n      {purpose}\n"));
    }
    text
}
