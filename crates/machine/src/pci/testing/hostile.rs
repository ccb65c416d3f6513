//! Guests that no honest system is. Any string of bytes is one of them.
//!
//! Property tests feed random bytes, the fuzz targets `pci_config` and `virtio_pci` evolved ones.

use std::fs::File;
use std::ops::Range;

use parador_virtio::testing::hostile::Source;
use parador_virtio::{QueueLayout, SharedPiece};

use super::{ECAM, Guest, HIGH, LOW, PciDriver, Strict, Watch, memory_file};
use crate::pci::PciAddress;

/// Bytes of a BAR of a virtio function.
const BAR_SIZE: u64 = 0x8000;
/// What makes for accidents in registers of any width.
const VALUES: [u64; 12] =
    [0, 1, 2, 3, 0x0F, 0x8000, 0xFFFF, 0x1_0000, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFF0, u64::MAX];
const WIDTHS: [usize; 8] = [1, 2, 4, 8, 4, 2, 4, 3];

/// Sends `input` to configuration space as accesses of any place and width, through ECAM and the
/// ports, with BARs moving under accesses to them.
///
/// # Panics
/// We break a rule of ours, or what no guest can change has changed.
pub fn pci_config(input: &[u8]) {
    let mut world = World::new();
    let before = world.fixed_registers();
    let mut source = Source::new(input);
    while !source.is_empty() {
        match source.below(8) {
            0 => world.ports(&mut source),
            1 => world.windows(&mut source),
            2 => world.lifecycle(&mut source),
            3 => world.bars(&mut source),
            _ => world.config(&mut source),
        }
        world.check();
    }
    assert_eq!(world.fixed_registers(), before);
    world.compare_ways();
    world.end();
}

/// Sends `input` to the registers of a virtio function, in and out of order. Returns how often a queue
/// was started.
///
/// # Panics
/// We break a rule of ours, or the device is driven against the contract.
pub fn virtio_pci(input: &[u8]) -> usize {
    let mut world = World::new();
    let mut source = Source::new(input);
    while !source.is_empty() {
        match source.below(16) {
            0 => world.config(&mut source),
            1 => world.lifecycle(&mut source),
            2 => world.device(&mut source),
            3 | 4 => world.bring_up(&mut source),
            5 | 6 => world.msix(&mut source),
            7 => world.raw_bar(&mut source),
            _ => world.common(&mut source),
        }
        world.check();
    }
    let (starts, _) = world.watch.starts_and_resets();
    world.end();
    starts
}

/// A bus with one device on it that watches how it is driven.
struct World {
    guest: Guest,
    driver: PciDriver,
    watch: Watch,
    /// What the device shows of itself.
    file: File,
    /// Whether the queues are stopped from outside.
    paused: bool,
}

impl World {
    fn new() -> Self {
        let mut guest = Guest::new();
        let (device, watch) = Strict::new();
        let address = guest.root.attach_virtio(Box::new(device), None).expect("there is room");
        let driver = PciDriver::probe(&mut guest, address);
        Self { guest, driver, watch, file: memory_file(4 << 20), paused: false }
    }

    fn access(&mut self, source: &mut Source<'_>, address: u64) {
        let width = source.choose(&WIDTHS);
        if source.below(2) == 0 {
            let mut data = [0; 8];
            self.guest.read(address, &mut data[..width]);
        } else {
            let value = value(source);
            self.guest.write(address, &value.to_le_bytes()[..width]);
        }
    }

    fn config(&mut self, source: &mut Source<'_>) {
        let devfn = source.choose(&[8, 8, 8, 8, 0, 1, 16, 255]);
        let offset = match source.below(4) {
            0 => u64::from(source.u16() % 4096),
            1 => source.choose(&[0x04, 0x0E, 0x10, 0x14, 0x18, 0x24, 0x30, 0x34, 0x3C, 0xFF, 0x100, 0xFFF]),
            _ => u64::from(source.u8()),
        };
        self.access(source, ECAM.start + (devfn << 12) + offset);
    }

    fn ports(&mut self, source: &mut Source<'_>) {
        let address = 0x8000_0000 | source.choose(&[8u32, 0, 255]) << 8 | u32::from(source.u8());
        let address = if source.below(8) == 0 { source.u32() } else { address };
        self.guest.port_out(0xCF8, &address.to_le_bytes());
        let port = 0xCF8 + u16::from(source.u8() % 8);
        let width = source.choose(&[1, 2, 4, 4]);
        if source.below(2) == 0 {
            self.guest.port_out(port, &value(source).to_le_bytes()[..width]);
        } else {
            let _: [u8; 4] = self.guest.port_in(port);
        }
    }

