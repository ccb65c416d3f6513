//! What no documentation shows: odd quotes, options in any order, words that nobody meant.

use std::collections::BTreeMap;

use parador_config::{Origin, Tree};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::bag::Bag;
use crate::format::{Format, Input, Output, export, import};
use crate::words::Word;

fn read(words: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let imported = import(Format::QemuArgs, Input::Arguments { first: 1, words: &words });
    imported.map(|imported| leaves(&imported.tree)).map_err(|wrong| wrong.to_string())
}

fn leaves(tree: &Tree) -> BTreeMap<String, String> {
    tree.in_order().into_iter().map(|(key, setting)| (key.to_owned(), setting.value.clone())).collect()
}

/// The leaves, whatever the order of what was kept.
fn unordered(tree: &Tree) -> (Vec<String>, Vec<String>) {
    let (mut kept, other): (Vec<_>, Vec<_>) =
        leaves(tree).into_iter().partition(|(key, _)| key.starts_with("engine."));
    kept.sort_by(|a, b| a.1.cmp(&b.1));
    let other = other.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    (kept.into_iter().map(|(_, value)| value).collect(), other)
}

fn written(tree: &Tree) -> Vec<String> {
    let exported = export(Format::QemuArgs, tree).unwrap();
    let Output::Arguments(words) = exported.output else { unreachable!("it is a command line") };
    words
}

fn bag(text: &str, first: Option<&str>) -> Bag {
    Bag::parse(&Word { text: text.to_owned(), origin: Origin::Argument(1) }, first).unwrap()
}

