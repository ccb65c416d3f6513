//! Serial ports, consoles, and what they are connected to.

use parador_config::Origin;

use super::super::bag::Bag;
use super::super::table::PORTS;
use super::{Front, Import};
use crate::words::Word;

/// Properties of a chardev that are so anyway.
static IMPLIED: &[(&str, &[&str])] =
    &[("mux", &["on", "off"]), ("signal", &["on", "off"]), ("append", &["off"]), ("logappend", &["off"])];

impl Import {
    /// Gives the serial ports their ends, in the order in which they were asked for.
    pub(super) fn serial_ports(&mut self) {
        let ports = std::mem::take(&mut self.serials);
        let origin = self.whole.nographic.take();
        let first = self.whole.first.clone();
        if ports.is_empty() {
            match (origin, first) {
                (Some(origin), _) if !self.whole.nodefaults => self.set("console", "stdio", &origin),
                (_, Some(first)) => self.set("console", "none", &first),
                (_, None) => {}
            }
        }
        for (number, mut port) in ports.into_iter().enumerate() {
            let Some(key) = PORTS.get(number) else {
                self.keep(port.index, port.words);
                continue;
            };
            let origin = port.bag.origin.clone();
            let name = format!("com{}", number + 1);
            let end = match (port.bag.take("serial"), port.bag.take("chardev")) {
                (Some(text), _) => self.short_form(&text, &name, &origin),
                (None, Some(chardev)) => self.endpoint(&chardev, &name),
                (None, None) => None,
            };
            match end {
                Some(end) => self.set(key, end, &origin),
                None => {
                    self.keep(port.index, port.words);
                    self.set(key, "none", &origin);
                }
            }
        }
    }

    /// The end that the value of `-serial` says.
    fn short_form(&mut self, text: &str, name: &str, origin: &Origin) -> Option<String> {
        let plain = text.strip_prefix("mon:").unwrap_or(text);
        if plain != text {
            self.lose(format!("-serial {text}"), "there is no monitor on the console", origin);
        }
        let text = plain;
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "chardev" => self.endpoint(rest, name),
            "stdio" | "pty" => Some(kind.to_owned()),
            "none" | "null" => Some("none".to_owned()),
            "file" => Some(format!("file:{rest}")),
            "unix" => {
                let word = Word { text: rest.to_owned(), origin: origin.clone() };
                let mut bag = Bag::parse(&word, Some("path")).ok()?.with("backend", "socket");
                let end = endpoint_of(&mut bag)?;
                self.keep_properties("chardev", name, &bag);
                Some(end)
            }
            _ => None,
        }
    }

    /// The end that the chardev `id` is; the export will call it `name`.
    pub(super) fn endpoint(&mut self, id: &str, name: &str) -> Option<String> {
        let part = self.find("chardev", id)?;
        let mut bag = self.parts[part].bag.clone();
        let shared = self.parts[part].used;
        bag.take("id");
        let end = endpoint_of(&mut bag)?;
        if shared {
            let why = "each console has an end of its own";
            self.lose(format!("chardev {id}, which is used twice"), why, &bag.origin.clone());
        } else {
            self.keep_properties("chardev", name, &bag);
        }
        self.parts[part].used = true;
        Some(end)
    }

    /// The socket of the vhost-user back end that the chardev `id` leads to.
    pub(super) fn socket(&self, id: &str) -> Option<(usize, Bag)> {
        let part = self.find("chardev", id)?;
        let mut bag = self.parts[part].bag.clone();
        bag.take("id");
        let socket = bag.take("backend")? == "socket" && bag.peek("path").is_some();
        bag.take_if("server", &["off"]);
        (socket && bag.peek("server").is_none()).then_some((part, bag))
    }

    /// `-mon`, which goes if it shares the end of a console.
    pub(super) fn monitors(&mut self) {
        for Front { index, bag, words } in std::mem::take(&mut self.whole.monitors) {
            let part = bag.peek("chardev").and_then(|id| self.find("chardev", &id));
            if part.is_some_and(|part| self.parts[part].used) {
                self.lose("-mon", "there is no monitor on the console", &bag.origin);
            } else {
                self.keep(index, words);
            }
        }
    }
}

/// The end that a chardev is, taken out of its properties.
pub(super) fn endpoint_of(bag: &mut Bag) -> Option<String> {
    for (property, values) in IMPLIED {
        bag.take_if(property, values);
    }
    match bag.take("backend")?.as_str() {
        "stdio" => Some("stdio".to_owned()),
        "pty" => Some("pty".to_owned()),
        "null" => Some("none".to_owned()),
        "file" => Some(format!("file:{}", bag.take("path")?)),
        "socket" if bag.take_if("server", &["on"]) => {
            bag.take_if("wait", &["off"]);
            Some(format!("unix:{}", bag.take("path")?))
        }
        _ => None,
    }
}
