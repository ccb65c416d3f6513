//! Network interfaces.

use super::super::xml::Element;
use super::Domain;

/// An interface.
pub(super) fn write(domain: &mut Domain<'_>, id: &str, model: &str) -> Result<Element, &'static str> {
    let mut interface = match domain.peek(id, "backend").unwrap_or("tap") {
        "tap" => write_tap(domain, id),
        "fd" => {
            let why = "libvirt opens interfaces itself; it makes one of its own here";
            domain.lose(id, "backend", why);
            domain.lose(id, "fd", why);
            write_tap(domain, id)
        }
        "macvtap" if domain.peek(id, "tap.link").is_some() => write_macvtap(domain, id),
        "vhost-user" => {
            let mut source = Element::new("source").with("type", "unix");
            domain.attr(&mut source, "path", id, "socket");
            Element::new("interface").with("type", "vhostuser").and(source.with("mode", "client"))
        }
        "user" => Element::new("interface").with("type", "user"),
        _ => return Err("this end of an interface has no words"),
    };
    domain.take(id, "backend");
    if let Some(mac) = domain.take(id, "mac") {
        interface.children.insert(0, Element::new("mac").with("address", mac));
    }
    let name = if model == "e1000" { "e1000" } else { "virtio" };
    interface.children.push(Element::new("model").with("type", name));
    if model == "virtio-net" {
        let mut driver = Element::new("driver");
        if let Some(vhost) = domain.switch(id, "vhost") {
            driver.set("name", if vhost { "vhost" } else { "qemu" });
        }
        domain.number(&mut driver, "queues", id, "queues");
        domain.number(&mut driver, "rx_queue_size", id, "queue_size");
        domain.number(&mut driver, "tx_queue_size", id, "queue_size");
        if !driver.attributes.is_empty() {
            interface.children.push(driver);
        }
        if domain.peek(id, "mtu").is_some() {
            let mut mtu = Element::new("mtu");
            domain.number(&mut mtu, "size", id, "mtu");
            interface.children.push(mtu);
        }
    }
    for key in ["rate.bps", "rate.iops"] {
        domain.lose(id, key, "its rates are those of each direction, and count no packets");
    }
    domain.common(&mut interface, id, "net");
    Ok(interface)
}

fn write_tap(domain: &mut Domain<'_>, id: &str) -> Element {
    let mut target = Element::new("target");
    let bridge = domain.take(id, "tap.bridge");
    write_name(domain, &mut target, id);
    let create = domain.take(id, "tap.create");
    let mut interface = match (bridge, create) {
        (Some(bridge), create) => {
            if create == Some("no") {
                domain.lose(id, "tap.create", "an interface on a bridge is always made");
            }
            Element::new("interface")
                .with("type", "bridge")
                .and(Element::new("source").with("bridge", bridge))
        }
        (None, create) => {
            if let Some(create @ ("yes" | "no")) = create {
                target.set("managed", create);
            }
            Element::new("interface").with("type", "ethernet")
        }
    };
    if !target.attributes.is_empty() {
        interface.children.push(target);
    }
    interface
}

fn write_macvtap(domain: &mut Domain<'_>, id: &str) -> Element {
    let mut source = Element::new("source");
    domain.attr(&mut source, "dev", id, "tap.link");
    if let Some(mode) = domain.take(id, "tap.mode") {
        source.set("mode", if mode == "passthru" { "passthrough" } else { mode });
    }
    let mut target = Element::new("target");
    write_name(domain, &mut target, id);
    let mut interface = Element::new("interface").with("type", "direct").and(source);
    if !target.attributes.is_empty() {
        interface.children.push(target);
    }
    interface
}

/// The name of the interface. libvirt gives out some itself, and does not read them.
fn write_name(domain: &mut Domain<'_>, target: &mut Element, id: &str) {
    let Some(name) = domain.take(id, "tap.name") else { return };
    if name.starts_with("vnet") || name.starts_with("macvtap") {
        domain.lose(id, "tap.name", "names that begin with vnet or macvtap are libvirt's own");
    } else {
        target.set("dev", name);
    }
}
