//! What a user reads, word for word: one snapshot per class of mistake.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p parador-config` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use parador_config::{Source, Tree};

fn judge(sources: &[Source<'_>]) -> String {
    let (tree, mut diagnostics) = Tree::from_sources(sources);
    let _ = tree.check(&mut diagnostics);
    diagnostics.to_string()
}

fn snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs", path.display());
}

fn file(name: &str, text: &str) {
    snapshot(name, &judge(&[Source::File { name: "web.conf", bytes: text.as_bytes() }]));
}

#[test]
fn unknown_key() {
    file("unknown_key", "memory.sise=1G\ncpu=2\nfrobnicate=1\nmemory.backng=anon\ndomain.0.size=1G\n");
}

#[test]
fn unknown_key_of_a_device() {
    file(
        "unknown_key_of_a_device",
        "cpus=1\ndevice.disk0.model=virtio-blk\n  device.disk0.pth=/vm/web/d.img\n\
         device.disk0.queue-size=8\ndevice.disk0.colour=red\n",
    );
}

#[test]
fn words_of_other_systems() {
    file(
        "words_of_other_systems",
        "memory=1G\nkernel=/boot/vmlinuz\nvcpus=4\ndevice.d.model=blk\ndevice.e.model=virtio-blk\n\
         device.e.readonly=on\ndevice.e.num_queues=4\ndevice.f.type=virtio-net\nfirmware=OVMF.fd\n\
         device.g.model=virtio-net\ndevice.g.bridge=br0\ndevice.h.model=vfio-pci\ndevice.g.backend=bridge\n",
    );
}

#[test]
fn bad_values() {
    file(
        "bad_values",
        "cpus=0\nthreads=010\nmemory.size=lots\nmemory.thp=maybe\nmemory.backing=memdf\nuuid=1\nconsole=tty\n\
         domains.0.cpus=3-1\ndevice.n.model=virtio-net\ndevice.n.mac=01:00:5e:00:00:01\n\
         device.n.addr=00:1f.0\ndevice.d.model=virtio-blk\ndevice.d.path=\ndevice.d.ser=a-serial-number-that-is-long\n\
         device.d.queue_size=1\n",
    );
}

#[test]
fn bad_values_of_other_kinds() {
    file(
        "bad_values_of_other_kinds",
        "boot.kernel_fd=2\nmemory.page_size=0x1G\nvcpu.0.cpuset=0-\nconfig.unknown=warning\ncpus=\nsockets=-1\n\
         cores=1.5\nthreads=99999999999999999999\nname=a-name-that-is-longer-than-the-64-bytes-that-a-name-may-have-at-most\n\
         device.n.model=virtio-net\ndevice.n.fd=3,3\ndevice.n.mtu=67\ndevice.n.backend=tun\n\
         device.m.model=virtio-nte\ndevice.d.model=virtio-blk\ndevice.d.zoned=host\ndevice.d.sectorsize=513\n",
    );
}

#[test]
fn keys_of_other_systems_are_judged_as_well() {
    file(
        "keys_of_other_systems",
        "device.n.model=nvme\ndevice.n.maxq=0\ndevice.n.max=1\ndevice.n.mac=52:54:00:12:34:56\n\
         device.a.model=ahci\ndevice.a.port.0.type=dvd\ndevice.a.port.0.pth=a.img\nx86.strictmrs=true\n\
         tpm.type=emulator\nlpc.com5.path=stdio\nbios.vendr=me\n",
    );
}

#[test]
fn wrong_model() {
    file("wrong_model", "device.net0.model=virtio-net\ndevice.net0.path=/dev/vda\n");
}

#[test]
fn no_model() {
    file("no_model", "device.disk0.path=/vm/d.img\ndevice.disk0.ro=true\n");
}

#[test]
fn set_twice() {
    file("set_twice", "cpus=1\nlpc.com1.path=stdio\ncpus=2\nconsole=none\n");
}

#[test]
fn a_synonym_is_shown_as_it_was_written() {
    file("synonym", "  lpc.com1.path=/dev/ttyS0\n");
}

#[test]
fn not_an_assignment() {
    file(
        "not_an_assignment",
        "cpus\nname = web\n=1\na..b=1\nmemory.size=1G \nboot.kernel= /k\nclé=1\n\u{1b}[2J=1\n",
    );
}

#[test]
fn windows_line_ends() {
    file("windows_line_ends", "cpus=2\r\nmemory.size=1G\r\n");
}

#[test]
fn not_text() {
    let bytes = b"cpus=1\nname=\xe9t\xe9\n";
    snapshot("not_text", &judge(&[Source::File { name: "latin1.conf", bytes }]));
}

#[test]
fn on_the_command_line() {
    snapshot(
        "on_the_command_line",
        &judge(&[
            Source::Option { argument: 3, text: "cpus:4" },
            Source::Option { argument: 5, text: "cpus=many" },
            Source::Option { argument: 7, text: "memory.page_sizes=2M" },
        ]),
    );
}

