//! The words after `parador image COMMAND`, read by the table of options.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use parador_config::keys::{self, Kind};
use parador_config::{Diagnostic, Origin, Value};

use super::Wrong;
use crate::{args, options};

/// Which argument the first of those words is: the program, `image` and the command come before.
const FIRST: usize = 3;

/// What a command is asked for.
#[derive(Debug)]
pub(super) struct Words {
    command: &'static str,
    /// Options by their names, with the number of the argument and the value.
    given: BTreeMap<&'static str, (usize, String)>,
    /// What is no option, with the number of the argument.
    pub(super) rest: Vec<(usize, OsString)>,
}

impl Words {
    /// Reads `words` as the table says they are for `command`.
    pub(super) fn parse(command: &'static str, words: &[OsString]) -> Result<Self, Wrong> {
        let known: Vec<_> = options::of(&format!("image {command}")).collect();
        let mut parsed = Self { command, given: BTreeMap::new(), rest: Vec::new() };
        let mut only_files = false;
        let mut words = (FIRST..).zip(words);
        while let Some((number, word)) = words.next() {
            let text = word.to_string_lossy();
            if only_files || !text.starts_with('-') || text == "-" {
                parsed.rest.push((number, word.clone()));
                continue;
            }
            if text == "--" {
                only_files = true;
                continue;
            }
            let (name, attached) =
                text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value.to_owned())));
            let option = known.iter().find(|option| option.names.contains(&name));
            let option = option.ok_or_else(|| {
                let message = format!("there is no option {}", args::quoted(OsStr::new(name)));
                parsed.wrong(number, message)
            })?;
            let value = match (attached, option.takes_a_word()) {
                (Some(_), false) => return Err(parsed.wrong(number, format!("{name} takes no value"))),
                (Some(value), true) => value,
                (None, false) => String::new(),
                (None, true) => {
                    let next =
                        words.next().ok_or_else(|| parsed.wrong(number, format!("nothing after {name}")))?;
                    next.1.to_string_lossy().into_owned()
                }
            };
            if parsed.given.insert(option.names[0], (number, value)).is_some() {
                return Err(parsed.wrong(number, format!("{name} is there twice")));
            }
        }
        Ok(parsed)
    }

    /// Whether the option `name` is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The number that the option `name` has, of the kind that the key of a disk with that name has.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Wrong> {
        let field = name.trim_start_matches("--").replace('-', "_");
        let kind = keys::all().find(|key| key.pattern.strip_prefix("device.*.") == Some(&field));
        self.of_kind(name, kind.map_or(Kind::Int { min: 0, max: u64::MAX }, |key| key.kind))
    }

    /// The number that the option `name` has, of this `kind`.
    pub(super) fn of_kind(&self, name: &str, kind: Kind) -> Result<Option<u64>, Wrong> {
        let Some((number, text)) = self.given.get(name) else { return Ok(None) };
        match Value::parse(kind, text) {
            Ok(Value::Int(value)) => Ok(Some(value)),
            Ok(_) => Err(self.wrong(*number, format!("{name} cannot be {}", args::quoted(text.as_ref())))),
            Err(expected) => {
                let message = format!("{name} cannot be {}", args::quoted(text.as_ref()));
                let at = Diagnostic::new(message).at(Origin::Argument(*number));
                Err(Wrong::Words(at.hint(format!("it is {expected}"))))
            }
        }
    }

    /// A finding about the option `name`, where it is.
    pub(super) fn about(&self, name: &str, message: impl Into<String>) -> Diagnostic {
        let diagnostic = Diagnostic::new(message);
        match self.given.get(name) {
            Some((number, _)) => diagnostic.at(Origin::Argument(*number)),
            None => diagnostic,
        }
    }

    /// The only word that is no option: the image.
    pub(super) fn file(&self) -> Result<&Path, Wrong> {
        match self.rest.as_slice() {
            [(_, file)] => Ok(Path::new(file)),
            [] => Err(self.usage("no FILE")),
            [_, (number, _), ..] => Err(self.wrong(*number, "one file at a time".to_owned())),
        }
    }

    /// That the command line as a whole cannot be understood.
    pub(super) fn usage(&self, message: &str) -> Wrong {
        Wrong::Words(Diagnostic::new(message).hint(self.see()))
    }

    fn wrong(&self, number: usize, message: String) -> Wrong {
        Wrong::Words(Diagnostic::new(message).at(Origin::Argument(number)).hint(self.see()))
    }

    fn see(&self) -> String {
        format!("see `parador image {} --help`", self.command)
    }
}
