//! `parador image`: files of disks, with zones and without.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use crate::device::{connect, features};
use crate::machine::{kvm, signal, wait};
use crate::payload::Code;
use crate::{Ended, Place};

/// A place with `z.img`: sixteen zones of 1 MiB, two of them conventional, 768 KiB in each of the others.
fn zones() -> Place {
    let place = Place::new();
    let made = place.run(&[
        "image",
        "create",
        "--zoned",
        "z.img",
        "--size=16M",
        "--zone-size=1M",
        "--zone-capacity=768K",
        "--conventional=2",
        "--max-open=4",
        "--max-active=6",
    ]);
    said(&made, "z.img: 16M, 14 zones of 1M, 2 conventional\n");
    place
}

/// That it ended well, and said just this.
fn said(ended: &Ended, expected: &str) {
    assert_eq!(
        (ended.status, ended.stdout.as_str(), ended.stderr.as_str()),
        (Some(0), expected, ""),
        "{ended:?}"
    );
}

/// Changes a byte.
fn spoil(place: &Place, offset: u64) {
    let file = File::options().read(true).write(true).open(place.path("z.img")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// The conditions of all zones, in the letters of the map.
fn letters(place: &Place) -> String {
    let map = place.run(&["image", "report", "--map", "z.img"]).stdout;
    map.lines().nth(1).unwrap().split_whitespace().skip(1).collect()
}

#[test]
fn an_image_says_what_it_was_made_to_be() {
    let place = zones();
    let info = place.run(&["image", "info", "z.img"]).stdout;
    for line in [
        "z.img: a zoned disk of 16M, not in use",
        "zones         16 of 1M, the first 2 conventional",
        "capacity      768K of each",
        "open          at most 4",
        "active        at most 6",
        "append        at most 768K",
        "block         4K",
        "now           2 conventional, 14 empty",
    ] {
        assert!(info.lines().any(|other| other == line), "{line}\n{info}");
    }
    let info: serde_json::Value =
        serde_json::from_str(&place.run(&["image", "info", "--json", "z.img"]).stdout).unwrap();
    let metadata = place.path("z.img").metadata().unwrap();
    for (name, value) in [
        ("size", 16 << 20),
        ("zones", 16),
        ("zone_size", 1 << 20),
        ("zone_capacity", 768 << 10),
        ("conventional", 2),
        ("max_open", 4),
        ("max_active", 6),
        ("max_append", 768 << 10),
        ("block_size", 4096),
        ("file_size", metadata.len()),
        ("space_taken", metadata.blocks() * 512),
    ] {
        assert_eq!(info[name], value, "{name}");
    }
    assert_eq!(
        (&info["in_use"], &info["closed"], &info["conditions"]["empty"]),
        (&false.into(), &true.into(), &14.into())
    );
    assert!(metadata.blocks() * 512 < 1 << 20, "it is sparse");
}

#[test]
fn what_is_not_said_is_what_linux_likes() {
    let place = Place::new();
    said(
        &place.run(&["image", "create", "--zoned", "z.img", "--size", "64G"]),
        "z.img: 64G, 1024 zones of 64M\n",
    );
    let info = place.run(&["image", "info", "z.img"]).stdout;
    assert!(info.contains("open          at most 128") && info.contains("at most 1016K"), "{info}");
    assert!(!info.contains("capacity"), "{info}");
}

#[test]
fn a_report_has_the_lines_of_blkzone() {
    let place = zones();
    said(&place.run(&["image", "inject", "offline", "15", "z.img"]), "");
    let report = place.run(&["image", "report", "z.img"]).stdout;
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines.len(), 16);
    let expected = [
        (
            0,
            "  start: 0x000000000, len 0x000800, cap 0x000800, wptr 0x000000 reset:0 non-seq:0, zcond: 0(nw) [type: 1(CONVENTIONAL)]",
        ),
        (
            2,
            "  start: 0x000001000, len 0x000800, cap 0x000600, wptr 0x000000 reset:0 non-seq:0, zcond: 1(em) [type: 2(SEQ_WRITE_REQUIRED)]",
        ),
        (
            15,
            "  start: 0x000007800, len 0x000800, cap 0x000600, wptr 0x000000 reset:0 non-seq:0, zcond:15(of) [type: 2(SEQ_WRITE_REQUIRED)]",
        ),
    ];
    for (number, line) in expected {
        assert_eq!(lines[number], line);
    }
    let report: serde_json::Value =
        serde_json::from_str(&place.run(&["image", "report", "--json", "z.img"]).stdout).unwrap();
    let zone = &report["zones"][2];
    assert_eq!((&zone["start"], &zone["write_pointer"]), (&(2 << 20).into(), &(2 << 20).into()));
    assert_eq!((&zone["capacity"], &zone["condition"]), (&(768 << 10).into(), &"empty".into()));
    assert_eq!(report["zones"][15]["condition"], "offline");
}

#[test]
fn zones_that_fail_stay_so_and_are_not_reset() {
    let place = zones();
    assert_eq!(letters(&place), "==..............");
    said(&place.run(&["image", "inject", "read-only", "3", "z.img"]), "");
    said(&place.run(&["image", "inject", "offline", "4", "z.img"]), "");
    assert_eq!(letters(&place), "==.rx...........");
    place.run(&["image", "reset", "z.img", "2", "4"]).refused(1, "image_reset_offline");
    place.run(&["image", "reset", "z.img", "0"]).refused(1, "image_reset_conventional");
    place.run(&["image", "reset", "z.img", "2-99"]).refused(2, "image_reset_no_zone");
    place.run(&["image", "inject", "offline", "4", "z.img"]).refused(1, "image_inject_twice");
    said(&place.run(&["image", "reset", "z.img", "2", "5-7"]), "z.img: 4 zones reset\n");
    said(&place.run(&["image", "reset", "z.img", "--all"]), "z.img: 0 zones reset\n");
    said(&place.run(&["image", "check", "z.img"]), "z.img: clean\n");
}

/// A back-end of `z.img`.
const BLK: &[&str] = &["device", "blk", "-o", "path=z.img", "-o", "zoned=host-managed", "--socket-path", "s"];

#[test]
fn an_image_in_use_can_be_looked_at_and_no_more() {
    let place = zones();
    let mut child = place.command(BLK).spawn().unwrap();
    assert_ne!(features(&connect(&place.path("s"))) & 1 << 17, 0, "ZONED");
    let info = || place.run(&["image", "info", "z.img"]).stdout;
    assert!(info().starts_with("z.img: a zoned disk of 16M, in use\n"), "{}", info());
    assert_eq!(letters(&place), "==..............");
    assert_eq!(place.run(&["image", "report", "z.img"]).stdout.lines().count(), 16);
    let report: serde_json::Value =
        serde_json::from_str(&place.run(&["image", "report", "--json", "z.img"]).stdout).unwrap();
    assert_eq!((&report["in_use"], &report["closed"]), (&true.into(), &false.into()));
    place.run(&["image", "reset", "z.img", "--all"]).refused(1, "image_reset_in_use");
    // Who has it makes zones fail for others.
    said(&place.run(&["image", "inject", "offline", "3", "z.img"]), "");
    said(&place.run(&["image", "inject", "read-only", "4", "z.img"]), "");
    assert_eq!(letters(&place), "==.xr...........");
    place.run(&["image", "inject", "offline", "3", "z.img"]).refused(1, "image_inject_offline");
    place.run(&["image", "inject", "offline", "16", "z.img"]).refused(2, "image_inject_no_zone");
    place.run(&["image", "create", "z.img", "--size=1M", "--force"]).refused(1, "image_create_in_use");
    place.run(&["image", "check", "z.img"]).refused(1, "image_check_in_use");

    child.kill().unwrap();
    child.wait().unwrap();
    // It waits for the kernel to let go of the file.
    let check = place.run(&["image", "check", "z.img"]);
    assert!(check.status == Some(0) && check.stdout.contains("note: nobody closed it"), "{check:?}");
    let left = "z.img: a zoned disk of 16M, left by a process that was killed\n";
    assert!(info().starts_with(left), "{}", info());
    std::fs::remove_file(place.path("s")).unwrap();
    let mut child = place.command(BLK).spawn().unwrap();
    features(&connect(&place.path("s")));
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
    said(&place.run(&["image", "check", "z.img"]), "z.img: clean\n");
    assert_eq!(letters(&place), "==.xr...........");
}

#[test]
fn who_has_an_image_and_changes_no_zones_is_not_waited_for() {
    let place = zones();
    let file = File::options().read(true).write(true).open(place.path("z.img")).unwrap();
    assert!(parador_block::Image::try_lock(&file).unwrap());
    place.run(&["image", "inject", "offline", "3", "z.img"]).refused(1, "image_reset_in_use");
}

#[test]
fn a_machine_that_ends_closes_its_images() {
    if !kvm() {
        return;
    }
    let place = zones();
    let code = Code::default().print("hello\n").power_off();
    let disk = "device.z.model=virtio-blk\ndevice.z.path=z.img\ndevice.z.zoned=host-managed\n";
    let conf = format!("boot.kernel=guest\nmemory.size=16M\n{disk}");
    let place = place.with("guest", code.elf()).with("vm.conf", conf);
    for arguments in [&["vmm", "-k", "vm.conf"][..], &["run", "vm.conf"]] {
        let ended = place.run(arguments);
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "hello\n"), "{}", ended.stderr);
        said(&place.run(&["image", "check", "z.img"]), "z.img: clean\n");
    }
}

