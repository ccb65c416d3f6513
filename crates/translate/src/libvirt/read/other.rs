//! Every other device.

use super::super::units;
use super::super::xml::Element;
use super::{Domain, switch};

/// Reads a device. What has no key is kept.
pub(super) fn read(domain: &mut Domain<'_>, device: &Element) {
    match device.name.as_str() {
        "rng" => read_rng(domain, device),
        "memballoon" => read_balloon(domain, device),
        "vsock" => read_vsock(domain, device),
        "filesystem" => read_filesystem(domain, device),
        "hostdev" => read_hostdev(domain, device),
        "tpm" => read_tpm(domain, device),
        // Every machine has one.
        "panic" if matches!(device.attr("model"), None | Some("isa" | "pvpanic")) => device.take_all(),
        _ => {}
    }
}

fn is_virtio(device: &Element) -> bool {
    matches!(device.attr("model"), None | Some("virtio" | "virtio-non-transitional"))
}

/// Begins a device: takes what every device has.
fn begin(domain: &mut Domain<'_>, device: &Element, default: &'static str, model: &str) -> String {
    device.taken();
    let id = domain.id(device, None, default);
    domain.set(&format!("device.{id}.model"), model, device);
    domain.pci(device, &id);
    format!("device.{id}")
}

fn read_rng(domain: &mut Domain<'_>, rng: &Element) {
    let Some(backend) = rng.child("backend").filter(|_| is_virtio(rng)) else { return };
    if !matches!(backend.attr("model"), Some("random" | "builtin")) {
        return;
    }
    let keys = begin(domain, rng, "rng", "virtio-rnd");
    rng.take("model");
    backend.take("model");
    domain.set_line(&format!("{keys}.path"), rng, "backend");
    backend.taken();
}

fn read_balloon(domain: &mut Domain<'_>, balloon: &Element) {
    if balloon.attr("model") == Some("none") {
        return balloon.take_all();
    }
    if !is_virtio(balloon) {
        return;
    }
    let keys = begin(domain, balloon, "balloon", "virtio-balloon");
    balloon.take("model");
    domain.set_switch(&format!("{keys}.deflate_on_oom"), balloon, "autodeflate");
    domain.set_switch(&format!("{keys}.free_page_reporting"), balloon, "freePageReporting");
}

fn read_vsock(domain: &mut Domain<'_>, vsock: &Element) {
    if !is_virtio(vsock) {
        return;
    }
    let keys = begin(domain, vsock, "vsock", "virtio-vsock");
    vsock.take("model");
    let Some(cid) = vsock.enter("cid") else { return };
    cid.take_if("auto", "no");
    // An address that libvirt chooses is one that is not set.
    if cid.attr("auto") == Some("yes") {
        cid.take_all();
    } else {
        domain.set_attr(&format!("{keys}.cid"), cid, "address");
    }
}

fn read_filesystem(domain: &mut Domain<'_>, filesystem: &Element) {
    if filesystem.attr("type").is_some_and(|kind| kind != "mount") || !is_virtio(filesystem) {
        return;
    }
    let driver = filesystem.child("driver");
    let model = match driver.and_then(|driver| driver.attr("type")) {
        Some("virtiofs") => "virtio-fs",
        Some("path") | None => "virtio-9p",
        Some(_) => return,
    };
    let keys = begin(domain, filesystem, "fs", model);
    for name in ["type", "model"] {
        filesystem.take(name);
    }
    filesystem.take_if("accessmode", "passthrough");
    if let Some(driver) = filesystem.enter("driver") {
        driver.take("type");
        if model == "virtio-fs" {
            domain.set_attr(&format!("{keys}.queue_size"), driver, "queue");
        }
    }
    if let Some(source) = filesystem.enter("source") {
        domain.set_attr(&format!("{keys}.path"), source, "dir");
        domain.set_attr(&format!("{keys}.socket"), source, "socket");
    }
    if let Some(target) = filesystem.enter("target") {
        domain.set_attr(&format!("{keys}.sharename"), target, "dir");
    }
    if let Some(readonly) = filesystem.enter("readonly") {
        domain.set(&format!("{keys}.ro"), "true", readonly);
    }
}

fn read_hostdev(domain: &mut Domain<'_>, hostdev: &Element) {
    if (hostdev.attr("mode"), hostdev.attr("type")) != (Some("subsystem"), Some("pci")) {
        return;
    }
    let Some(address) = hostdev.child("source").and_then(|source| source.child("address")) else { return };
    let part = |name| units::any_number(address.attr(name).unwrap_or("0"));
    let (Some(segment), Some(bus), Some(slot), Some(function)) =
        (part("domain"), part("bus"), part("slot"), part("function"))
    else {
        return;
    };
    let keys = begin(domain, hostdev, "passthru", "passthru");
    for name in ["mode", "type"] {
        hostdev.take(name);
    }
    if !hostdev.take_if("managed", "no") {
        domain.lose_attr(
            hostdev,
            "managed",
            "the host's driver is not taken off the device; bind it to vfio-pci first",
        );
    }
    if let Some(source) = hostdev.enter("source") {
        source.take_all();
    }
    domain.set(&format!("{keys}.host"), format!("{segment:04x}:{bus:02x}:{slot:02x}.{function:x}"), hostdev);
    if let Some(driver) = hostdev.child("driver").filter(|driver| driver.attr("name") == Some("vfio")) {
        driver.taken().take("name");
    }
    if let Some(rom) = hostdev.child("rom").filter(|rom| rom.attr("file").is_some()) {
        domain.set_attr(&format!("{keys}.rom"), rom.taken(), "file");
    }
}

