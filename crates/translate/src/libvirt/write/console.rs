//! Serial ports and virtio consoles.

use super::super::xml::Element;
use super::{Domain, alias};

/// Keys of the serial ports.
static SERIAL: &[&str] = &["console", "lpc.com2.path", "lpc.com3.path", "lpc.com4.path"];

/// Adds the serial ports.
pub(super) fn write_serial(domain: &mut Domain<'_>, devices: &mut Element) {
    for (port, key) in SERIAL.iter().enumerate() {
        let Some(endpoint) = domain.value(key) else { continue };
        match connected(Element::new("serial"), endpoint) {
            Some(serial) => {
                let target = Element::new("target").with("type", "isa-serial").with("port", port.to_string());
                devices.children.push(serial.and(target));
            }
            None => domain.keys.lose(key, NO_WORDS),
        }
    }
}

const NO_WORDS: &str = "only pty, stdio, none, file: and unix: have words";

/// `element`, connected to `endpoint`.
fn connected(element: Element, endpoint: &str) -> Option<Element> {
    let source = |path: &str| Element::new("source").with("path", path);
    Some(match (endpoint, endpoint.split_once(':')) {
        ("pty", _) => element.with("type", "pty"),
        ("stdio", _) => element.with("type", "stdio"),
        ("none", _) => element.with("type", "null"),
        (_, Some(("file", path))) => element.with("type", "file").and(source(path)),
        (_, Some(("unix", path))) => element.with("type", "unix").and(source(path).with("mode", "bind")),
        _ => return None,
    })
}

/// Adds a virtio console: its controller, and each of its ports.
pub(super) fn write_virtio(domain: &mut Domain<'_>, devices: &mut Element, id: &str) {
    let ports = domain.ports(id);
    if ports.is_empty() {
        return domain.lose(id, "model", "no port of it is connected to anything");
    }
    let index = domain.consoles;
    domain.consoles += 1;
    // The first is there without a word, if nothing is said of it.
    let plain = index == 0
        && ports.iter().eq([&0])
        && domain.peek(id, "addr").is_none()
        && domain.peek(id, "port.0.name").is_none();
    let mut controller =
        Element::new("controller").with("type", "virtio-serial").with("index", index.to_string());
    domain.take(id, "model");
    let named = !domain.is_default(id, "console");
    if named {
        controller.children.push(alias(id));
    }
    domain.place(&mut controller, id);
    if !plain || named {
        devices.children.push(controller);
    }
    for port in ports {
        let Some(endpoint) = domain.take(id, &format!("port.{port}.path")) else { continue };
        let name = domain.take(id, &format!("port.{port}.name"));
        let element = Element::new(if name.is_some() { "channel" } else { "console" });
        let Some(element) = connected(element, endpoint) else {
            domain.lose(id, &format!("port.{port}.path"), NO_WORDS);
            continue;
        };
        let mut target = Element::new("target").with("type", "virtio");
        if let Some(name) = name {
            target.set("name", name);
        }
        let mut element = element.and(target);
        if !plain {
            let address = Element::new("address")
                .with("type", "virtio-serial")
                .with("controller", index.to_string())
                .with("bus", "0")
                .with("port", port.to_string());
            element.children.push(address);
        }
        devices.children.push(element);
    }
}