    fn windows(&mut self, source: &mut Source<'_>) {
        let window = source.choose(&[&LOW, &HIGH]);
        let last = window.end - window.start - 1;
        let offset = source.choose(&[0, 0x1000, 0x7FFF, 0x8000, 0x0020_0000, last, 0x0100_0000]);
        self.access(source, window.start + offset);
    }

    /// Moves a BAR, to places in and around the windows.
    fn bars(&mut self, source: &mut Source<'_>) {
        let low = [LOW.start, LOW.start + BAR_SIZE, LOW.end - BAR_SIZE, LOW.end, 0, 0xFEE0_0000, ECAM.start];
        let to = source.choose(&low) as u32;
        let devfn = source.choose(&[8, 0]);
        self.guest.write(ECAM.start + (devfn << 12) + 0x10, &to.to_le_bytes());
        if source.below(2) == 0 {
            let to = source.choose(&[HIGH.start, HIGH.start + (4 << 20), HIGH.end - (4 << 20), 0, LOW.start]);
            self.guest.write(ECAM.start + (devfn << 12) + 0x18, &to.to_le_bytes());
        }
        self.guest.write(ECAM.start + (devfn << 12) + 4, &[source.choose(&[2, 0, 6])]);
        let at = u64::from(to) + u64::from(source.u16());
        self.access(source, at);
    }

    fn lifecycle(&mut self, source: &mut Source<'_>) {
        match source.below(6) {
            0 | 1 => {
                self.guest.root.stop_queues();
                self.paused = true;
                assert!(self.watch.running().is_empty(), "all queues are stopped");
            }
            2 | 3 => {
                self.guest.root.start_queues();
                self.paused = false;
            }
            4 => {
                self.guest.root.reset();
                assert_eq!((self.guest.host.lines(), self.guest.host.kicks()), ((0, 0), vec![]));
                assert_eq!(self.guest.host.memory(), []);
            }
            _ => {
                self.guest.host.refuse_memory(source.below(4) == 0);
                self.guest.host.refuse_kicks(source.below(2) == 0);
                self.guest.host.refuse_lines(source.below(8) == 0);
                self.guest.host.refuse_routes(source.below(8) == 0);
            }
        }
    }

    fn device(&mut self, source: &mut Source<'_>) {
        match source.below(6) {
            4 | 5 => self.shared_memory(source),
            0 => assert!(self.watch.change_config(), "a device can always announce changes"),
            1 => self.watch.call(),
            2 => self.watch.break_rings(),
            _ => {
                self.watch.refuse(source.below(4) == 0);
                self.watch.forget(source.below(4) == 0);
            }
        }
    }

    /// The device maps and unmaps, right or wrong.
    fn shared_memory(&self, source: &mut Source<'_>) {
        let piece = SharedPiece {
            region: source.choose(&[1, 1, 200, 200, 0]),
            offset: source.choose(&[0, 0, 0x1000, 0x2000, 1, u64::MAX - 0xFFF]),
            len: source.choose(&[0x1000, 0x1000, 0x2000, 2 << 20, 0, u64::MAX]),
        };
        let memory = self.watch.shared_memory();
        let done = match source.below(2) {
            0 => memory.map(piece, &self.file, 0x1000, source.below(2) == 0),
            _ => memory.unmap(piece),
        };
        let fits = piece.offset.checked_add(piece.len).is_some_and(|end| end <= 2 << 20);
        assert!(fits || done.is_err(), "{piece:?}");
    }

    /// An honest start, but for what `source` makes of it: deep states are rare by chance.
    fn bring_up(&mut self, source: &mut Source<'_>) {
        let Self { guest, driver, .. } = self;
        // It may have been moved or switched off.
        guest.set_config(driver.address(), 0x10, &(driver.bar as u32).to_le_bytes());
        guest.set_config(driver.address(), 4, &[6, 0]);
        driver.write(guest, 0x14, &[0]);
        let features = driver.offered(guest) & !(u64::from(source.below(4) == 0) << source.below(64));
        driver.negotiate(guest, features);
        for queue in 0..3 {
            let base = u64::from(source.choose(&[1u8, 1, 1, 1, 2, 3, 0xFF])) << 20;
            let layout = QueueLayout {
                size: source.choose(&[256, 16, 4, 1]),
                descriptors: base,
                available: base + 0x4_0000,
                used: base + 0x8_0000 + u64::from(source.below(8) == 0),
            };
            let vector = source.choose(&[queue, queue, 0, 3, 4, 0xFFFF]);
            if source.below(8) != 0 {
                driver.enable_queue(guest, queue, &layout, vector);
            }
        }
        driver.driver_ok(guest);
        driver.notify(guest, source.u16() % 4);
    }

