//! Every other device.

use super::super::units;
use super::super::xml::Element;
use super::{Domain, alias};

/// Where a VNC server listens that does not say.
const RFB: &str = "127.0.0.1:5900";

/// A device, or why it cannot be written.
pub(super) fn write(domain: &mut Domain<'_>, id: &str, model: &str) -> Result<Element, &'static str> {
    match model {
        "virtio-rnd" => Ok(write_rng(domain, id)),
        "virtio-balloon" => write_balloon(domain, id),
        "virtio-vsock" => Ok(write_vsock(domain, id)),
        "virtio-fs" | "virtio-9p" => Ok(write_filesystem(domain, id, model)),
        "virtio-input" => Ok(write_input(domain, id)),
        "passthru" => write_hostdev(domain, id),
        _ => Err("it has no words for this device"),
    }
}

fn write_rng(domain: &mut Domain<'_>, id: &str) -> Element {
    let mut backend = Element::new("backend").with("model", "random");
    if let Some(path) = domain.take(id, "path") {
        backend = backend.saying(path);
    }
    let mut rng = Element::new("rng").with("model", "virtio").and(backend);
    domain.common(&mut rng, id, "rng");
    rng
}

fn write_balloon(domain: &mut Domain<'_>, id: &str) -> Result<Element, &'static str> {
    if domain.balloon.is_some() {
        return Err("a machine has one balloon");
    }
    let size = domain.take(id, "size").map(units::memory);
    let memory = domain.keys.peek("memory.size").and_then(units::memory).unwrap_or(0);
    let size = match size {
        Some(Some(size)) if size <= memory => size,
        None => 0,
        Some(_) => {
            domain.lose(id, "size", "it is no size below that of the memory");
            0
        }
    };
    domain.balloon = Some(size);
    let mut balloon = Element::new("memballoon").with("model", "virtio");
    for (name, key) in [("autodeflate", "deflate_on_oom"), ("freePageReporting", "free_page_reporting")] {
        if let Some(on) = domain.switch(id, key) {
            balloon.set(name, if on { "on" } else { "off" });
        }
    }
    domain.common(&mut balloon, id, "balloon");
    Ok(balloon)
}

fn write_vsock(domain: &mut Domain<'_>, id: &str) -> Element {
    let mut cid =
        Element::new("cid").with("auto", if domain.peek(id, "cid").is_some() { "no" } else { "yes" });
    domain.number(&mut cid, "address", id, "cid");
    domain.lose(id, "socket", "its vsock is that of the host's kernel: programs connect with AF_VSOCK");
    let mut vsock = Element::new("vsock").with("model", "virtio").and(cid);
    domain.common(&mut vsock, id, "vsock");
    vsock
}

fn write_filesystem(domain: &mut Domain<'_>, id: &str, model: &str) -> Element {
    let mut filesystem = Element::new("filesystem").with("type", "mount");
    let mut source = Element::new("source");
    if model == "virtio-fs" && domain.peek(id, "socket").is_some() {
        domain.attr(&mut source, "socket", id, "socket");
        domain.lose(id, "path", "the process behind the socket knows the folder");
    } else {
        domain.attr(&mut source, "dir", id, "path");
        filesystem.set("accessmode", "passthrough");
    }
    let mut driver =
        Element::new("driver").with("type", if model == "virtio-fs" { "virtiofs" } else { "path" });
    if model == "virtio-fs" {
        domain.number(&mut driver, "queue", id, "queue_size");
    }
    let mut target = Element::new("target");
    domain.attr(&mut target, "dir", id, "sharename");
    filesystem.children.extend([driver, source, target]);
    if domain.switch(id, "ro") == Some(true) {
        filesystem.children.push(Element::new("readonly"));
    }
    domain.common(&mut filesystem, id, "fs");
    filesystem
}

fn write_input(domain: &mut Domain<'_>, id: &str) -> Element {
    let mut source = Element::new("source");
    domain.attr(&mut source, "evdev", id, "path");
    let mut input = Element::new("input").with("type", "passthrough").with("bus", "virtio").and(source);
    domain.common(&mut input, id, "input");
    input
}

fn write_hostdev(domain: &mut Domain<'_>, id: &str) -> Result<Element, &'static str> {
    let address = match domain.peek(id, "host") {
        Some(host) => host_address(host).ok_or("the host's device is not written as in 0000:01:00.0")?,
        None => {
            let part = |key| domain.peek(id, key).and_then(units::any_number);
            let parts = part("bus").zip(part("slot")).zip(part("func"));
            let ((bus, slot), function) = parts.ok_or("its place on the host is not said")?;
            [0, bus, slot, function]
        }
    };
    for key in ["host", "bus", "slot", "func"] {
        domain.take(id, key);
    }
    let [segment, bus, slot, function] = address;
    let address = Element::new("address")
        .with("domain", format!("0x{segment:04x}"))
        .with("bus", format!("0x{bus:02x}"))
        .with("slot", format!("0x{slot:02x}"))
        .with("function", format!("0x{function:x}"));
    let mut hostdev = Element::new("hostdev")
        .with("mode", "subsystem")
        .with("type", "pci")
        .with("managed", "no")
        .and(Element::new("source").and(address));
    if let Some(rom) = domain.take(id, "rom") {
        hostdev.children.push(Element::new("rom").with("file", rom));
    }
    domain.common(&mut hostdev, id, "passthru");
    Ok(hostdev)
}

/// The parts of `0000:01:00.0`.
fn host_address(text: &str) -> Option<[u64; 4]> {
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'));
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, slot) = rest.rsplit_once(':')?;
    let (segment, bus) = rest.split_once(':').unwrap_or(("0", rest));
    Some([hexadecimal(segment)?, hexadecimal(bus)?, hexadecimal(slot)?, hexadecimal(function)?])
}

/// Adds the TPM.
pub(super) fn write_tpm(domain: &mut Domain<'_>, devices: &mut Element) {
    let Some(kind) = domain.value("tpm.type") else { return };
    let path = domain.value("tpm.path").unwrap_or_default();
    let backend = if kind == "passthru" {
        let device = Element::new("device").with("path", path);
        Element::new("backend").with("type", "passthrough").and(device)
    } else {
        let source = Element::new("source").with("type", "unix").with("mode", "connect").with("path", path);
        Element::new("backend").with("type", "external").and(source)
    };
    if domain.value("tpm.version").is_some_and(|version| version != "2.0") {
        domain.keys.lose("tpm.version", "the interface that is written is that of version 2.0");
    }
    devices.children.push(Element::new("tpm").with("model", "tpm-crb").and(backend));
}

/// Adds a screen: what the guest draws on, and who shows it.
pub(super) fn write_screen(domain: &mut Domain<'_>, devices: &mut Element, id: &str) {
    let rfb = domain.take(id, "rfb").unwrap_or(RFB);
    let (address, port) = rfb.rsplit_once(':').unwrap_or(("127.0.0.1", rfb));
    if units::number(port).is_none() || domain.has_screen {
        let why = if domain.has_screen { "one screen is written" } else { "its port is no number" };
        return domain.lose(id, "model", why);
    }
    domain.has_screen = true;
    let mut graphics = Element::new("graphics")
        .with("type", "vnc")
        .with("port", port)
        .with("autoport", "no")
        .with("listen", address);
    domain.attr(&mut graphics, "passwd", id, "password");
    if domain.switch(id, "wait") == Some(true) {
        graphics.set("wait", "yes");
    }
    if let Some(layout) = domain.value("keyboard.layout") {
        graphics.set("keymap", layout);
    }
    graphics.children.push(Element::new("listen").with("type", "address").with("address", address));
    domain.take(id, "model");
    if !domain.is_default(id, "screen") {
        graphics.children.push(alias(id));
    }
    devices.children.push(graphics);
    let mut resolution = Element::new("resolution");
    domain.number(&mut resolution, "x", id, "w");
    domain.number(&mut resolution, "y", id, "h");
    let mut model = Element::new("model").with("type", "vga");
    if !resolution.attributes.is_empty() {
        model.children.push(resolution);
    }
    let mut video = Element::new("video");
    if let Some(vga) = domain.take(id, "vga") {
        video.children.push(Element::new("driver").with("vgaconf", vga));
    }
    video.children.push(model);
    domain.place(&mut video, id);
    devices.children.push(video);
}

/// Adds a USB controller with its tablets.
pub(super) fn write_usb(domain: &mut Domain<'_>, devices: &mut Element, id: &str) {
    let index = domain.usb;
    domain.usb += 1;
    if index > 0 {
        return domain.lose(id, "model", "one USB controller is written");
    }
    let mut controller =
        Element::new("controller").with("type", "usb").with("index", "0").with("model", "qemu-xhci");
    domain.common(&mut controller, id, "usb");
    devices.children.push(controller);
    for slot in 1.. {
        let Some(device) = domain.peek(id, &format!("slot.{slot}.device")) else { break };
        domain.take(id, &format!("slot.{slot}.device"));
        devices.children.push(Element::new("input").with("type", device).with("bus", "usb"));
    }
}
