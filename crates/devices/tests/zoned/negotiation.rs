//! What a driver is offered, and what one gets that does not take it.

use parador_devices::blk::BlkError;
use parador_virtio::testing::{Arena, check_contract};
use parador_virtio::{VirtioDevice, ids};

use super::*;

const F_ZONED: u64 = 1 << 17;
const F_BLK_SIZE: u64 = 1 << 6;
const F_SEG_MAX: u64 = 1 << 2;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;
const F_LIFETIME: u64 = 1 << 15;
const F_SECURE_ERASE: u64 = 1 << 16;

fn u32_at(disk: &Disk, offset: usize) -> u32 {
    u32::from_le_bytes(disk.harness.config(offset, 4).try_into().unwrap())
}

#[test]
fn a_disk_without_zones_offers_none() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let blk = Blk::new(BlkOptions::new(Image::open(&RawOptions::new(file.path())).unwrap())).unwrap();
    assert_eq!(blk.identity().features & F_ZONED, 0);
    assert_eq!((blk.identity().required, blk.identity().config_len), (0, 60));
    let mut harness = Harness::new(blk);
    for kind in [REPORT, OPEN, CLOSE, FINISH, RESET, RESET_ALL] {
        assert_eq!(harness.request(0, &[&header(kind, 0)], &[1]).data, [UNSUPP], "type {kind}");
    }
    let reply = harness.request(0, &[&header(APPEND, 0), &[1; 4096]], &[16]);
    assert_eq!((reply.written, reply.data[15]), (0, UNSUPP));
}

#[test]
fn a_driver_must_take_zones_and_is_offered_nothing_that_harms_them() {
    let mut disk = Disk::new();
    let identity = disk.harness.device().identity().clone();
    assert_eq!(identity.required, F_ZONED, "no FEATURES_OK without it");
    let wanted = F_ZONED | F_BLK_SIZE | F_SEG_MAX;
    assert_eq!(identity.features & wanted, wanted);
    assert_eq!(identity.features & (F_DISCARD | F_WRITE_ZEROES | F_LIFETIME | F_SECURE_ERASE), 0);
}

#[test]
fn the_shape_of_the_zones_is_in_the_configuration_space() {
    let mut disk = Disk::limited(3, 5);
    assert_eq!(disk.harness.device().identity().config_len, 96);
    assert_eq!(u64::from(u32_at(&disk, 72)), ZONE, "zone_sectors");
    assert_eq!((u32_at(&disk, 76), u32_at(&disk, 80)), (3, 5), "max_open_zones, max_active_zones");
    assert_eq!(u64::from(u32_at(&disk, 84)), MAX_APPEND, "max_append_sectors");
    assert_eq!((u32_at(&disk, 88), u32_at(&disk, 20)), (4096, 4096), "write_granularity is blk_size");
    assert_eq!(disk.harness.config(92, 8), [1, 0, 0, 0, 0, 0, 0, 0], "model, and zeroes after it");
    assert_eq!(disk.harness.config(0, 8), SECTORS.to_le_bytes());
    assert_eq!(disk.harness.config(24, 1), [0], "a physical block is a logical one");
    assert_eq!(disk.harness.config(36, 36), [0; 36], "no discard, no zeroes, no secure erase");
    let before = disk.harness.config(0, 96);
    disk.harness.device().write_config(33, &[0xff; 63]);
    (72..96).for_each(|offset| disk.harness.device().write_config(offset, &[0xff]));
    assert_eq!(disk.harness.config(0, 96), before, "nobody writes to it");
}

#[test]
fn a_block_of_512_bytes_is_what_is_shown() {
    let mut disk = Disk::with(Geometry { granularity: 512, ..geometry() }, |_| {});
    assert_eq!((u32_at(&disk, 88), u32_at(&disk, 20)), (512, 512));
    assert_eq!(disk.write(zone(0), 1, 1), OK);
    assert_eq!(disk.write(zone(0) + 1, 3, 1), OK);
    assert_eq!(disk.state(zone(0)), (Implicit, 4));
}