fn read_tpm(domain: &mut Domain<'_>, tpm: &Element) {
    let Some(backend) = tpm.child("backend").filter(|_| domain.tree.setting("tpm.type").is_none()) else {
        return;
    };
    let (kind, end) = match backend.attr("type") {
        Some("passthrough") => ("passthru", "device"),
        Some("external") => ("swtpm", "source"),
        _ => return,
    };
    let Some(end) = backend.child(end).filter(|end| end.attr("path").is_some()) else { return };
    tpm.taken().take_if("model", "tpm-crb");
    backend.taken().take("type");
    if kind == "swtpm" {
        end.take_if("type", "unix");
        end.take_if("mode", "connect");
    }
    domain.set("tpm.type", kind, backend);
    domain.set_attr("tpm.path", end.taken(), "path");
    domain.set_attr("tpm.version", backend, "version");
    if let Some(alias) = tpm.child("alias") {
        alias.take_all();
    }
}

/// What a user looks at and touches.
pub(super) struct Screens {
    /// The device that is the screen.
    screen: Option<String>,
    /// Whether the document has a VNC server with an address.
    has_vnc: bool,
    /// The device that is the USB controller, and how many tablets it has.
    usb: Option<(String, u64)>,
}

impl Screens {
    pub(super) fn new(devices: &Element) -> Self {
        Self { screen: None, has_vnc: devices.all("graphics").any(|it| vnc(it).is_some()), usb: None }
    }

    /// Reads the USB controller that tablets are at.
    pub(super) fn read_controller(&mut self, domain: &mut Domain<'_>, controller: &Element) {
        let xhci = matches!(controller.attr("model"), Some("qemu-xhci" | "nec-xhci"));
        let first = matches!(controller.attr("index"), None | Some("0"));
        if controller.attr("type") == Some("usb")
            && xhci
            && first
            && self.usb.as_ref().is_none_or(|it| it.1 == 0)
        {
            for name in ["type", "index", "model"] {
                controller.take(name);
            }
            let keys = begin(domain, controller, "usb", "xhci");
            self.usb = Some((keys, 0));
        }
    }

    /// Reads a screen, or something to point at it with.
    pub(super) fn read(&mut self, domain: &mut Domain<'_>, device: &Element) {
        match device.name.as_str() {
            "graphics" => self.read_graphics(domain, device),
            "video" => self.read_video(domain, device),
            _ => self.read_input(domain, device),
        }
    }

    fn screen(&mut self, domain: &mut Domain<'_>, device: &Element) -> String {
        if self.screen.is_none() {
            self.screen = Some(begin(domain, device, "screen", "fbuf"));
        }
        device.taken();
        self.screen.clone().unwrap_or_default()
    }

    fn read_graphics(&mut self, domain: &mut Domain<'_>, graphics: &Element) {
        let Some(rfb) = vnc(graphics) else { return };
        let keys = self.screen(domain, graphics);
        for name in ["type", "port", "listen"] {
            graphics.take(name);
        }
        graphics.take_if("autoport", "no");
        if let Some(listen) = graphics.child("listen") {
            listen.take_all();
        }
        domain.set(&format!("{keys}.rfb"), rfb, graphics);
        domain.set_attr(&format!("{keys}.password"), graphics, "passwd");
        domain.set_switch(&format!("{keys}.wait"), graphics, "wait");
        domain.set_attr("keyboard.layout", graphics, "keymap");
    }

    fn read_video(&mut self, domain: &mut Domain<'_>, video: &Element) {
        let Some(model) = video.child("model").filter(|_| self.has_vnc) else { return };
        if !matches!(model.attr("type"), Some("gop" | "vga")) {
            return;
        }
        let keys = self.screen(domain, video);
        if let Some(id) = keys.strip_prefix("device.") {
            domain.pci(video, id);
        }
        for name in ["type", "heads", "primary", "vram"] {
            model.take(name);
        }
        if let Some(alias) = video.child("alias") {
            alias.take_all();
        }
        if let Some(resolution) = model.taken().enter("resolution") {
            domain.set_attr(&format!("{keys}.w"), resolution, "x");
            domain.set_attr(&format!("{keys}.h"), resolution, "y");
        }
        if let Some(driver) = video.enter("driver") {
            domain.set_attr(&format!("{keys}.vga"), driver, "vgaconf");
        }
    }

    fn read_input(&mut self, domain: &mut Domain<'_>, input: &Element) {
        match (input.attr("type"), input.attr("bus"), &mut self.usb) {
            (Some("tablet"), Some("usb"), Some((keys, tablets))) => {
                *tablets += 1;
                let key = format!("{keys}.slot.{tablets}.device");
                input.take_all();
                domain.set(&key, "tablet", input);
            }
            (Some("passthrough"), Some("virtio"), _) => {
                let Some(source) = input.child("source") else { return };
                let keys = begin(domain, input, "input", "virtio-input");
                input.take("type");
                input.take("bus");
                domain.set_attr(&format!("{keys}.path"), source.taken(), "evdev");
            }
            _ => {}
        }
    }
}

/// The address and port of a VNC server that has them.
fn vnc(graphics: &Element) -> Option<String> {
    let port = graphics.attr("port").and_then(units::number).filter(|port| *port > 0)?;
    if graphics.attr("type") != Some("vnc") || switch(graphics, "autoport") == Some("true") {
        return None;
    }
    let mut listens = graphics.all("listen");
    let address = match (listens.next(), listens.next()) {
        (None, _) => graphics.attr("listen"),
        (Some(listen), None) if listen.attr("type") == Some("address") => listen.attr("address"),
        _ => return None,
    };
    Some(format!("{}:{port}", address.unwrap_or("127.0.0.1")))
}
