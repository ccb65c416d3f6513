//! What is asked of a back-end, and in which order; what of its answers reaches the guest.

use std::fs::File;
use std::os::fd::AsFd;

use parador_vhost_user::frontend::{Remote, RemoteError, RemoteOptions};
use parador_vhost_user::message::{ConfigFlags, FrontendRequest as R, ProtocolFeatures as F};
use parador_virtio::ids::{VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1, VIRTIO_ID_BLOCK, VIRTIO_ID_NET};
use parador_virtio::testing::{Arena, Driver, Harness};
use parador_virtio::{Interrupt, QueueState, VirtioDevice};

use crate::fake::{CONFIG, Fake, Offer, everything};

/// A back-end from before there were protocol features.
fn bare() -> Offer {
    Offer { features: VIRTIO_F_VERSION_1, protocol: F(0), ..everything() }
}

fn rings(names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| name.contains("VRING")).collect()
}

#[test]
fn all_of_a_start_is_in_order() {
    let fake = Fake::new(everything());
    let mut harness = Harness::new(fake.connect().unwrap());
    assert_eq!(
        fake.names(),
        [
            "GET_FEATURES",
            "GET_PROTOCOL_FEATURES",
            "SET_PROTOCOL_FEATURES",
            "GET_QUEUE_NUM",
            "GET_MAX_MEM_SLOTS",
            "SET_BACKEND_REQ_FD",
            "SET_OWNER",
            "GET_SHMEM_CONFIG",
            "GET_CONFIG",
        ]
    );
    fake.forget();
    harness.start();
    let ring = [
        "SET_VRING_NUM",
        "SET_VRING_BASE",
        "SET_VRING_ADDR",
        "SET_VRING_CALL",
        "SET_VRING_ERR",
        "SET_VRING_KICK",
        "SET_VRING_ENABLE",
    ];
    let before =
        ["SET_STATUS", "SET_FEATURES", "SET_STATUS", "GET_INFLIGHT_FD", "SET_INFLIGHT_FD", "ADD_MEM_REG"];
    assert_eq!(fake.names(), [&before[..], &ring, &["SET_STATUS"], &ring].concat(), "memory is sent once");
    // Pause, and on: no memory, no features again.
    fake.forget();
    harness.pause();
    harness.start();
    let stop = ["GET_VRING_BASE", "GET_VRING_BASE"];
    assert_eq!(fake.names(), [&stop[..], &ring, &ring].concat());
    // A reset, and a new region for requests in flight.
    fake.forget();
    harness.reset();
    let names = fake.names();
    assert_eq!(names, ["GET_VRING_BASE", "GET_VRING_BASE", "SET_STATUS", "RESET_DEVICE", "GET_CONFIG"]);
    fake.forget();
    harness.driver(0);
    assert!(fake.names().starts_with(&before[..5]), "{:?}", fake.names());
    assert!(!fake.names().contains(&"ADD_MEM_REG"), "memory stays over a reset");
    for asked in fake.asked() {
        let mandatory = matches!(asked.request, R::GetInflightFd(_));
        assert!(asked.message.needs_reply() || mandatory, "{:?} is acknowledged", asked.request);
    }
}

#[test]
fn a_back_end_from_long_ago_is_asked_for_nothing_new() {
    let fake = Fake::new(bare());
    let mut harness = Harness::new(fake.connect().unwrap());
    harness.start();
    harness.pause();
    harness.reset();
    let names = fake.names();
    let ring = [
        "SET_VRING_NUM",
        "SET_VRING_BASE",
        "SET_VRING_ADDR",
        "SET_VRING_CALL",
        "SET_VRING_ERR",
        "SET_VRING_KICK",
    ];
    assert_eq!(names[..4], ["GET_FEATURES", "SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE"]);
    assert_eq!(rings(&names), [&ring[..], &ring, &["GET_VRING_BASE"; 2]].concat());
    assert_eq!(names.len(), 4 + 14);
    assert!(fake.asked().iter().all(|asked| !asked.message.needs_reply()));
    assert_eq!(harness.config(0, 8), [0; 8]);
}