/// §5.2.5.1, and what Linux needs: an append has to fit in one request.
#[test]
fn an_append_is_never_longer_than_a_request() {
    let all = Geometry { max_append: CAPACITY * 512, ..geometry() };
    let mut disk = Disk::with(all, |options| options.queue_size = 8);
    assert_eq!(u32_at(&disk, 12), 6, "seg_max");
    assert_eq!(u32_at(&disk, 84), 48, "six pieces of 4096 bytes");
    assert_eq!(disk.append(zone(0), 48, 1), Ok(zone(0)));
    assert_eq!(disk.append(zone(0), 56, 1), Err(INVALID_CMD), "it would fit in the zone");
}

#[test]
fn the_blocks_of_a_zoned_disk_are_not_to_be_chosen() {
    let (_file, image) = image(geometry());
    for sizes in [(512, 4096), (4096, 8192), (8192, 8192)] {
        let options = BlkOptions { block_sizes: Some(sizes), ..BlkOptions::new(image.clone()) };
        let error = Blk::new(options).err();
        assert!(matches!(error, Some(BlkError::ZonedBlockSizes { granularity: 4096, .. })), "{error:?}");
    }
    assert!(Blk::new(BlkOptions { block_sizes: Some((4096, 4096)), ..BlkOptions::new(image) }).is_ok());
}

#[test]
fn a_zoned_disk_keeps_the_contract_of_all_devices() {
    for queues in [1, 4] {
        let (_file, image) = image(geometry());
        check_contract(&mut Blk::new(BlkOptions { queues, ..BlkOptions::new(image) }).unwrap());
    }
}

/// Over vhost-user nobody asks the back-end for FEATURES_OK.
#[test]
fn a_driver_that_does_not_know_zones_gets_unsupp_for_everything_and_changes_nothing() {
    let (file, image) = image(geometry());
    let blk = Blk::new(BlkOptions { serial: "zones".into(), ..BlkOptions::new(image.clone()) }).unwrap();
    let features = (blk.identity().features & !F_ZONED) | ids::VIRTIO_F_VERSION_1;
    let mut harness = Harness::with(Box::new(blk), features, Arena::new(1 << 20));
    let kinds = [OUT, FLUSH, DISCARD, WRITE_ZEROES, SECURE_ERASE, OPEN, CLOSE, FINISH, RESET, RESET_ALL];
    for kind in kinds {
        for sector in [0, zone(0), u64::MAX] {
            let reply = harness.request(0, &[&header(kind, sector), &[1; 4096]], &[1]);
            assert_eq!(reply.data, [UNSUPP], "type {kind} at {sector}");
        }
    }
    for (kind, data, room) in [(IN, 0, 513), (REPORT, 0, 1025), (APPEND, 4096, 16)] {
        let request = [&header(kind, zone(0))[..], &vec![1; data]].concat();
        let reply = harness.request(0, &[&request], &[room]);
        assert_eq!((reply.written, reply.data[room - 1]), (0, UNSUPP), "type {kind}");
    }
    assert!(harness.request(0, &[&header(GET_ID, 0)], &[20, 1]).data.starts_with(b"zones\0"));
    drop((harness, image));
    let mut disk = open(file, Aio::IoUring);
    assert!(disk.zones()[2..].iter().all(|zone| zone.state == Empty));
}

#[test]
fn what_is_not_offered_is_unsupp() {
    let mut disk = Disk::new();
    let mut range = [0; 16];
    range[..8].copy_from_slice(&zone(0).to_le_bytes());
    range[8] = 8;
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        assert_eq!(disk.ask(kind, 0, &range), UNSUPP, "type {kind}");
    }
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 17, 19, 21, 23, 25, 27, 28, u32::MAX] {
        assert_eq!(disk.ask(kind, zone(0), &[]), UNSUPP, "type {kind}");
    }
    assert_eq!(disk.state(zone(0)), (Empty, 0));
}

/// A zone opened explicitly stays so while queues stop and start, and across a reset of the device:
/// it is the disk's, not the driver's.
#[test]
fn zones_outlive_a_reset_of_the_device() {
    let mut disk = Disk::new();
    assert_eq!(disk.manage(OPEN, zone(0)), OK);
    assert_eq!(disk.write(zone(1), BLOCK, 1), OK);
    disk.harness.pause();
    assert_eq!((disk.state(zone(0)), disk.state(zone(1))), ((Explicit, 0), (Implicit, BLOCK)));
    disk.harness.reset();
    assert_eq!((disk.state(zone(0)), disk.state(zone(1))), ((Explicit, 0), (Implicit, BLOCK)));
    assert_eq!(disk.write(zone(1) + BLOCK, BLOCK, 1), OK);
}