#[test]
fn references_that_lead_nowhere() {
    file(
        "references_that_lead_nowhere",
        "var.dir=/vm/%(nmae)\ndevice.d.model=virtio-blk\ndevice.d.path=%(var.dir)/%(.sre).img\n\
         var.a=%(boot.kernel)\nvar.b=50% of %(\nvar.c=a%()b\n",
    );
}

#[test]
fn references_in_a_circle() {
    file(
        "references_in_a_circle",
        "boot.cmdline=root=%(var.a)\nvar.a=<%(var.b)>\nvar.b=%(.a)\nvar.c=%(.c)\n",
    );
}

#[test]
fn references_that_nest_too_deep() {
    let links: String = (0..17).map(|n| format!("var.k{n}=%(.k{})\n", n + 1)).collect();
    file("references_that_nest_too_deep", &format!("{links}var.k17=x\n"));
}

#[test]
fn values_that_grow_without_bound() {
    let laughs: String =
        (0..9).map(|n| format!("var.l{n}={}\n", format!("%(.l{})", n + 1).repeat(10))).collect();
    file("values_that_grow_without_bound", &format!("{laughs}var.l9=lol\n"));
}

#[test]
fn an_expanded_value_is_shown_where_it_was_written() {
    file(
        "expanded_value",
        "var.n=fuor\ncpus=%(var.n)\nboot.kernel=%(var.dir)vmlinuz\nvar.dir= /boot/\npci.0.4.0.device=%(.type)\n\
         pci.0.4.0.type=blk\n",
    );
}

#[test]
fn names_of_bhyve() {
    file(
        "names_of_bhyve",
        "pci.0.4.0.device=virtio-blk\npci.0.4.0.pth=/a\npci.0.4.0.ro=maybe\npci.0.4.0.mtu=1500\n\
         device.pci-0-4-0.ro=true\npci.0.5.0.path=/b\npci.0.32.0.device=virtio-blk\npci.0.06.0.path=/c\n",
    );
}

#[test]
fn two_names_for_one_device() {
    file(
        "two_names",
        "device.disk0.model=virtio-blk\ndevice.disk0.addr=0:4.0\npci.0.4.0.path=/a\npci.0.4.0.device=virtio-blk\n\
         pci.0.5.0.device=virtio-rnd\ndevice.pci-0-5-0.addr=6\n",
    );
}

#[test]
fn keys_of_newer_versions() {
    let text = "config.optional=device.*.shiny,new.*\nnew.thing=1\nnewer=1\ndevice.d.model=virtio-blk\n\
                device.d.shiny=1\nfolder=/vm\ndevice.d.path=%(folder)/d.img\n";
    file("keys_of_newer_versions", text);
    file("unknown_keys_as_warnings", &format!("{text}config.unknown=warn\n"));
    let ignored = format!("{text}config.unknown=ignore\n");
    assert_eq!(judge(&[Source::File { name: "web.conf", bytes: ignored.as_bytes() }]), "");
}

#[test]
fn a_value_is_one_line() {
    let sources = [
        Source::Option { argument: 2, text: "boot.cmdline=quiet\nname=x" },
        Source::Unset { argument: 4, key: "memry" },
        Source::Unset { argument: 6, key: "boot.cmdlin" },
    ];
    snapshot("a_value_is_one_line", &judge(&sources));
    file("byte_order_mark", "\u{feff}cpus=2\n");
}

#[test]
fn a_good_file_says_nothing() {
    let text = "name=web\ncpus=4\nsockets=1\ncores=2\nthreads=2\nmemory.size=4G\nvar.disk=/vm/web\n\
                boot.kernel=/boot/vmlinuz\nboot.cmdline=root=/dev/vda1 console=ttyS0\nlpc.com1.path=stdio\n\
                device.root.model=virtio-blk\ndevice.root.path=/vm/web.img\ndevice.root.aio=io_uring\n\
                device.lan.model=virtio-net\ndevice.lan.tap.name=tap0\ndevice.lan.mac=52:54:00:12:34:56\n\
                device.con.model=virtio-console\ndevice.con.port.0.path=unix:/run/web.sock\n\
                device.rnd.model=virtio-rnd\ndevice.rnd.addr=0:9.0\nlog.level=info\n";
    assert_eq!(judge(&[Source::File { name: "web.conf", bytes: text.as_bytes() }]), "");
}

#[test]
fn typed_values_come_back() {
    let text = "device.b.model=virtio-blk\ndevice.a.model=virtio-console\ndomains.10.size=1G\n\
                domains.2.size=1G\ndevice.b.ro=on\n";
    let (tree, mut diagnostics) = Tree::from_sources(&[Source::File { name: "f", bytes: text.as_bytes() }]);
    let checked = tree.check(&mut diagnostics);
    assert_eq!(diagnostics.to_string(), "");
    let ids: Vec<&str> = checked.devices().iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids, ["b", "a"], "in the order of the file");
    assert_eq!(checked.children("domains"), ["2", "10"]);
    assert!(checked.bool("device.b.ro"));
    assert_eq!(checked.word("device.b.aio"), Some("io_uring"), "a default");
    assert_eq!(checked.int("memory.size"), Some(256 << 20));
    assert_eq!(checked.text("device.b.path"), None);
}
