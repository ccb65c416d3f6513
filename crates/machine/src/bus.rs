//! Address spaces, and the devices that answer in them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tracing::trace;

/// A device that answers reads and writes at offsets of a range of ports or memory.
pub trait BusDevice: Send {
    /// Fills `data` (1, 2, 4 or 8 bytes, any alignment) from `offset` bytes into the range.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes `data` (1, 2, 4 or 8 bytes, any alignment) at `offset` bytes into the range, and says
    /// what that does to the machine.
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect;
}

/// What a write does to the machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked to be reset.
    Reset,
    /// The guest says it has panicked (pvpanic); it may go on to reset itself.
    Panicked,
}

/// A device as the bus holds it: whoever else needs it keeps a clone of the `Arc`.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// One address space: ports, or guest-physical addresses that are not memory.
///
/// Every processor reads and writes it at once. Lock order: the table, released; then one device,
/// for the length of one access. A device that blocks holds up only those who talk to it, and may
/// itself insert and remove ranges.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use parador_machine::bus::{Bus, BusDevice, Effect};
///
/// struct Scratch(u8);
/// impl BusDevice for Scratch {
///     fn read(&mut self, _offset: u64, data: &mut [u8]) {
///         data.fill(self.0);
///     }
///     fn write(&mut self, _offset: u64, data: &[u8]) -> Effect {
///         self.0 = data[0];
///         Effect::None
///     }
/// }
///
/// let ports = Bus::new("port");
/// ports.insert(0x80, 1, Arc::new(Mutex::new(Scratch(0))))?;
/// assert_eq!(ports.write(0x80, &[7]), Effect::None);
/// let mut data = [0; 2];
/// ports.read(0x80, &mut data[..1]);
/// ports.read(0x81, &mut data[1..]); // nobody there: all ones
/// assert_eq!(data, [7, 0xff]);
/// # Ok::<(), parador_machine::bus::BusError>(())
/// ```
pub struct Bus {
    name: &'static str,
    table: RwLock<Vec<Range>>, // sorted by base, no two overlap
}

struct Range {
    base: u64,
    last: u64, // inclusive, so that a range may end at the top of the address space
    device: SharedDevice,
}

/// Why a range cannot be given to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or passes the end of the address space.
    #[error("{base:#x}+{size:#x} is not a range of addresses")]
    NotARange {
        /// First address.
        base: u64,
        /// Length in bytes.
        size: u64,
    },
    /// Another device answers there.
    #[error("{base:#x}+{size:#x} overlaps the device at {other:#x}")]
    Taken {
        /// First address.
        base: u64,
        /// Length in bytes.
        size: u64,
        /// First address of the device that is there.
        other: u64,
    },
}

impl Bus {
    /// An empty address space. `name` is for the log.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, table: RwLock::new(Vec::new()) }
    }

    /// Lets `device` answer at `size` bytes from `base`. From any thread, also while the guest runs.
    ///
    /// # Errors
    /// The range is none, or is taken. The table is unchanged then.
    pub fn insert(&self, base: u64, size: u64, device: SharedDevice) -> Result<(), BusError> {
        let last = size
            .checked_sub(1)
            .and_then(|rest| base.checked_add(rest))
            .ok_or(BusError::NotARange { base, size })?;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let at = table.partition_point(|range| range.last < base);
        if let Some(next) = table.get(at)
            && next.base <= last
        {
            return Err(BusError::Taken { base, size, other: next.base });
        }
        table.insert(at, Range { base, last, device });
        Ok(())
    }

    /// Takes away the range that begins at `base`, and says whether there was one. An access that
    /// has found the device may still reach it.
    pub fn remove(&self, base: u64) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match table.binary_search_by_key(&base, |range| range.base) {
            Ok(at) => {
                table.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Reads `data.len()` bytes at `address`: all ones where no device answers all of them.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => lock(&device).read(offset, data),
            None => {
                data.fill(0xff);
                trace!(bus = self.name, address = format_args!("{address:#x}"), "read of nothing");
            }
        }
    }

    /// Writes `data` at `address`: ignored where no device answers all of it.
    pub fn write(&self, address: u64, data: &[u8]) -> Effect {
        match self.find(address, data.len()) {
            Some((device, offset)) => lock(&device).write(offset, data),
            None => {
                trace!(bus = self.name, address = format_args!("{address:#x}"), ?data, "write to nothing");
                Effect::None
            }
        }
    }

    fn find(&self, address: u64, len: usize) -> Option<(SharedDevice, u64)> {
        let last = address.checked_add(u64::try_from(len).ok()?.checked_sub(1)?)?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let range = table.get(table.partition_point(|range| range.last < address))?;
        (range.base <= address && last <= range.last)
            .then(|| (Arc::clone(&range.device), address - range.base))
    }
}

