//! A real QEMU takes what is exported for it, and builds what the tree says.
//!
//! QEMU is started by TCG and stopped before the guest's first instruction, and asked over QMP.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod machine;
mod qmp;

use serde_json::{Value, json};

use machine::Machine;

const DISKS: &str = "\
name=disks, and more
uuid=12345678-9abc-4def-8123-456789abcdef
cpus=4
sockets=1
cores=2
threads=2
memory.size=256M
console=unix:DIR/com1
device.root.model=virtio-blk
device.root.path=DIR/a,b.img
device.root.queues=2
device.root.queue_size=128
device.root.ser=root-1
device.root.sectorsize=512/4096
device.root.nocache=true
device.root.aio=threads
device.data.model=virtio-blk
device.data.path=DIR/b.img
device.data.ro=true
device.data.sync=true
device.data.nodelete=true
device.fast.model=nvme
device.fast.path=DIR/c.img
device.fast.addr=0:9.0
device.sata.model=ahci
device.sata.port.0.type=hd
device.sata.port.0.path=DIR/d.img
device.sata.port.0.ser=sata-1
device.sata.port.2.type=cd
device.sata.port.2.path=DIR/e.img
device.rng0.model=virtio-rnd
device.rng0.path=/dev/urandom
device.balloon0.model=virtio-balloon
";

#[test]
fn disks_memory_and_processors_are_as_the_tree_says() {
    let mut machine = Machine::start(DISKS).unwrap();
    machine.compare().unwrap();
    let name = machine.ask("query-name");
    assert_eq!(name["name"], "disks, and more");
    assert_eq!(machine.ask("query-uuid")["UUID"], "12345678-9abc-4def-8123-456789abcdef");
    for (device, property, value) in [
        ("root", "num-queues", json!(2)),
        ("root", "queue-size", json!(128)),
        ("root", "serial", json!("root-1")),
        ("root", "logical_block_size", json!(512)),
        ("root", "physical_block_size", json!(4096)),
        ("data", "write-cache", json!("off")),
        ("fast", "serial", json!("fast")),
        ("sata-0", "serial", json!("sata-1")),
        ("balloon0", "deflate-on-oom", json!(true)),
        ("balloon0", "free-page-reporting", json!(true)),
    ] {
        assert_eq!(machine.property(device, property), value, "{device}.{property}");
    }
    assert_eq!(machine.node("root")["cache"]["direct"], true);
    assert_eq!(machine.node("data")["cache"]["direct"], false);
    let processors = machine.ask("query-cpus-fast");
    let last = &processors.as_array().unwrap()[3]["props"];
    assert_eq!((&last["core-id"], &last["thread-id"]), (&json!(1), &json!(1)), "{last}");
    // Devices without an address take the first free slots, in order.
    assert_eq!(machine.slots(), [1, 2, 3, 4, 5, 9]);
}

const MEMORY: &str = "\
cpus=3
memory.size=192M
memory.backing=memfd
memory.shared=true
memory.prefault=true
domains.0.size=64M
domains.0.cpus=0,2
domains.1.size=128M
domains.1.cpus=1
memory.max=1G
console=none
lpc.com2.path=pty
on_panic=ignore
on_reset=stop
rtc.use_localtime=true
system.serial_number=ds=nocloud;s=http://10.0.2.2:8000/, or so
";

#[test]
fn memory_is_divided_and_shared() {
    let mut machine = Machine::start(MEMORY).unwrap();
    machine.compare().unwrap();
    let mut memory = machine.ask("query-memdev");
    let memory = memory.as_array_mut().unwrap();
    memory.sort_by_key(|object| object["id"].to_string());
    let sizes: Vec<_> = memory.iter().map(|object| object["size"].as_u64().unwrap() >> 20).collect();
    assert_eq!(sizes, [64, 128]);
    assert!(memory.iter().all(|object| object["share"] == true && object["prealloc"] == true));
    let processors = machine.ask("query-cpus-fast");
    let nodes: Vec<_> =
        processors.as_array().unwrap().iter().map(|cpu| cpu["props"]["node-id"].as_u64().unwrap()).collect();
    assert_eq!(nodes, [0, 1, 0]);
    let devices = machine.ask("query-chardev");
    let ends: Vec<_> = devices.as_array().unwrap().iter().map(|end| end["label"].as_str().unwrap()).collect();
    assert!(ends.contains(&"com1") && ends.contains(&"com2"), "{ends:?}");
}