    fn msix(&mut self, source: &mut Source<'_>) {
        match source.below(4) {
            0 => self.driver.set_msix(&mut self.guest, source.below(4) != 0, source.below(4) == 0),
            1 => {
                let at = self.driver.pending + u64::from(source.u16() % 0x2000);
                self.access(source, at);
            }
            _ => {
                let at = self.driver.table + u64::from(source.u8()) % 80;
                self.access(source, at);
            }
        }
    }

    fn raw_bar(&mut self, source: &mut Source<'_>) {
        let part = source.choose(&[0, 0x100, 0x200, 0x1000, 0x2000, 0x4000, 0x7FF8]);
        let at = self.driver.bar + part + u64::from(source.u8());
        self.access(source, at);
    }

    fn common(&mut self, source: &mut Source<'_>) {
        let at = self.driver.common + u64::from(source.u8() % 0x48);
        self.access(source, at);
    }

    /// What holds at any time.
    fn check(&self) {
        let kicks = self.guest.host.kicks();
        let in_window = |range: &Range<u64>, kick: &u64| range.contains(kick);
        assert!(kicks.iter().all(|kick| in_window(&LOW, kick) || in_window(&HIGH, kick)), "{kicks:x?}");
        assert!(kicks.len() <= 3);
        for (start, len) in self.guest.host.memory() {
            let in_window = |range: &Range<u64>| range.start <= start && start + len <= range.end;
            assert!(in_window(&LOW) || in_window(&HIGH), "{start:#x}");
        }
        assert!(!self.paused || self.watch.running().is_empty(), "nothing starts while paused");
        let (given, connected) = self.guest.host.lines();
        assert!(connected <= given && given <= 4, "a vector has one number");
    }

    /// What no guest can change: identity, class, capability pointers.
    fn fixed_registers(&mut self) -> Vec<u8> {
        let at = PciAddress::new(0, 1, 0).expect("in range");
        let mut bytes = Vec::new();
        for offset in
            (0..4).chain(8..0x0C).chain(0x0D..0x10).chain(0x14..0x18).chain(0x20..0x3C).chain(0x40..0x42)
        {
            bytes.extend(self.guest.config::<1>(at, offset));
        }
        bytes
    }

    /// The ports and ECAM show the same registers.
    fn compare_ways(&mut self) {
        let at = PciAddress::new(0, 1, 0).expect("in range");
        for register in (0..0x40_u8).step_by(4) {
            self.guest.port_out(0xCF8, &(0x8000_0800 | u32::from(register)).to_le_bytes());
            let by_port: [u8; 4] = self.guest.port_in(0xCFC);
            let by_memory = self.guest.config::<4>(at, u64::from(register));
            assert_eq!(by_port, by_memory, "register {register:#x}");
        }
    }

    /// Whatever happened, a reset of the machine makes it right again.
    fn end(mut self) {
        self.guest.host.refuse_kicks(false);
        self.guest.host.refuse_memory(false);
        self.guest.host.refuse_lines(false);
        self.guest.host.refuse_routes(false);
        self.watch.forget(false);
        self.watch.refuse(false);
        self.guest.root.reset();
        self.guest.root.start_queues();
        assert_eq!((self.guest.host.lines(), self.guest.host.kicks()), ((0, 0), vec![]));
        assert!(self.watch.running().is_empty());
        let driver = PciDriver::probe(&mut self.guest, self.driver.address());
        let offered = driver.offered(&mut self.guest);
        assert!(driver.negotiate(&mut self.guest, offered));
        let (starts, _) = self.watch.starts_and_resets();
        let layout = QueueLayout { size: 16, descriptors: 0x10_0000, available: 0x11_0000, used: 0x12_0000 };
        assert_eq!(driver.enable_queue(&mut self.guest, 1, &layout, 0), 0);
        driver.driver_ok(&mut self.guest);
        assert_eq!(self.watch.starts_and_resets().0, starts + 1);
        assert_eq!(self.guest.host.kicks().len(), 1);
    }
}

fn value(source: &mut Source<'_>) -> u64 {
    match source.below(3) {
        0 => source.u64(),
        1 => u64::from(source.u8()),
        _ => source.choose(&VALUES),
    }
}