#[test]
fn only_what_is_known_is_accepted() {
    let fake = Fake::new(everything());
    let remote = fake.connect().unwrap();
    let accepted = fake.wait(|asked| matches!(asked.request, R::SetProtocolFeatures(_)));
    let R::SetProtocolFeatures(accepted) = accepted.request else { unreachable!() };
    let refused = F::PAGEFAULT | F::INBAND_NOTIFICATIONS | F::XEN_MMAP | F::SHARED_OBJECT | F::GPA_ADDRESSES;
    assert_eq!(accepted & refused.0, 0);
    assert!(F(accepted).contains(F::SHMEM | F::INFLIGHT_SHMFD | F::GET_VRING_BASE_SKIP_DRAIN));
    let identity = remote.identity();
    assert_eq!(identity.features, 1 << 5, "bits 26 and 30 are between us");
    assert_eq!(identity.ring_features & VIRTIO_F_EVENT_IDX, VIRTIO_F_EVENT_IDX);
    drop(remote);
    let without = Fake::new(Offer { features: VIRTIO_F_VERSION_1, ..everything() });
    assert_eq!(without.connect().unwrap().identity().ring_features, VIRTIO_F_VERSION_1);
}

#[test]
fn a_driver_accepts_no_more_than_there_is() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1 | 1 << 7);
    assert!(remote.start_queue(driver.setup(0, QueueState::default())).is_err());
    // RING_RESET is between the driver and the transport.
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1 | 1 << 40);
    remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
    let sent = fake.wait(|asked| matches!(asked.request, R::SetFeatures(_)));
    assert_eq!(sent.request, R::SetFeatures(VIRTIO_F_VERSION_1 | 1 << 30));
}

#[test]
fn what_cannot_be_is_said() {
    let error = |offer: Offer, change: fn(&mut RemoteOptions)| {
        let fake = Fake::new(offer);
        let mut options = fake.options();
        change(&mut options);
        Remote::connect(options).err().expect("it cannot be")
    };
    let says = |error: RemoteError, words: &str| assert!(error.to_string().contains(words), "{error}");
    let same = |_: &mut RemoteOptions| {};
    says(error(Offer { features: 1 << 30, ..everything() }, same), "does not offer");
    says(error(Offer { queues: 1, ..everything() }, same), "has 1 queues, not 2");
    says(error(everything(), |o| o.queue_sizes = Some([3].into())), "3 is not the size of a queue");
    says(error(everything(), |o| o.queue_sizes = Some([].into())), "cannot have 0 queues");
    says(error(everything(), |o| (o.kind, o.queue_sizes) = (200, None)), "device type 200");
    says(error(everything(), |o| o.path = "/dev/null".into()), "/dev/null");
    says(error(everything(), |o| o.path = "".into()), "no socket");
    says(
        error(everything(), |o| (o.kind, o.queue_sizes, o.queues) = (VIRTIO_ID_NET, None, Some(1))),
        "1 queues",
    );
}

#[test]
fn a_fixed_number_of_queues_needs_no_telling() {
    let protocol = F(everything().protocol.0 & !F::MQ.0);
    let fake = Fake::new(Offer { protocol, queues: 1, ..everything() });
    assert_eq!(fake.connect().unwrap().identity().queue_sizes.len(), 2);
    assert!(!fake.names().contains(&"GET_QUEUE_NUM"));
}

#[test]
fn the_number_of_a_disks_queues_is_what_the_driver_reads() {
    const MQ: u64 = 1 << 12;
    let mut config = vec![0; 60];
    config[34] = 8;
    let offer = Offer { features: everything().features | MQ, queues: 8, config, ..everything() };
    let fake = Fake::new(offer.clone());
    let connect = |queues| {
        let options = RemoteOptions {
            kind: VIRTIO_ID_BLOCK,
            queue_sizes: None,
            queues,
            config_len: 0,
            ..fake.options()
        };
        Remote::connect(options)
    };
    for (queues, expected) in [(None, 8), (Some(3), 3)] {
        let remote = connect(queues).unwrap();
        assert_eq!(remote.identity().queue_sizes.len(), expected);
        let mut field = [0; 2];
        remote.read_config(34, &mut field);
        assert_eq!(usize::from(u16::from_le_bytes(field)), expected);
    }
    assert!(matches!(connect(Some(9)), Err(RemoteError::TooFewQueues { has: 8, wanted: 9 })));
}