const NETWORK: &str = "\
memory.size=128M
console=file:DIR/com1
device.lan.model=virtio-net
device.lan.tap.name=tap0
device.lan.mac=52:54:00:12:34:56
device.lan.mtu=1400
device.lan.queues=2
device.nat.model=virtio-net
device.nat.backend=user
device.nat.hostfwd=tcp:127.0.0.1:2222-:22;udp::53-:53
device.old.model=e1000
device.old.tap.name=tap1
device.old.mac=52:54:00:12:34:57
device.old.addr=0:20.0
device.alone.model=virtio-net
device.alone.backend=none
device.alone.addr=0:20.3
";

#[test]
fn networks_are_as_the_tree_says() {
    let mut machine = Machine::start(NETWORK).unwrap();
    machine.compare().unwrap();
    assert_eq!(machine.property("lan", "mac"), "52:54:00:12:34:56");
    assert_eq!(machine.property("lan", "host_mtu"), 1400);
    assert_eq!(machine.property("lan", "mq"), true);
    assert_eq!(machine.property("old", "mac"), "52:54:00:12:34:57");
    let text = machine.ask_human("info network");
    for part in ["ifname=tap0", "ifname=tap1,script=no", "net=10.0.2.0"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(machine.ask_human("info usernet").contains("2222"));
}

const OTHERS: &str = "\
cpus=1
memory.size=128M
bootrom=DIR/rom.fd
bootvars=DIR/vars.fd
console=none
device.con.model=virtio-console
device.con.port.0.path=unix:DIR/con
device.con.port.1.path=pty
device.con.port.1.name=org.example.0
device.share.model=virtio-9p
device.share.path=DIR
device.share.sharename=tag
device.share.ro=true
device.usb.model=xhci
device.usb.slot.1.device=tablet
device.screen.model=fbuf
device.screen.rfb=unix:DIR/vnc
device.screen.w=800
device.screen.h=600
device.line.model=uart
device.line.path=none
engine.qemu.arg.0=-object
engine.qemu.arg.1=iothread,id=io1
engine.qemu.arg.2=-set
engine.qemu.arg.3=device.disk.iothread=io1
engine.qemu.arg.4=-set
engine.qemu.arg.5=blockdev.disk.detect-zeroes=unmap
engine.qemu.arg.6=-device
engine.qemu.arg.7=usb-kbd,id=keys,bus=usb.0
engine.qemu.arg.8=-rtc
engine.qemu.arg.9=driftfix=slew
engine.qemu.arg.10=-smp
engine.qemu.arg.11=maxcpus=4
engine.qemu.arg.12=-name
engine.qemu.arg.13=debug-threads=on
device.disk.model=virtio-blk
device.disk.path=DIR/a,b.img
";

#[test]
fn consoles_shares_and_what_was_kept_are_there() {
    let mut machine = Machine::start(OTHERS).unwrap();
    machine.compare().unwrap();
    assert_eq!(machine.property("share", "mount_tag"), "tag");
    assert_eq!(machine.property("screen", "xres"), 800);
    assert_eq!(machine.property("con-1", "name"), "org.example.0");
    assert_eq!(machine.property("disk", "iothread"), "/objects/io1");
    assert_eq!(machine.node("disk")["detect_zeroes"], "unmap");
    let there = machine.ask_with("qom-list", &json!({ "path": "/machine/peripheral" }));
    for name in ["usb-1", "keys", "con-0", "line"] {
        assert!(there.as_array().unwrap().iter().any(|item| item["name"] == name), "{name}: {there}");
    }
    assert_eq!(machine.ask("query-vnc")["enabled"], true);
    let flash: Vec<Value> = ["bootrom", "bootvars"].map(|name| machine.node(name)["ro"].clone()).into();
    assert_eq!(flash, [json!(true), json!(false)]);
}

const LIBVIRT: &str = r#"qemu-system-x86_64 -name guest=web,debug-threads=on -no-user-config -nodefaults -display none \
-machine pc-q35-9.2,accel=tcg,usb=off,vmport=off,dump-guest-core=off,memory-backend=pc.ram,hpet=off \
-m size=131072k -smp 2,maxcpus=4,sockets=4,cores=1,threads=1 -overcommit mem-lock=off -rtc base=utc,driftfix=slew \
-object '{"qom-type":"memory-backend-memfd","id":"pc.ram","share":true,"merge":false,"size":134217728}' \
-boot strict=on -action reboot=shutdown \
-device '{"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"}' \
-device '{"driver":"pcie-root-port","port":17,"chassis":2,"id":"pci.2","bus":"pcie.0","addr":"0x2.0x1"}' \
-device '{"driver":"qemu-xhci","p2":15,"p3":15,"id":"usb","bus":"pci.2","addr":"0x0"}' \
-blockdev '{"driver":"file","filename":"DIR/b.img","node-name":"libvirt-1-storage","auto-read-only":true,"discard":"unmap"}' \
-blockdev '{"node-name":"libvirt-1-format","read-only":false,"discard":"unmap","driver":"raw","file":"libvirt-1-storage"}' \
-device '{"driver":"virtio-blk-pci","bus":"pci.1","addr":"0x0","drive":"libvirt-1-format","id":"virtio-disk0","bootindex":1}' \
-chardev pty,id=charserial0 -device '{"driver":"isa-serial","chardev":"charserial0","id":"serial0","index":0}' \
-device '{"driver":"virtio-serial-pci","id":"channels","bus":"pcie.0","addr":"0x3"}' \
-chardev socket,id=agent,path=DIR/agent,server=on,wait=off,logfile=DIR/agent.log \
-device '{"driver":"virtserialport","bus":"channels.0","nr":1,"chardev":"agent","id":"ch0","name":"org.qemu.guest_agent.0"}' \
-device '{"driver":"usb-kbd","id":"keyboard","bus":"usb.0","port":"1"}' -msg timestamp=on
"#;

#[test]
fn a_command_line_that_comes_back_makes_the_same_machine() {
    let mut machine = Machine::start_again(LIBVIRT).unwrap();
    for (device, bus) in [("virtio-disk0", "pci.1"), ("usb", "pci.2")] {
        let found = machine.property(device, "parent_bus");
        assert_eq!(found, format!("/machine/peripheral/{bus}/{bus}"), "{device}");
    }
    assert_eq!(machine.property("usb", "p2"), 15);
    assert_eq!(machine.property("channels-0", "name"), "org.qemu.guest_agent.0");
    assert_eq!(machine.ask("query-cpus-fast").as_array().map(Vec::len), Some(2));
    assert_eq!(machine.ask("query-memdev")[0]["merge"], false);
    let text = machine.ask_human("info usb");
    assert!(text.contains("ID: keyboard"), "{text}");
}

const MICROVM: &str = "\
machine.type=microvm
cpus=2
memory.size=128M
console=pty
device.root.model=virtio-blk
device.root.path=DIR/b.img
device.rng0.model=virtio-rnd
";

#[test]
fn a_microvm_has_its_devices_without_pci() {
    let mut machine = Machine::start(MICROVM).unwrap();
    assert_eq!(machine.property("root", "type"), "virtio-blk-device");
    assert_eq!(machine.property("rng0", "type"), "virtio-rng-device");
    assert_eq!(machine.node("root")["drv"], "raw");
}