/// A panic in a device aborts a release build; in a test it must not hide behind a poisoned lock.
fn lock(device: &SharedDevice) -> std::sync::MutexGuard<'_, dyn BusDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the offset it was asked at, and remembers the last write.
    struct Echo(Option<(u64, Vec<u8>)>);

    impl BusDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset & 0xff).expect("masked"));
        }
        fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
            self.0 = Some((offset, data.to_vec()));
            Effect::Reset
        }
    }

    fn echo() -> Arc<Mutex<Echo>> {
        Arc::new(Mutex::new(Echo(None)))
    }

    fn read(bus: &Bus, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0xaa; len];
        bus.read(address, &mut data);
        data
    }

    #[test]
    fn accesses_reach_the_device_whose_range_holds_them_whole() {
        let bus = Bus::new("test");
        let device = echo();
        bus.insert(0x100, 8, device.clone()).unwrap();
        bus.insert(0x108, 1, echo()).unwrap();
        bus.insert(0xf0, 4, echo()).unwrap();

        assert_eq!(read(&bus, 0x107, 1), [7]);
        assert_eq!(read(&bus, 0x108, 1), [0]);
        assert_eq!(read(&bus, 0xf3, 1), [3]);
        assert_eq!(bus.write(0x102, &[1, 2]), Effect::Reset);
        assert_eq!(device.lock().unwrap().0, Some((2, vec![1, 2])));

        // Straddling the end of a range, between ranges, outside all, around the top.
        assert_eq!(read(&bus, 0x107, 2), [0xff; 2]);
        assert_eq!(read(&bus, 0xff, 2), [0xff; 2]);
        assert_eq!(read(&bus, 0xf4, 1), [0xff]);
        assert_eq!(read(&bus, u64::MAX, 8), [0xff; 8]);
        assert_eq!(bus.write(0x106, &[0; 4]), Effect::None);
        assert_eq!(bus.write(u64::MAX, &[0; 4]), Effect::None);
        assert_eq!(bus.write(0x100, &[]), Effect::None);
    }

    #[test]
    fn ranges_never_overlap() {
        let bus = Bus::new("test");
        bus.insert(0x100, 0x10, echo()).unwrap();
        for (base, size) in [(0x100, 0x10), (0xff, 2), (0x10f, 1), (0x80, 0x1000), (0x104, 4)] {
            assert_eq!(bus.insert(base, size, echo()), Err(BusError::Taken { base, size, other: 0x100 }));
        }
        bus.insert(0xff, 1, echo()).unwrap();
        bus.insert(0x110, 1, echo()).unwrap();
        assert_eq!(bus.insert(5, 0, echo()), Err(BusError::NotARange { base: 5, size: 0 }));
        assert_eq!(bus.insert(u64::MAX, 2, echo()), Err(BusError::NotARange { base: u64::MAX, size: 2 }));
        bus.insert(u64::MAX, 1, echo()).unwrap();
        assert_eq!(read(&bus, u64::MAX, 1), [0]);
    }

    #[test]
    fn a_removed_range_answers_no_more_and_may_be_given_again() {
        let bus = Bus::new("test");
        bus.insert(0x100, 0x10, echo()).unwrap();
        assert!(!bus.remove(0x101));
        assert!(bus.remove(0x100));
        assert!(!bus.remove(0x100));
        assert_eq!(read(&bus, 0x100, 1), [0xff]);
        bus.insert(0x108, 0x10, echo()).unwrap();
    }
}