#[test]
fn pairs_of_queues_may_be_counted_as_pairs() {
    const CONTROL: u64 = 1 << 17;
    for (queues, features, expected) in [
        (1, CONTROL, 2), // one pair, as DPDK counts
        (2, CONTROL, 2),
        (3, CONTROL, 3),
        (3, 0, 2),
        (5, CONTROL, 3),
        (5, CONTROL | 1 << 22, 5),
    ] {
        let offered = Offer { features: VIRTIO_F_VERSION_1 | 1 << 30 | features, queues, ..everything() };
        let fake = Fake::new(offered);
        let options = RemoteOptions {
            kind: VIRTIO_ID_NET,
            queue_sizes: None,
            config_len: 0,
            mac: Some([2, 0, 0, 0, 0, 9]),
            ..fake.options()
        };
        let remote = Remote::connect(options).unwrap();
        let identity = remote.identity();
        assert_eq!(identity.queue_sizes.len(), expected, "{queues} {features:#x}");
        assert_eq!(identity.features & CONTROL != 0, expected % 2 == 1);
        assert_ne!(identity.features & 1 << 5, 0, "it has an address");
        let mut config = [0; 10];
        remote.read_config(0, &mut config);
        assert_eq!(config[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(config[8..], [(expected / 2) as u8, 0]);
    }
}

#[test]
fn an_address_that_the_back_end_does_not_know_is_nothing_to_filter_by() {
    const CONTROL: u64 = 1 << 17;
    const ADDRESS: u64 = 1 << 5;
    const FILTER: u64 = 1 << 18;
    let ours = [2, 0, 0, 0, 0, 9];
    for (features, mac, expected, filters) in
        [(ADDRESS, None, [1, 2, 3, 4, 5, 6], FILTER), (ADDRESS, Some(ours), ours, 0), (0, None, ours, 0)]
    {
        let offered = VIRTIO_F_VERSION_1 | 1 << 30 | CONTROL | FILTER | features;
        let fake = Fake::new(Offer { features: offered, queues: 3, ..everything() });
        let options = RemoteOptions {
            kind: VIRTIO_ID_NET,
            queue_sizes: None,
            config_len: 0,
            mac,
            spare_mac: Some(ours),
            ..fake.options()
        };
        let remote = Remote::connect(options).unwrap();
        assert_eq!(remote.identity().features & (FILTER | ADDRESS), filters | ADDRESS);
        let mut config = [0; 6];
        remote.read_config(0, &mut config);
        assert_eq!(config, expected);
    }
}

#[test]
fn the_configuration_is_read_once_and_from_its_start() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    fake.forget();
    for offset in 0..10 {
        let mut data = [0xee; 3];
        remote.read_config(offset, &mut data);
        let expected: Vec<u8> = CONFIG.into_iter().chain([0; 8]).skip(offset).take(3).collect();
        assert_eq!(data[..], expected);
    }
    assert!(fake.names().is_empty());
    remote.write_config(6, &[9; 4]);
    remote.write_config(8, &[9; 4]);
    assert_eq!(fake.names(), ["SET_CONFIG", "GET_CONFIG"]);
    let asked = fake.asked();
    let [R::SetConfig(written), R::GetConfig(read)] = [&asked[0].request, &asked[1].request] else {
        unreachable!()
    };
    assert_eq!((written.offset, written.flags, &written.data[..]), (6, ConfigFlags::Writable, &[9, 9][..]));
    assert_eq!((read.offset, read.data.len()), (0, CONFIG.len()));
}

#[test]
fn memory_goes_before_what_overlaps_it_comes() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let start = |remote: &mut Remote, regions: &[(u64, usize)]| {
        let driver = Driver::on(&Arena::of_regions(regions), 16, VIRTIO_F_VERSION_1);
        let started = remote.start_queue(driver.setup(0, QueueState::default()));
        started.map(|()| remote.stop_queue(0).unwrap())
    };
    start(&mut remote, &[(0, 1 << 20), (1 << 30, 1 << 20)]).unwrap();
    fake.forget();
    start(&mut remote, &[(0, 1 << 20), (1 << 20, 1 << 20)]).unwrap();
    let of_memory = |name: &&str| name.contains("MEM");
    let names: Vec<_> = fake.names().into_iter().filter(of_memory).collect();
    assert_eq!(names, ["REM_MEM_REG", "REM_MEM_REG", "ADD_MEM_REG", "ADD_MEM_REG"]);
    let removed = fake.wait(|asked| matches!(asked.request, R::RemMemReg(_)));
    assert!(removed.files.is_empty());
}

