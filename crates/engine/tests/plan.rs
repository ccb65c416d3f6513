//! What a plan refuses, word for word, and what it decides.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use parador_config::{Diagnostics, Origin, Source, Tree};
use parador_engine::{
    Aio, Alone, Backing, Create, Domain, Interface, InterfaceKind, Model, Plan, Processors, Remote, Tap,
};

fn plan(text: &str) -> (Option<Plan>, Diagnostics) {
    let (tree, mut diagnostics) =
        Tree::from_sources(&[Source::File { name: "web.conf", bytes: text.as_bytes() }]);
    let keys = tree.check(&mut diagnostics);
    (Plan::new(&keys, &mut diagnostics), diagnostics)
}

fn decided(text: &str) -> Plan {
    let (plan, diagnostics) = plan(&format!("boot.kernel=/boot/vmlinuz\n{text}"));
    assert_eq!(diagnostics.to_string(), "");
    plan.unwrap()
}

/// Compares what is said about `text` with a file; `UPDATE_SNAPSHOTS=1` writes it anew.
fn refused(name: &str, text: &str) {
    let (plan, diagnostics) = plan(text);
    assert!(plan.is_none());
    said(name, &diagnostics);
}

fn said(name: &str, diagnostics: &Diagnostics) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name).with_extension("txt");
    let text = diagnostics.to_string();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{} differs", path.display());
}

#[test]
fn nothing_to_start() {
    refused("nothing_to_start", "cpus=1\n");
}

#[test]
fn processors_that_do_not_multiply() {
    refused("processors", "boot.kernel=k\ncpus=6\nsockets=2\nthreads=2\n");
}

#[test]
fn huge_pages_of_no_size() {
    refused("huge_pages", "boot.kernel=k\nmemory.backing=hugetlb\nmemory.page_size=64K\n");
}

#[test]
fn devices_that_lack_something() {
    refused(
        "devices_lack",
        "boot.kernel=k\ndevice.d.model=virtio-blk\ndevice.n.model=virtio-net\ndevice.f.model=virtio-net\n\
         device.f.backend=fd\ndevice.v.model=virtio-vsock\ndevice.v.cid=3\n",
    );
}

#[test]
fn zones_that_cannot_be() {
    refused(
        "zones",
        "boot.kernel=k\ndevice.a.model=virtio-blk\ndevice.a.path=a.img\ndevice.a.zoned=host-managed\ndevice.a.ro=true\n\
         device.a.nocache=true\ndevice.a.sectorsize=512/4096\ndevice.b.model=virtio-blk\ndevice.b.path=b.img\n\
         device.b.zone_size=64M\ndevice.b.power_cut=true\ndevice.c.model=virtio-blk\ndevice.c.backend=vhost-user\ndevice.c.socket=s\n\
         device.c.zoned=host-managed\ndevice.c.max_open=8\ndevice.d.model=virtio-blk\ndevice.d.path=d.img\n\
         device.d.zoned=host-managed\ndevice.d.zone_size=48\ndevice.e.model=virtio-blk\ndevice.e.path=/dev/nullb0\n\
         device.e.zoned=passthrough\ndevice.e.ro=true\ndevice.e.nocache=true\ndevice.e.sectorsize=512/4096\ndevice.e.max_open=8\n",
    );
}

