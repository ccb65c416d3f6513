//! The same on a real KVM: it takes every call that functions make, in the order they make them.

use std::io;
use std::sync::Arc;

use parador_virtio::testing::Arena;
use parador_virtio::{EventFd, QueueLayout};

use crate::kvm::Vm;
use crate::pci::testing::{Guest, PciDriver, Strict};
use crate::pci::{Host, HostMemory, MsiMessage};

/// A host that never refuses, or the test fails.
struct Willing(Vm);

impl Host for Willing {
    fn set_ioeventfd(&self, address: u64, kick: &EventFd, on: bool) -> io::Result<()> {
        self.0.set_ioeventfd(address, kick, on).unwrap();
        Ok(())
    }

    fn allocate_gsi(&self) -> io::Result<u32> {
        Ok(self.0.allocate_gsi().unwrap())
    }

    fn release_gsi(&self, gsi: u32) {
        self.0.release_gsi(gsi);
    }

    fn route_msi(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        self.0.route_msi(gsi, message).unwrap();
        Ok(())
    }

    fn set_irqfd(&self, gsi: u32, fd: &EventFd, on: bool) -> io::Result<()> {
        self.0.set_irqfd(gsi, fd, on).unwrap();
        Ok(())
    }

    fn show_memory(&self, address: u64, memory: &Arc<HostMemory>) -> io::Result<()> {
        self.0.show_memory(address, memory).unwrap();
        Ok(())
    }

    fn hide_memory(&self, address: u64) {
        self.0.hide_memory(address);
    }
}

#[test]
fn kvm_takes_what_functions_ask() {
    let arena = Arena::new(4 << 20);
    let vm = match Vm::new(Arc::clone(arena.memory()), None) {
        Ok(vm) => vm,
        Err(error) => {
            eprintln!("skipped: no KVM here: {error}");
            return;
        }
    };
    let mut guest = Guest::on(Arc::new(Willing(vm)), arena);
    let (first, _) = Strict::new();
    let (second, watch) = Strict::new();
    let other = guest.root.attach_virtio(Box::new(first), None).unwrap();
    let address = guest.root.attach_virtio(Box::new(second), None).unwrap();
    PciDriver::probe(&mut guest, other);
    let layout = QueueLayout { size: 16, descriptors: 0, available: 0x1000, used: 0x2000 };
    let message = |data| MsiMessage { address: 0xFEE0_0000, data };
    for round in 0..20 {
        let driver = PciDriver::probe(&mut guest, address);
        driver.set_msix(&mut guest, true, false);
        let features = driver.offered(&mut guest);
        assert!(driver.negotiate(&mut guest, features));
        driver.write(&mut guest, 0x10, &[0, 0]);
        for queue in 0..3 {
            assert_eq!(driver.enable_queue(&mut guest, queue, &layout, queue + 1), queue + 1);
        }
        for vector in 0..4 {
            driver.set_vector(&mut guest, vector, message(0x40 + u32::from(vector)), false);
        }
        driver.driver_ok(&mut guest);
        assert_eq!(driver.status(&mut guest), 15);
        watch.call();
        driver.mask_vector(&mut guest, 1, true);
        watch.call();
        assert!(driver.is_pending(&mut guest, 1) && !driver.is_pending(&mut guest, 2));
        driver.mask_vector(&mut guest, 1, false);
        driver.set_vector(&mut guest, 2, message(0x60), false);
        guest.set_config(address, 0x10, &0xC100_0000u32.to_le_bytes());
        guest.set_config(address, 0x10, &(driver.bar as u32).to_le_bytes());
        driver.set_msix(&mut guest, true, true);
        driver.set_msix(&mut guest, true, false);
        driver.write(&mut guest, 0x3A, &[1, 0]);
        driver.enable_queue(&mut guest, 2, &layout, 3);
        assert_eq!(watch.running(), [0, 1, 2]);
        if round % 2 == 0 {
            driver.write(&mut guest, 0x14, &[0]);
        } else {
            guest.root.reset();
        }
    }
}
