//! The manual pages, in mdoc(7): the text of each, with its lists made from the tables.

use std::fmt::Write;

use parador_config::keys::{self, Key, Model, Support};

use super::keys::{elsewhere, support, values};
use crate::options::{self, Opt};

/// The pages there are.
pub(super) static PAGES: &[&str] = &["parador", "parador-vmm", "parador.conf"];

/// A page's text; `@NAME@` lines in it stand for lists.
pub(super) fn page(name: &str) -> Option<String> {
    let text = match name {
        "parador" => include_str!("parador.1"),
        "parador-vmm" => include_str!("parador-vmm.1"),
        "parador.conf" => include_str!("parador.conf.5"),
        _ => return None,
    };
    let mut page = String::new();
    for line in text.lines() {
        match line.strip_prefix('@').and_then(|line| line.strip_suffix('@')) {
            Some("VMM OPTIONS") => page.push_str(&list_of_options("vmm")),
            Some("RUN OPTIONS") => page.push_str(&list_of_options("run")),
            Some("DEVICE OPTIONS") => page.push_str(&list_of_options("device")),
            Some("CONFIG COMMANDS") => page.push_str(&commands("config", super::COMMANDS)),
            Some("IMAGE COMMANDS") => page.push_str(&commands("image", crate::image::COMMANDS)),
            Some("FORMATS") => page.push_str(&format!(".Cm {} .\n", options::FORMATS.join(" , "))),
            Some("STATUS") => page.push_str(include_str!("status.mdoc")),
            Some("MODELS") => page.push_str(&models()),
            Some("KEYS") => page.push_str(&own_keys()),
            Some("OTHER KEYS") => page.push_str(&other_keys()),
            Some(_) | None => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    Some(page)
}

fn list_of_options(command: &str) -> String {
    list_of(&options::of(command).collect::<Vec<_>>())
}

fn list_of(options: &[&Opt]) -> String {
    let mut list = ".Bl -tag -width Ds\n".to_owned();
    for option in options {
        let names: Vec<_> = option.names.iter().map(|name| format!("Fl {}", escaped(&name[1..]))).collect();
        // Writing to a string does not fail.
        let _ = write!(list, ".It {}", names.join(" , "));
        if option.takes_a_word() {
            let _ = write!(list, " Ar {}", argument(option.value));
        } else if !option.value.is_empty() {
            let _ = write!(list, " Ns Ar {}", argument(option.value));
        }
        let _ = writeln!(list, "\n{}", sentence(option.doc));
    }
    list + ".El\n"
}

/// The `commands` below one.
fn commands(group: &str, commands: &[(&str, &str, &str)]) -> String {
    let mut list = ".Bl -tag -width Ds\n".to_owned();
    for (word, arguments, purpose) in commands {
        let _ = write!(list, ".It Cm {group} {word}");
        if !arguments.is_empty() {
            let _ = write!(list, " Ar {}", argument(arguments));
        }
        let mut purpose = (*purpose).to_owned();
        purpose[..1].make_ascii_uppercase();
        let _ = writeln!(list, "\n{}", sentence(&(purpose + ".")));
        let command = format!("{group} {word}");
        let options: Vec<_> = options::of(&command).filter(|option| !option.names.contains(&"-h")).collect();
        if !options.is_empty() {
            list.push_str(&list_of(&options));
        }
    }
    list + ".El\n"
}

fn models() -> String {
    let mut list = ".Bl -tag -width Ds\n".to_owned();
    for model in keys::MODELS.iter().filter(|model| is_native(model.name)) {
        let fields = keys::all().filter(|key| key.models.contains(model.name) && is_own(key));
        let fields: Vec<_> = fields.filter_map(|key| key.pattern.strip_prefix("device.*.")).collect();
        let _ = write!(list, ".It Cm {}\n{}\n", escaped(model.name), sentence(model.doc));
        let _ = writeln!(list, "Keys:");
        for (index, field) in fields.iter().enumerate() {
            let end = if index + 1 < fields.len() { " ," } else { " ." };
            let _ = writeln!(list, ".Cm {}{end}", escaped(field));
        }
    }
    list + ".El\n"
}

fn is_native(model: &str) -> bool {
    keys::model(model).is_some_and(|model| model.support == Support::Native)
}

/// Whether Parador's own engine does something with `key`.
fn is_own(key: &Key) -> bool {
    let has_device = key.models.is_empty() || key.models.iter().any(is_native);
    has_device && key.support.matters()
}

fn own_keys() -> String {
    let mut text = String::new();
    for (title, keys) in keys::groups() {
        let mut own = keys.iter().filter(|key| is_own(key)).peekable();
        if own.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, ".Ss {title}\n.Bl -tag -width Ds");
        for key in own {
            item(&mut text, key);
            if key.support == Support::Runner {
                text.push_str(".Nm parador Cm run\ndoes it.\n");
            }
            if key.live {
                text.push_str("It can change while the machine runs, once there is a control socket.\n");
            }
            if key.secret {
                text.push_str("It is shown only to those who ask for secrets.\n");
            }
            names_elsewhere(&mut text, &elsewhere(key.elsewhere));
        }
        text.push_str(".El\n");
    }
    text
}

fn names_elsewhere(text: &mut String, names: &[String]) {
    if !names.is_empty() {
        let _ = writeln!(text, ".Pq {}", escaped(&names.join("; ")).replace('"', "\\(dq"));
    }
}

/// Keys and models that are here for other systems.
fn other_keys() -> String {
    let mut text = ".Bl -tag -width Ds\n".to_owned();
    let others = |model: &&Model| model.support != Support::Native;
    for model in keys::MODELS.iter().filter(others) {
        let _ = writeln!(text, ".It Cm device. Ns Ar ID Ns Cm .model Ns = Ns Cm {}", escaped(model.name));
        let support = support(model.support).unwrap_or_default();
        let _ = writeln!(text, "{}\n{}", sentence(model.doc), sentence(&capital(&support)));
    }
    for key in keys::all().filter(|key| !is_own(key)) {
        item(&mut text, &key);
        if let Some(support) = support(key.support) {
            let _ = writeln!(text, "{}", sentence(&capital(&support)));
        }
    }
    text + ".El\n"
}

/// The head of a key's entry, and what it does.
fn item(text: &mut String, key: &Key) {
    let _ = write!(text, ".It Cm ");
    let mut before = "";
    let mut word = String::new();
    for part in key.pattern.split('.') {
        if part == "*" {
            let _ = write!(text, "{word}. Ns Ar {} Ns Cm ", variable(before));
            word.clear();
        } else {
            let dot = if word.is_empty() && before.is_empty() { "" } else { "." };
            let _ = write!(word, "{dot}{}", escaped(part));
        }
        before = part;
    }
    if word.is_empty() {
        // The pattern ends in a star: nothing follows the variable.
        let end = text.trim_end_matches(" Ns Cm ").len();
        text.truncate(end);
    }
    let values = match key.support {
        Support::Only(words, _) if key.support.matters() => words.join("|"),
        _ => values(key.kind),
    };
    let _ = write!(text, "{word} Ns = Ns Ar {}", argument(&values));
    let mut more = String::new();
    if let Some(default) = key.default {
        let _ = write!(more, " (default: {default})");
    }
    let (own, others): (Vec<&str>, Vec<&str>) = key.models.iter().partition(|name| is_native(name));
    let models = if own.is_empty() { others } else { own };
    if !models.is_empty() {
        let _ = write!(more, " [{}]", models.join(", "));
    }
    if !more.is_empty() {
        let _ = write!(text, " No {}", argument(more.trim_start()));
    }
    let _ = writeln!(text, "\n{}", sentence(key.doc));
}

/// What the part of a key that follows `before` is called.
fn variable(before: &str) -> &'static str {
    match before {
        "device" => "ID",
        "engine" => "SYSTEM",
        _ => "N",
    }
}

/// Words of a macro's line: nothing in them is a macro.
fn argument(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq").replace('|', "|\\:"))
}

fn capital(text: &str) -> String {
    let mut text = text.to_owned() + ".";
    text[..1].make_ascii_uppercase();
    text
}

/// Text on lines of its own: words in backquotes are literal.
fn sentence(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 0 {
            out.push_str(&escaped(part));
        } else {
            let _ = write!(out, "\\fB{}\\fR", escaped(part));
        }
    }
    // A line that begins with a dot or a quote would be a request.
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('`', "\\(ga")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti")
}