#[test]
fn keys_of_zones_are_held_against_the_image() {
    let place = zones();
    let with = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().flat_map(|key| ["-o", *key]).collect();
        place.run(&[BLK, &keys].concat())
    };
    with(&["zone_size=1M", "max_open=8"]).refused(1, "image_key_differs");
    with(&["sectorsize=512"]).refused(1, "image_sectorsize");
    with(&["path=y.img", "zone_size=4M", "max_active=8"]).refused(1, "image_to_make");
    File::create(place.path("r.img")).unwrap().set_len(1 << 20).unwrap();
    with(&["path=r.img"]).refused(1, "image_is_raw");
    with(&["zoned=passthrough"]).refused(1, "image_passthrough");
    let all = [
        "zone_size=1M",
        "zone_capacity=768K",
        "conventional=2",
        "max_open=4",
        "max_active=6",
        "max_append=768K",
    ];
    let keys: Vec<_> = all.iter().flat_map(|key| ["-o", *key]).collect();
    let mut child = place.command(&[BLK, &keys].concat()).spawn().unwrap();
    features(&connect(&place.path("s")));
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_shape_that_cannot_be_gets_one_message() {
    let place = Place::new();
    for (name, options) in [
        ("zone_size", "--size 64G --zone-size 48M"),
        ("zone_size_small", "--size 64G --zone-size 1K"),
        ("zone_capacity", "--size 64G --zone-capacity 65M"),
        ("small", "--size 1M"),
        ("many", "--size 100T"),
        ("short", "--size 1000M --zone-capacity 60M"),
        ("conventional", "--size 1G --conventional 16"),
        ("limits", "--size 64G --max-open 200 --max-active 100"),
        ("append", "--size 64G --max-append 1000"),
        ("block_size", "--size 64G --block-size 1024"),
    ] {
        let arguments: Vec<_> =
            ["image", "create", "--zoned", "z.img"].into_iter().chain(options.split(' ')).collect();
        place.run(&arguments).refused(2, &format!("image_{name}"));
        assert!(!place.path("z.img").exists(), "nothing is left behind");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = zones().with("text", "no image\n");
    place.run(&["image", "frob"]).refused(2, "image_frob");
    place.run(&["image", "create", "--zoned", "y.img"]).refused(2, "image_no_size");
    place.run(&["image", "create", "y.img", "--size=1G", "--conventional=1"]).refused(2, "image_not_zoned");
    place.run(&["image", "create", "y.img", "--size=1000"]).refused(2, "image_part_of_a_sector");
    place.run(&["image", "create", "y.img", "--size"]).refused(2, "image_option_without_value");
    place.run(&["image", "info"]).refused(2, "image_no_file");
    place.run(&["image", "info", "a", "b"]).refused(2, "image_two_files");
    place.run(&["image", "report", "--map", "--json", "z.img"]).refused(2, "image_two_forms");
    place.run(&["image", "reset", "z.img"]).refused(2, "image_reset_nothing");
    place.run(&["image", "inject", "broken", "3", "z.img"]).refused(2, "image_inject_broken");
    place.run(&["image", "check", "--yes", "z.img"]).refused(2, "image_yes");
    place.run(&["image", "report", "text"]).refused(1, "image_report_of_none");
    place.run(&["image", "check", "missing.img"]).refused(1, "image_missing");
    place.run(&["image", "create", "no/y.img", "--size=1G"]).refused(1, "image_no_folder");
    place.run(&["image", "create", ".", "--size=1G", "--force"]).refused(1, "image_folder");
}

#[test]
fn a_file_that_is_there_is_replaced_only_by_force() {
    let place = Place::new().with("d.img", "precious");
    let create = ["image", "create", "d.img", "--size=1M"];
    place.run(&create).refused(1, "image_is_there");
    assert_eq!(std::fs::read(place.path("d.img")).unwrap(), b"precious");
    said(&place.run(&[&create[..], &["--force"]].concat()), "d.img: 1M\n");
    assert_eq!(std::fs::read(place.path("d.img")).unwrap(), vec![0; 1 << 20]);
    let info = place.run(&["image", "info", "d.img"]).stdout;
    assert!(info.starts_with("d.img: no zoned image; a raw disk of 1M\n"), "{info}");
    let info: serde_json::Value =
        serde_json::from_str(&place.run(&["image", "info", "--json", "d.img"]).stdout).unwrap();
    assert_eq!((&info["format"], &info["size"]), (&"raw".into(), &(1 << 20).into()));
}

#[test]
fn an_image_is_copied_with_its_zones_and_replaced_only_by_force() {
    let place = zones();
    said(&place.run(&["image", "inject", "read-only", "3", "z.img"]), "");
    said(&place.run(&["image", "inject", "offline", "4", "z.img"]), "");
    let convert = |options: &[&str]| place.run(&[&["image", "convert"], options].concat());
    let copied = "c.img: 16 zones of 1M, 2M copied\n";
    said(&convert(&["z.img", "c.img"]), copied);
    let report = |name: &str| place.run(&["image", "report", name]).stdout;
    assert_eq!(report("c.img"), report("z.img"));
    said(&place.run(&["image", "check", "c.img"]), "c.img: clean\n");
    let uuid = |name: &str| {
        let info = place.run(&["image", "info", "--json", name]).stdout;
        serde_json::from_str::<serde_json::Value>(&info).unwrap()["uuid"].clone()
    };
    assert_ne!(uuid("c.img"), uuid("z.img"), "they are two images");

    convert(&["z.img", "c.img"]).refused(1, "image_convert_is_there");
    convert(&["z.img", "z.img", "--force"]).refused(1, "image_convert_same");
    convert(&["z.img"]).refused(2, "image_convert_one");
    convert(&["z.img", "no/c.img"]).refused(1, "image_convert_no_folder");
    convert(&["z.img", "/dev/null"]).refused(1, "image_convert_to_null");
    File::create(place.path("r.img")).unwrap().set_len(1 << 20).unwrap();
    convert(&["r.img", "d.img"]).refused(1, "image_convert_raw");
    // What an attempt left that was interrupted is in nobody's way.
    std::fs::write(place.path("c.img.part"), "half of it").unwrap();
    let mode = || place.path("c.img").metadata().unwrap().mode() & 0o777;
    std::fs::set_permissions(place.path("c.img"), PermissionsExt::from_mode(0o600)).unwrap();
    said(&convert(&["--force", "z.img", "c.img"]), copied);
    assert_eq!(mode(), 0o600);
    std::os::unix::fs::symlink("c.img", place.path("link")).unwrap();
    assert_eq!(convert(&["--force", "z.img", "link"]).status, Some(0));
    assert!(place.path("link").is_symlink());
    assert!(!place.path("c.img.part").exists());

    let mut child = place.command(BLK).spawn().unwrap();
    features(&connect(&place.path("s")));
    convert(&["z.img", "d.img"]).refused(1, "image_check_in_use");
    convert(&["--force", "c.img", "z.img"]).refused(1, "image_create_in_use");
    assert!(!place.path("d.img").exists());
    signal(&child, "TERM");
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn damage_is_found_and_repaired_by_those_who_say_so() {
    let place = zones();
    let check = |options: &[&str]| place.run(&[&["image", "check", "z.img"], options].concat());
    spoil(&place, 100);
    let spare = check(&[]);
    assert_eq!(spare.stdout, "z.img: damaged, nothing lost: one of two superblocks is bad\n");
    assert_eq!((spare.status, check(&["--repair"]).status, check(&[]).status), (Some(3), Some(4), Some(0)));

    // Both checkpoints, with something in a zone.
    let data = 1 << 20;
    let file = File::options().write(true).open(place.path("z.img")).unwrap();
    let offset: serde_json::Value =
        serde_json::from_str(&place.run(&["image", "info", "--json", "z.img"]).stdout).unwrap();
    file.write_all_at(b"something", offset["data_offset"].as_u64().unwrap() + 5 * data).unwrap();
    spoil(&place, 2 * 4096 + 99);
    spoil(&place, 3 * 4096 + 99);
    place.run(&["image", "reset", "z.img", "3"]).refused(1, "image_damaged");
    let loss = check(&["--repair"]);
    let expected = "z.img: damaged: both checkpoints are bad: what was on record of most zones is gone\n\
                    z.img: a repair makes zone 5 full: its data stays, where it was written to is not known\n";
    assert_eq!((loss.status, loss.stdout.as_str()), (Some(3), expected));
    assert!(loss.stderr.starts_with("hint: "), "{}", loss.stderr);
    let repaired = check(&["--repair", "--yes"]);
    assert_eq!((repaired.status, repaired.stderr.as_str()), (Some(4), ""));
    assert!(repaired.stdout.ends_with("z.img: repaired\n"), "{}", repaired.stdout);
    said(&check(&[]), "z.img: clean\n");
    assert_eq!(letters(&place), "==...#..........");
    said(&place.run(&["image", "reset", "z.img", "--all"]), "z.img: 1 zone reset\n");
    assert_eq!(letters(&place), "==..............");
}

#[test]
fn help_and_the_manual_know_all_commands() {
    let place = Place::new();
    let help = place.run(&["image", "--help"]).stdout;
    let manual = place.run(&["config", "man", "parador"]).stdout;
    for command in ["create", "info", "report", "check", "convert", "reset", "inject"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(manual.contains(&format!(".It Cm image {command}")), "{manual}");
    }
    assert!(manual.contains(".It Fl \\-zone\\-size Ar"), "{manual}");
}