#[test]
fn more_regions_than_slots_are_a_table_of_at_most_eight() {
    let regions: Vec<_> = (0..9).map(|at| (at << 30, 1 << 16)).collect();
    for (slots, count, expected) in [
        (9, 9, Some("ADD_MEM_REG")),
        (8, 9, None),
        (2, 8, Some("SET_MEM_TABLE")),
        (0, 1, Some("SET_MEM_TABLE")),
    ] {
        let fake = Fake::new(Offer { slots, ..everything() });
        let mut remote = fake.connect().unwrap();
        let driver = Driver::on(&Arena::of_regions(&regions[..count]), 16, VIRTIO_F_VERSION_1);
        let started = remote.start_queue(driver.setup(0, QueueState::default()));
        assert_eq!(started.is_ok(), expected.is_some(), "{slots} {count}");
        let names = fake.names();
        for name in ["ADD_MEM_REG", "SET_MEM_TABLE"] {
            assert_eq!(names.contains(&name), expected == Some(name), "{slots} {count} {names:?}");
        }
        if let Err(error) = started {
            assert_eq!(error.to_string(), "guest memory has 9 regions; the back-end takes 8");
        }
    }
}

#[test]
fn memory_that_is_private_is_refused_with_a_hint() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let private = parador_virtio::GuestMemory::from_ranges(&[(parador_virtio::GuestAddress(0), 1 << 20)]);
    let driver = Driver::on(&Arena::of_memory(private.unwrap().into()), 16, VIRTIO_F_VERSION_1);
    let error = remote.start_queue(driver.setup(0, QueueState::default())).unwrap_err();
    assert!(error.to_string().contains("memory.shared=true"), "{error}");
    assert_eq!(remote.stop_queue(0), None);
}

#[test]
fn a_ring_is_kicked_when_it_starts_and_called_by_whatever_is_there() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1);
    let mut setup = driver.setup(0, QueueState::default());
    let (heard, hears) = std::sync::mpsc::channel();
    setup.call = Interrupt::from_fn(move || heard.send(()).unwrap());
    setup.error = Interrupt::nobody();
    let kick = setup.kick.as_ref().unwrap().try_clone().unwrap();
    remote.start_queue(setup).unwrap();
    assert_eq!(kick.read().unwrap(), 1);
    assert!(!fake.names().contains(&"SET_VRING_ERR"));
    let call = fake.wait(|asked| matches!(asked.request, R::SetVringCall(_)));
    for _ in 0..3 {
        rustix::io::write(call.files[0].as_fd(), &1u64.to_ne_bytes()).unwrap();
        hears.recv_timeout(parador_virtio::testing::PATIENCE).unwrap();
    }
    remote.stop_queue(0).unwrap();
    let stop = fake.wait(|asked| matches!(asked.request, R::GetVringBase(_)));
    assert!(matches!(stop.request, R::GetVringBase(state) if state.num == 0 && state.index == 0));
    // One that is polled, and nobody hears.
    let mut setup = driver.setup(1, QueueState::default());
    (setup.kick, setup.call) = (None, Interrupt::nobody());
    remote.start_queue(setup).unwrap();
    fake.wait(|asked| matches!(asked.request, R::SetVringKick(ring) if ring.index == 1 && !ring.has_fd));
    fake.wait(|asked| matches!(asked.request, R::SetVringCall(ring) if ring.index == 1 && !ring.has_fd));
}

#[test]
fn descriptors_are_not_leaked() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let fake = Fake::new(everything());
    let session = || {
        let mut harness = Harness::new(fake.connect().unwrap());
        harness.start();
        fake.forget();
    };
    session();
    let before = open();
    (0..50).for_each(|_| session());
    assert!(open() < before + 20, "{before} {}", open());
    drop(File::open("/dev/null").unwrap());
}

/// The guest's driver has to know host-managed zones, and may know others (virtio 1.3 §5.2.5.2).
#[test]
fn a_disk_with_zones_is_for_drivers_that_know_them() {
    const ZONED: u64 = 1 << 17;
    for (model, features, required) in [(1, ZONED, ZONED), (2, ZONED, 0), (0, ZONED, 0), (1, 0, 0)] {
        let mut config = vec![0; 96];
        config[92] = model;
        let fake = Fake::new(Offer { features: everything().features | features, config, ..everything() });
        let options =
            RemoteOptions { kind: VIRTIO_ID_BLOCK, queue_sizes: None, config_len: 0, ..fake.options() };
        let remote = Remote::connect(options).unwrap();
        let identity = remote.identity();
        assert_eq!(identity.required, required, "model {model}");
        assert_eq!(identity.config_len, if features == 0 { 60 } else { 96 });
    }
}
