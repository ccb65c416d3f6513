//! libvirt's domain XML.
//!
//! What it says and no key does is kept as it is written, if it has one place in the document
//! ([`kept`]), and comes back to that place; the rest is lost with a word about it. What is only
//! libvirt's note of a running machine, or what every machine has, is neither.

mod fates;
mod kept;
mod print;
mod read;
mod units;
mod write;
mod xml;

pub(crate) use fates::FATES;
pub(crate) use read::import;
pub(crate) use write::export;

#[cfg(test)]
mod tests {
    use crate::format::{Format, Imported, Input, export, import};

    fn read(text: &str) -> Imported {
        import(Format::LibvirtXml, Input::Text { name: "f", bytes: text.as_bytes() }).unwrap()
    }

    fn value<'i>(imported: &'i Imported, key: &str) -> Option<&'i str> {
        imported.tree.setting(key).map(|setting| setting.value.as_str())
    }

    #[test]
    fn memory_that_the_guest_has_not_now_is_in_a_balloon() {
        let memory = "<memory unit='GiB'>4</memory><currentMemory unit='GiB'>3</currentMemory>";
        let balloon = "<devices><memballoon model='virtio'><alias name='ua-b'/></memballoon></devices>";
        let imported = read(&format!("<domain type='kvm'>{memory}{balloon}</domain>"));
        assert_eq!(value(&imported, "device.b.size"), Some("1G"));
        let imported = read(&format!("<domain type='kvm'>{memory}</domain>"));
        assert_eq!(value(&imported, "device.balloon0.size"), Some("1G"));
        let none = "<devices><memballoon model='none'/></devices>";
        let imported = read(&format!("<domain type='kvm'>{memory}{none}</domain>"));
        assert_eq!((value(&imported, "device.balloon0.size"), imported.losses.len()), (None, 1));
    }

    #[test]
    fn the_order_of_kinds_of_devices_becomes_that_of_devices_if_all_are_known() {
        let os = "<os><type>hvm</type><boot dev='network'/><boot dev='hd'/></os>";
        let known = "<interface type='bridge'><model type='virtio'/></interface>\
                     <disk type='file'><source file='/a'/><target dev='vda'/></disk>";
        let imported = read(&format!("<domain type='kvm'>{os}<devices>{known}</devices></domain>"));
        assert_eq!(value(&imported, "device.net0.bootindex"), Some("1"));
        assert_eq!(value(&imported, "device.vda.bootindex"), Some("2"));
        let unknown = "<disk type='network'><target dev='vdb'/></disk>";
        let imported = read(&format!("<domain type='kvm'>{os}<devices>{unknown}{known}</devices></domain>"));
        assert_eq!(value(&imported, "device.vda.bootindex"), None);
        assert_eq!(value(&imported, "engine.libvirt.arg.0"), Some("os <boot dev='network'/>"));
    }

    #[test]
    fn a_tree_that_a_document_cannot_say_loses_by_name() {
        let mut tree = parador_config::Tree::default();
        for (key, value) in [
            ("name", "web"),
            ("log.level", "info"),
            ("memory.size", "much"),
            ("cpus", "many"),
            ("boot.cmdline", "a\u{1}b"),
            ("boot.initrd", "/a\n/b"),
            ("device.a.model", "virtio-balloon"),
            ("device.b.model", "virtio-balloon"),
            ("device.c.model", "virtio-scsi"),
            ("device.d.model", "virtio-net"),
            ("device.d.backend", "netmap"),
            ("device.e.model", "virtio-rnd"),
            ("device.e.addr", "4:0.0"),
            ("device.f.model", "virtio-blk"),
            ("device.f.zoned", "host-managed"),
            ("device.f.ro", "perhaps"),
            ("device.f.socket", "/s"),
            ("engine.libvirt.arg.0", "<a"),
            ("engine.crosvm.arg.0", "--x"),
        ] {
            tree.set(key, value.to_owned(), parador_config::Origin::Argument(1));
        }
        let lost = export(Format::LibvirtXml, &tree).unwrap().losses;
        let lost: Vec<&str> = lost.iter().filter_map(|loss| loss.what.split('=').next()).collect();
        for key in [
            "log.level",
            "memory.size",
            "cpus",
            "boot.cmdline",
            "boot.initrd",
            "device.b.model",
            "device.c.model",
            "device.d.model",
            "device.d.backend",
            "device.e.addr",
            "device.f.zoned",
            "device.f.ro",
            "device.f.socket",
            "engine.libvirt.arg.0",
            "engine.crosvm.arg.0",
        ] {
            assert!(lost.contains(&key), "{key} is not in {lost:?}");
        }
        assert_eq!(lost.len(), 15, "{lost:?}");
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut tree = parador_config::Tree::default();
        for (key, value) in [("cpus", "0x10"), ("device.a.model", "virtio-net"), ("device.a.queues", "0x2")] {
            tree.set(key, value.to_owned(), parador_config::Origin::Argument(1));
        }
        let written = export(Format::LibvirtXml, &tree).unwrap().output.to_string();
        assert!(written.contains("<vcpu>16</vcpu>") && written.contains("queues='2'"), "{written}");
    }

    #[test]
    fn a_document_of_many_devices_is_read_and_written() {
        let many: String =
            (0..10_000).map(|_| "<rng model='virtio'><backend model='random'/></rng><hub/>").collect();
        let imported = read(&format!("<domain type='kvm'><devices>{many}</devices></domain>"));
        assert_eq!(value(&imported, "device.rng9999.model"), Some("virtio-rnd"));
        // So many of another kind are not all kept.
        assert_eq!(imported.losses.len(), 10_000 - super::kept::MAX_COUNT);
    }

    proptest::proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "(<(domain|devices|disk|target|source|os|address)( (type|dev|bus|file)='(kvm|pci|vda|sata|[0-9]{1,3})'){0,3}/?>|</(domain|devices|disk)>|[a-z<>&;' ]{0,3}){0,40}") {
            let text = format!("<domain>{text}</domain>");
            let input = Input::Text { name: "f", bytes: text.as_bytes() };
            if let Ok(imported) = import(Format::LibvirtXml, input) {
                let _ = export(Format::LibvirtXml, &imported.tree);
            }
        }
    }
}