#[test]
fn a_disk_has_zones_if_it_is_said() {
    let plan = decided(
        "device.a.model=virtio-blk\ndevice.a.path=a.img\ndevice.a.zoned=host-managed\n\
         device.b.model=virtio-blk\ndevice.b.path=b.img\ndevice.b.zoned=none\n\
         device.c.model=virtio-blk\ndevice.c.path=/dev/nullb0\ndevice.c.zoned=passthrough\n",
    );
    let zoned = plan.devices.iter().map(|device| match &device.model {
        Model::Block(block) => block.zones.is_some(),
        _ => unreachable!("{device:?}"),
    });
    assert_eq!(zoned.collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn addresses_that_clash() {
    refused(
        "addresses",
        "boot.kernel=k\ndevice.a.model=virtio-rnd\ndevice.a.addr=0:0.0\ndevice.b.model=virtio-rnd\n\
         device.b.addr=0:4.0\ndevice.c.model=virtio-rnd\ndevice.c.addr=0:4.0\n",
    );
}

#[test]
fn what_only_other_systems_have() {
    refused(
        "not_there_yet",
        "boot.kernel=k\nbootrom=/fw.fd\nrtc.use_localtime=yes\nx86.x2apic=true\nkeyboard.layout=uk\n\
         destroy_on_poweroff=true\nacpi_tables=true\ndevice.h.model=hostbridge\ndevice.h.pcireg.vendor=0x1022\n\
         device.q.model=virtio-blk\ndevice.q.path=q.img\ndevice.q.format=qcow2\ndevice.q.zoned=none\n\
         device.n.model=nvme\ndevice.n.path=n.img\ndevice.e.model=virtio-net\ndevice.e.backend=vdpa\n\
         device.e.tap.name=tap0\ndevice.e.tap.bridge=br0\n",
    );
}

#[test]
fn what_only_other_systems_have_may_be_optional() {
    let plan = decided("system.sku=1\nbootrom=/fw.fd\nconfig.optional=system.*,bootrom\n");
    assert_eq!(plan.boot.kernel.path, Path::new("/boot/vmlinuz"));
}

#[test]
fn one_standard_input_for_two() {
    refused(
        "stdio_twice",
        "boot.kernel=k\nconsole=stdio\ndevice.c.model=virtio-console\ndevice.c.port.0.path=stdio\n",
    );
}

#[test]
fn domains_that_are_not_the_machine() {
    refused("domain_gap", "boot.kernel=k\ndomains.0.size=128M\ndomains.2.size=128M\n");
    refused("domain_memory", "boot.kernel=k\ndomains.0.size=128M\ndomains.0.cpus=0\n");
    refused(
        "domain_cpus",
        "boot.kernel=k\ncpus=4\ndomains.0.size=128M\ndomains.0.cpus=0-1\ndomains.1.size=128M\n\
         domains.1.cpus=1,9\n",
    );
    refused("domain_cpu_left", "boot.kernel=k\ncpus=4\ndomains.0.size=256M\ndomains.0.cpus=0-2\n");
}

#[test]
fn keys_without_effect_are_named() {
    let (plan, diagnostics) = plan(
        "boot.kernel=k\nmemory.page_size=2M\ndevice.n.model=virtio-net\ndevice.n.tap.name=tap0\ndevice.n.fd=5\n\
         device.n.tap.link=eth0\n",
    );
    assert!(plan.is_some(), "a warning is no error");
    said("without_effect", &diagnostics);
}

#[test]
fn a_machine_by_default() {
    let plan = decided("");
    assert_eq!(plan.processors, Processors { sockets: 1, cores: 1, threads: 1 });
    assert_eq!((plan.memory.size, plan.memory.backing), (256 << 20, Backing::Anonymous));
    assert!(plan.reboot && plan.stop_on_panic && plan.domains.is_empty() && plan.devices.is_empty());
}

#[test]
fn processors_not_accounted_for_are_cores() {
    assert_eq!(decided("cpus=8\n").processors, Processors { sockets: 1, cores: 8, threads: 1 });
    assert_eq!(decided("cpus=8\nthreads=2\n").processors, Processors { sockets: 1, cores: 4, threads: 2 });
    assert_eq!(decided("sockets=2\ncores=3\n").processors.count(), 6);
}

#[test]
fn devices_in_the_order_of_the_file() {
    let plan = decided(
        "device.root.model=virtio-blk\ndevice.root.path=/r\ndevice.root.aio=threads\ndevice.root.queues=2\n\
         device.data.model=virtio-blk\ndevice.data.path=/d\ndevice.data.ro=on\ndevice.data.addr=0:9.0\n\
         device.lan.model=virtio-net\ndevice.lan.tap.name=tap0\n",
    );
    let ids: Vec<&str> = plan.devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["root", "data", "lan"]);
    let Model::Block(root) = &plan.devices[0].model else { unreachable!("a disk") };
    assert_eq!((root.aio, root.queues, root.queue_size, root.read_only), (Aio::Threads, 2, 256, false));
    let slots: Vec<u8> = plan.devices.iter().map(|device| device.address.slot).collect();
    assert_eq!(slots, [1, 9, 2], "what was asked for is given first");
    let Model::Net(lan) = &plan.devices[2].model else { unreachable!("an interface") };
    let kind = InterfaceKind::Tap { bridge: None, owner: None };
    let tap0 = Interface { name: "tap0".to_owned(), create: Create::IfMissing, kind };
    assert_eq!((&lan.tap, lan.queue_pairs), (&Tap::Interface(tap0), 1));
}

#[test]
fn interfaces_of_the_host() {
    let plan = decided(
        "name=web\ndevice.a.model=virtio-net\ndevice.a.tap.bridge=br0\ndevice.a.queues=2\n\
         device.b.model=virtio-net\ndevice.b.backend=macvtap\ndevice.b.tap.link=eth0\ndevice.b.tap.create=yes\n\
         device.c.model=virtio-net\ndevice.c.backend=fd\ndevice.c.fd=7,9\n",
    );
    let nets: Vec<_> = plan
        .devices
        .iter()
        .map(|device| if let Model::Net(net) = &device.model { net } else { unreachable!("an interface") })
        .collect();
    let bridge = InterfaceKind::Tap { bridge: Some("br0".to_owned()), owner: None };
    let a = Interface { name: "web-a".to_owned(), create: Create::IfMissing, kind: bridge };
    assert_eq!((&nets[0].tap, nets[0].queue_pairs), (&Tap::Interface(a), 2));
    let over = InterfaceKind::Macvtap { link: "eth0".to_owned(), mode: "bridge" };
    let b = Interface { name: "web-b".to_owned(), create: Create::Always, kind: over };
    assert_eq!(nets[1].tap, Tap::Interface(b));
    assert_eq!((&nets[2].tap, nets[2].queue_pairs), (&Tap::Descriptors(vec![7, 9]), 2));
}

#[test]
fn interfaces_that_cannot_be() {
    refused(
        "interfaces",
        "boot.kernel=k\ndevice.a.model=virtio-net\ndevice.a.tap.name=tap0\ndevice.b.model=virtio-net\n\
         device.b.tap.name=tap0\ndevice.c.model=virtio-net\ndevice.c.tap.name=tap%d\n\
         device.d.model=virtio-net\ndevice.d.backend=macvtap\ndevice.e.model=virtio-net\n\
         device.e.backend=fd\ndevice.e.fd=3,4\ndevice.e.queues=3\n",
    );
}

#[test]
fn processors_may_be_pinned() {
    let plan = decided("cpus=4\nvcpu.0.cpuset=1\nvcpu.3.cpuset=0,2-3\n");
    assert_eq!(plan.affinity.into_iter().collect::<Vec<_>>(), [(0, vec![1]), (3, vec![0, 2, 3])]);
    refused("pinning", "boot.kernel=k\nvcpu.1.cpuset=0\nmemory.wired=true\ndevice.b.model=virtio-balloon\n");
}

#[test]
fn domains_are_the_whole_machine() {
    let plan = decided(
        "cpus=4\nmemory.size=1G\ndomains.0.size=256M\ndomains.0.cpus=0,2\ndomains.1.size=768M\ndomains.1.cpus=1,3\n",
    );
    assert_eq!(plan.domains[1], Domain { size: 768 << 20, cpus: vec![1, 3] });
}

#[test]
fn devices_of_other_processes() {
    let plan = decided(
        "device.d.model=virtio-blk\ndevice.d.backend=vhost-user\ndevice.d.socket=/d\ndevice.d.queues=2\n\
         device.d.queue_size=64\ndevice.n.model=virtio-net\ndevice.n.backend=vhost-user\n\
         device.n.socket=/n\ndevice.n.queues=2\ndevice.n.mac=02:00:00:00:00:01\n\
         device.f.model=virtio-fs\ndevice.f.sharename=data\ndevice.f.socket=/f\ndevice.f.queue_size=512\n\
         device.s.model=vhost-user\ndevice.s.virtio_type=sound\ndevice.s.socket=/s\n\
         device.x.model=vhost-user\ndevice.x.virtio_type=40\ndevice.x.socket=/x\ndevice.x.queue_sizes=64,128\n\
         device.x.config_size=8\n",
    );
    let at = |socket: &str, kind| Remote { kind, socket: socket.into(), ..Remote::default() };
    let expected = [
        Remote { queues: Some(2), queue_sizes: Some(vec![64, 64]), ..at("/d", 2) },
        Remote { queues: Some(5), mac: Some([2, 0, 0, 0, 0, 1]), ..at("/n", 1) },
        Remote { tag: Some("data".to_owned()), queue_sizes: Some(vec![512, 512]), ..at("/f", 26) },
        at("/s", 25),
        Remote { queue_sizes: Some(vec![64, 128]), config_len: 8, ..at("/x", 40) },
    ];
    assert_eq!(plan.devices.len(), expected.len());
    for (device, expected) in plan.devices.into_iter().zip(expected) {
        assert_eq!(device.model, Model::Remote(expected));
    }
    assert_eq!((plan.memory.backing, plan.memory.shared), (Backing::Memfd, true), "by itself");
}

#[test]
fn what_makes_no_sense_for_devices_of_other_processes() {
    refused(
        "remote",
        "boot.kernel=k\nmemory.shared=no\nmemory.backing=anon\n\
         device.d.model=virtio-blk\ndevice.d.backend=vhost-user\ndevice.d.path=a.img\ndevice.d.ro=yes\n\
         device.d.queue_size=100\ndevice.n.model=virtio-net\ndevice.n.backend=vhost-user\ndevice.n.socket=/n\n\
         device.n.tap.name=tap0\ndevice.f.model=virtio-fs\ndevice.f.sharename=f\n\
         device.g.model=vhost-user\ndevice.g.virtio_type=floppy\ndevice.g.socket=/g\n\
         device.h.model=vhost-user\ndevice.h.virtio_type=4\ndevice.h.socket=/h\ndevice.h.queue_sizes=64,65\n",
    );
    let (plan, diagnostics) =
        plan("boot.kernel=k\ndevice.d.model=virtio-blk\ndevice.d.path=p\ndevice.d.socket=s\n");
    assert!(plan.is_some());
    assert!(diagnostics.to_string().contains("`device.d.socket` has no effect"), "{diagnostics}");
}

/// What is said about a device that has a process of its own.
fn alone(model: &str, text: &str) -> (Option<Alone>, Diagnostics) {
    let (tree, mut diagnostics) =
        Tree::from_sources(&[Source::File { name: "web.conf", bytes: text.as_bytes() }]);
    let mut tree = tree.of_device("it");
    tree.set("device.it.model", model, Origin::Argument(2));
    let keys = tree.check(&mut diagnostics);
    let alone = Alone::new(&keys, &mut diagnostics);
    (alone, diagnostics.of_device("it"))
}

#[test]
fn a_device_alone_is_decided_as_one_of_a_machine() {
    let text = "path=/vm/%(var.x).img\nvar.x=a\nlog.level=debug\nqueues=2\n";
    let (found, diagnostics) = alone("virtio-blk", text);
    assert_eq!(diagnostics.to_string(), "");
    let plan = decided("device.it.model=virtio-blk\ndevice.it.path=/vm/a.img\ndevice.it.queues=2\n");
    assert_eq!(found.unwrap().model, plan.devices[0].model);
}

#[test]
fn a_device_alone_has_no_machine() {
    for (name, model, text) in [
        ("alone_keys", "virtio-blk", "pth=x\naddr=0:3.0\ncpus=2\naio=native\n"),
        ("alone_remote", "virtio-net", "backend=vhost-user\nsocket=s\n"),
        ("alone_net", "virtio-net", "mac=02:00:00:00:00:01\n"),
    ] {
        let (found, diagnostics) = alone(model, text);
        assert_eq!(found, None);
        said(name, &diagnostics);
    }
}