#[test]
fn commas_are_doubled_and_switches_need_no_value() {
    let bag = bag("socket,path=/a,,b=c,server,nowait,id=x", Some("backend"));
    for (name, value) in
        [("backend", "socket"), ("path", "/a,b=c"), ("server", "on"), ("wait", "off"), ("id", "x")]
    {
        assert_eq!(bag.peek(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(bag.human("backend"), "socket,path=/a,,b=c,server=on,wait=off,id=x");
}

#[test]
fn json_is_flattened_and_nested_again() {
    let text = r#"{"driver":"raw","file":{"driver":"file","filename":"/a","cache":{"direct":true}},"l":[1,{"str":"x"}]}"#;
    let bag = bag(text, None);
    assert_eq!(bag.peek("file.cache.direct").as_deref(), Some("on"));
    assert_eq!(bag.peek("l.1.str").as_deref(), Some("x"));
    assert_eq!(bag.json(), text);
}

#[test]
fn one_hyphen_or_two_and_values_that_look_like_options() {
    let tree = read(&["--m", "1.5G", "-append", "-x --y", "-unknown", "-daemonize", "disk.img", "-uuid"]);
    assert!(tree.unwrap_err().contains("`-uuid` needs a value\n  --> command line, argument 8"));
    let tree = read(&["--m", "1.5G", "-append", "-x --y", "-unknown", "-daemonize", "disk.img"]).unwrap();
    assert_eq!(tree["memory.size"], "1536M");
    assert_eq!(tree["boot.cmdline"], "-x --y");
    assert_eq!((&*tree["engine.qemu.arg.0"], &*tree["engine.qemu.arg.1"]), ("-unknown", "-daemonize"));
    assert_eq!(tree["device.ahci0.port.0.path"], "disk.img");
}

#[test]
fn a_name_or_an_option_that_is_wrong_has_its_place() {
    let wrong = read(&["-m", "1G", "-device", "virtio-net-pci,netdev=lan"]).unwrap_err();
    assert!(wrong.contains("nothing that is called `lan`\n  --> command line, argument 4"), "{wrong}");
    let wrong = read(&["-object", "{\"id\":1"]).unwrap_err();
    assert!(wrong.contains("this is not JSON\n  --> command line, argument 2"), "{wrong}");
    assert!(read(&["-"]).unwrap_err().contains("`-` is not an option"));
}

#[test]
fn legacy_networks_are_paired_only_if_that_is_clear() {
    let tree = read(&[
        "-net",
        "nic,model=virtio,macaddr=52:54:00:00:00:01",
        "-net",
        "tap,ifname=tap3,script=no,downscript=no",
    ]);
    let tree = tree.unwrap();
    assert_eq!(tree["device.net0.tap.name"], "tap3");
    assert_eq!(tree["device.net0.mac"], "52:54:00:00:00:01");
    let tree = read(&["-net", "nic", "-net", "nic", "-net", "user"]).unwrap();
    assert_eq!(tree["engine.qemu.arg.5"], "user");
}

#[test]
fn what_cannot_be_said_is_kept_whole_with_what_it_needs() {
    for drive in [
        "file=nbd:localhost:10809,if=none,id=d",
        "file=a.vmdk,format=vmdk,if=none,id=d",
        "file=a,snapshot=on,if=none,id=d",
    ] {
        let tree = read(&["-drive", drive, "-device", "virtio-blk-pci,drive=d"]).unwrap();
        assert_eq!(tree["engine.qemu.arg.1"], drive);
        assert_eq!(tree["engine.qemu.arg.3"], "virtio-blk-pci,drive=d");
        assert!(!tree.keys().any(|key| key.starts_with("device.")), "{tree:?}");
    }
}

#[test]
fn an_accelerator_comes_back() {
    for words in [&["-accel", "tcg"][..], &["-machine", "q35,accel=tcg"], &["-accel", "tcg,thread=single"]] {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let tree = import(Format::QemuArgs, Input::Arguments { first: 1, words: &words }).unwrap().tree;
        let words = written(&tree).join(" ");
        let machines = words.contains("accel=kvm") && words.contains("-machine accel=tcg");
        let own = words.contains("-accel tcg,thread=single") && !words.contains("accel=kvm");
        assert!(machines || own, "{words}");
    }
}

#[test]
fn ten_thousand_devices_are_read_and_written() {
    let mut words = Vec::new();
    for number in 0..10_000 {
        words.extend(["-drive".to_owned(), format!("file=/d{number},format=raw,if=none,id=d{number}")]);
        words.extend(["-device".to_owned(), format!("virtio-blk-pci,drive=d{number},iothread=io")]);
    }
    let tree = import(Format::QemuArgs, Input::Arguments { first: 1, words: &words }).unwrap().tree;
    assert_eq!(tree.devices().len(), 10_000);
    let line = written(&tree);
    assert!(line.iter().any(|word| word == "virtio-blk-pci,id=d9999,drive=d9999,iothread=io"));
}

/// Options of all kinds, some of which refer to each other.
const OPTIONS: &[&str] = &[
    "-m 1G",
    "-m 2G,slots=4,maxmem=8G",
    "-smp 4",
    "-smp 2,sockets=1,cores=2",
    "-smp 2,maxcpus=8,dies=2",
    "-name a,process=b",
    "-name b",
    "-machine q35,usb=off",
    "-M pc-q35-9.0",
    "-machine pc",
    "-M microvm,rtc=off",
    "-cpu host,+x2apic,pmu=off",
    "-cpu max,model-id=x",
    "-accel tcg",
    "-nodefaults",
    "-nographic",
    "-display gtk",
    "-serial stdio",
    "-serial tcp::1,server",
    "-serial none",
    "-serial unix:/s,server,nowait,logfile=x",
    "-S",
    "-s",
    "-gdb tcp::9",
    "-no-reboot",
    "-rtc base=localtime,clock=vm",
    "-hda a.img",
    "-cdrom b.iso",
    "c.qcow2",
    "-drive file=d,format=raw,if=virtio,cache=unsafe,werror=stop",
    "-drive file=e,format=qcow2,id=e,if=none,aio=native",
    "-drive if=pflash,format=raw,file=f,readonly=on",
    "-pflash g",
    "-drive file=h,if=scsi",
    "-device virtio-blk-pci,drive=e,iothread=io,addr=4.1",
    "-device nvme,drive=e,serial=x",
    "-blockdev driver=file,filename=i,node-name=i,cache.direct=on",
    "-device ide-cd,drive=i,bus=ide.1",
    "-device ide-hd,drive=i",
    "-device ahci,id=sata",
    "-device ide-hd,bus=sata.3,drive=e",
    "-object iothread,id=io",
    "-object rng-random,id=r,filename=/r",
    "-device virtio-rng-pci,rng=r,max-bytes=1,period=2",
    "-device virtio-rng",
    "-chardev socket,id=c,path=/c",
    "-chardev stdio,id=d,mux=on",
    "-chardev pty,id=p,logfile=/l",
    "-mon chardev=d",
    "-serial chardev:d",
    "-device isa-serial,chardev=p",
    "-device virtio-serial,id=vs,max_ports=3",
    "-device virtconsole,chardev=p",
    "-device virtserialport,chardev=d,name=n",
    "-device vhost-user-fs-pci,chardev=c,tag=t",
    "-device pci-serial,chardev=p,bus=x",
    "-netdev tap,id=t,ifname=t,br=x",
    "-netdev user,id=u,hostfwd=tcp::1-:2,hostfwd=udp::3-:4",
    "-device virtio-net-pci,netdev=t,rss=on",
    "-device e1000,netdev=u",
    "-device e1000e,netdev=u",
    "-nic user,model=rtl8139",
    "-nic tap,model=virtio",
    "-net nic",
    "-net user",
    "-virtfs local,path=/v,mount_tag=v,security_model=none",
    "-device qemu-xhci,id=x,p2=4",
    "-device usb-tablet,bus=x.0",
    "-device usb-kbd,bus=x.0",
    "-vnc :1",
    "-vnc none",
    "-device VGA,vgamem_mb=16",
    "-object memory-backend-memfd,id=m,size=1G,merge=off",
    "-machine memory-backend=m",
    "-numa node,memdev=m,cpus=0",
    "-numa node,nodeid=1,cpus=1-2,cpus=3",
    "-set device.x.p3=4",
    "-set a.b.c=d",
    "-device pvpanic",
    "-device pcie-root-port,id=rp,chassis=1",
    "-device virtio-balloon,bus=rp",
    "-frobnicate x",
    "-overcommit cpu-pm=on",
    "-smbios type=1,serial=a,,b,uuid=u",
    "-smbios type=4,asset=x",
    "-action panic=pause,shutdown=poweroff",
    "-boot order=c",
    "-sandbox on,spawn=deny",
    "-tpmdev emulator,id=tpm,chardev=c",
    "-device tpm-tis,tpmdev=tpm",
    "-device vfio-pci,host=1:0.0,x-vga=on",
    "-k de",
];

#[test]
fn memory_is_the_machines_or_the_nodes() {
    let words =
        "-object memory-backend-memfd,id=m,size=1G -machine memory-backend=m -numa node,memdev=m,cpus=0";
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let wrong =
        import(Format::QemuArgs, Input::Arguments { first: 1, words: &words }).unwrap_err().to_string();
    assert!(wrong.starts_with("error: the machine has a `memory-backend`, and its nodes"), "{wrong}");
    assert!(wrong.contains("argument 4"), "{wrong}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What was read once is read the same when it comes back, whatever it was.
    #[test]
    fn a_tree_of_any_options_comes_back(options in subsequence(OPTIONS, 1..14).prop_shuffle()) {
        let words: Vec<String> =
            options.iter().flat_map(|option| option.splitn(2, ' ')).map(str::to_owned).collect();
        if let Ok(imported) = import(Format::QemuArgs, Input::Arguments { first: 1, words: &words }) {
            let line = written(&imported.tree);
            let again = import(Format::QemuArgs, Input::Arguments { first: 1, words: &line[1..] });
            let again = again.map_err(|wrong| TestCaseError::fail(format!("{words:?}\n{line:?}\n{wrong}")))?;
            prop_assert_eq!(unordered(&again.tree), unordered(&imported.tree), "{:?}\n{:?}", words, line);
        }
    }

    #[test]
    fn any_words_are_read_or_refused(words in vec("[-{}\":,.=a-z0-9 ]{0,12}", 0..6)) {
        if let Ok(imported) = import(Format::QemuArgs, Input::Arguments { first: 1, words: &words }) {
            let line = written(&imported.tree);
            let again = import(Format::QemuArgs, Input::Arguments { first: 1, words: &line[1..] });
            prop_assert!(again.is_ok(), "{:?}", line);
        }
    }
}
