//! `<interface>`.

use super::super::print;
use super::super::xml::Element;
use super::Domain;

/// Why the host's end of an interface is not known.
const NETWORK: &str =
    "networks are libvirt's own; set the device's `tap.bridge` to the bridge that `virsh net-info` shows";

/// Reads an interface. Those that no key can describe are kept.
pub(super) fn read(domain: &mut Domain<'_>, interface: &Element) {
    let Some(kind) = interface.attr("type") else { return };
    let model = match interface.child("model").map(|model| model.attr("type").unwrap_or_default()) {
        Some("virtio" | "virtio-non-transitional") => "virtio-net",
        Some("e1000") => "e1000",
        None => "virtio-net",
        Some(_) => return,
    };
    let backend = match kind {
        "bridge" | "ethernet" | "network" => None,
        "direct" => Some("macvtap"),
        "user" => Some("user"),
        "vhostuser" if interface.child("source").is_some_and(|it| it.attr("type") == Some("unix")) => {
            Some("vhost-user")
        }
        _ => return,
    };
    interface.taken().take("type");
    let id = domain.id(interface, None, "net");
    let keys = format!("device.{id}");
    domain.set(&format!("{keys}.model"), model, interface);
    match interface.enter("model") {
        Some(model) => {
            model.take("type");
        }
        None => {
            let why =
                "the interface names no model, and libvirt's default is one that is not here; virtio is";
            domain.lose(interface, "<interface> without <model>", why);
        }
    }
    domain.pci(interface, &id);
    if let Some(backend) = backend {
        domain.set(&format!("{keys}.backend"), backend, interface);
    }
    if let Some(mac) = interface.enter("mac") {
        domain.set_attr(&format!("{keys}.mac"), mac, "address");
    }
    if let Some(mtu) = interface.enter("mtu") {
        domain.set_attr(&format!("{keys}.mtu"), mtu, "size");
    }
    read_ends(domain, interface, kind, &keys);
    if let Some(driver) = interface.enter("driver") {
        read_driver(domain, driver, &keys);
    }
}

/// The host's end.
fn read_ends(domain: &mut Domain<'_>, interface: &Element, kind: &str, keys: &str) {
    if let Some(source) = interface.enter("source") {
        match kind {
            "bridge" => domain.set_attr(&format!("{keys}.tap.bridge"), source, "bridge"),
            // The bridge is there while the machine runs.
            "network" if source.attr("bridge").is_some() => {
                source.take_all();
                domain.set_attr(&format!("{keys}.tap.bridge"), source, "bridge");
            }
            "network" => {
                source.take_all();
                domain.lose(source, &print::fragment(source), NETWORK);
            }
            "direct" => {
                domain.set_attr(&format!("{keys}.tap.link"), source, "dev");
                if let Some("bridge" | "vepa" | "private" | "passthrough") = source.attr("mode") {
                    let mode = source.take("mode").unwrap_or_default();
                    let mode = if mode == "passthrough" { "passthru" } else { mode };
                    domain.set(&format!("{keys}.tap.mode"), mode, source);
                }
            }
            "vhostuser" => {
                source.take("type");
                domain.set_attr(&format!("{keys}.socket"), source, "path");
                source.take_if("mode", "client");
            }
            _ => {}
        }
    }
    let Some(target) = interface.enter("target") else { return };
    // A number at the end is libvirt's, for a running machine.
    if target.attr("dev").is_some_and(|dev| dev.starts_with("vnet") || dev.starts_with("macvtap")) {
        target.take("dev");
    } else {
        domain.set_attr(&format!("{keys}.tap.name"), target, "dev");
    }
    let create = match target.attr("managed") {
        Some("no") => "no",
        Some("yes") => "yes",
        _ => return,
    };
    target.take("managed");
    domain.set(&format!("{keys}.tap.create"), create, target);
}

fn read_driver(domain: &mut Domain<'_>, driver: &Element, keys: &str) {
    let vhost = match driver.attr("name") {
        Some("vhost") => Some("true"),
        Some("qemu") => Some("false"),
        _ => None,
    };
    if let Some(vhost) = vhost {
        driver.take("name");
        domain.set(&format!("{keys}.vhost"), vhost, driver);
    }
    domain.set_attr(&format!("{keys}.queues"), driver, "queues");
    // One size for both ways.
    if driver.attr("rx_queue_size").is_some() && driver.attr("rx_queue_size") == driver.attr("tx_queue_size")
    {
        driver.take("tx_queue_size");
        domain.set_attr(&format!("{keys}.queue_size"), driver, "rx_queue_size");
    }
}
