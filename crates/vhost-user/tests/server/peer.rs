//! The same device for a front-end that is not ours: the vhost crate's, which Cloud Hypervisor uses.

use std::io::{Read, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

use parador_vhost_user::server::Server;
use parador_virtio::EventFd;
use parador_virtio::ids::VIRTIO_F_VERSION_1;
use parador_virtio::testing::Driver;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserHeaderFlag,
    VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};

use crate::device::{CONFIG, Echo, QUEUES};
use crate::front::{FEATURES, MEMORY_LEN, USER, arena, echo, memfd};

/// Everything that crate can say of a ring.
fn start(front: &mut Frontend, index: usize, driver: &Driver, flags: u32) {
    let (layout, setup) = (driver.layout(), driver.setup(0, driver.state()));
    front.set_vring_num(index, layout.size).unwrap();
    let config = VringConfigData {
        queue_max_size: 256,
        queue_size: layout.size,
        flags,
        desc_table_addr: USER + layout.descriptors,
        used_ring_addr: USER + layout.used,
        avail_ring_addr: USER + layout.available,
        log_addr: (flags != 0).then_some(layout.used),
    };
    front.set_vring_addr(index, &config).unwrap();
    front.set_vring_base(index, driver.state().next_available).unwrap();
    front.set_vring_call(index, setup.call.as_eventfd().unwrap()).unwrap();
    front.set_vring_kick(index, &setup.kick.unwrap()).unwrap();
    front.set_vring_enable(index, true).unwrap();
}

#[test]
fn the_front_end_of_the_vhost_crate_is_served() {
    for slots in [true, false] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut server = Server::new(Box::new(Echo::new()));
        let stop = EventFd::new(0).unwrap();
        let thread = thread::spawn(move || server.serve(theirs, &stop));
        let mut front = Frontend::from_stream(ours, QUEUES as u64);
        front.set_owner().unwrap();
        let features = front.get_features().unwrap();
        let protocol = front.get_protocol_features().unwrap();
        front.set_protocol_features(protocol & VhostUserProtocolFeatures::all()).unwrap();
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(front.get_queue_num().unwrap(), QUEUES as u64);
        assert_eq!(front.get_max_mem_slots().unwrap(), 509);
        front.set_features(FEATURES & features).unwrap();

        let flags = VhostUserConfigFlags::empty();
        assert_eq!(front.get_config(0, 8, flags, &[0; 8]).unwrap().1, CONFIG);
        // What it calls writable is the flag for a migration.
        front.set_config(1, VhostUserConfigFlags::WRITABLE, &[9]).unwrap();
        assert!(front.set_config(5, VhostUserConfigFlags::WRITABLE, &[9]).is_err());

        let file = memfd(MEMORY_LEN as u64);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY_LEN as u64,
            userspace_addr: USER,
            mmap_offset: 0,
            mmap_handle: file.as_raw_fd(),
        };
        match slots {
            true => drop(front.add_mem_region(&region).unwrap()),
            false => drop(front.set_mem_table(&[region]).unwrap()),
        }
        let asked = VhostUserInflight { num_queues: 2, queue_size: 64, ..Default::default() };
        let (inflight, region) = front.get_inflight_fd(&asked).unwrap();
        front.set_inflight_fd(&inflight, region.as_raw_fd()).unwrap();
        let arena = arena(&file, 0, 0, MEMORY_LEN);
        let mut drivers = [0, 1].map(|_| Driver::on(&arena, 64, VIRTIO_F_VERSION_1));
        for (index, driver) in drivers.iter_mut().enumerate() {
            start(&mut front, index, driver, 0);
            echo(driver, b"to another front-end");
        }

        let log = memfd(4096);
        let region = VhostUserDirtyLogRegion { mmap_size: 128, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
        front.set_log_base(0, Some(region)).unwrap();
        front.set_features(FEATURES | 1 << 26).unwrap();
        echo(&mut drivers[0], b"and logged");
        let mut first = [0];
        log.read_exact_at(&mut first, 0).unwrap();
        assert_ne!(first, [0]);

        assert_eq!([0, 1].map(|index| front.get_vring_base(index).unwrap()), [2, 1]);
        let (mut reader, writer) = pipe().unwrap();
        let (save, stopped) = (VhostTransferStateDirection::SAVE, VhostTransferStatePhase::STOPPED);
        assert!(front.set_device_state_fd(save, stopped, writer.into()).unwrap().is_none());
        let mut state = Vec::new();
        reader.read_to_end(&mut state).unwrap();
        assert_eq!(state, [1, 9, 3, 4]);
        front.check_device_state().unwrap();
        front.reset_device().unwrap();
        drop(front);
        thread.join().unwrap().unwrap();
    }
}
