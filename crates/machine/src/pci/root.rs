//! The root bus: which function is in which slot, and which BAR is at which address.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use parador_virtio::{GuestMemory, VirtioDevice};
use vm_allocator::{AddressAllocator, AllocPolicy};

use super::address::{FUNCTIONS, PciAddress, SLOTS};
use super::bridge::HostBridge;
use super::config::{self, BARS, Bar, ConfigSpace};
use super::virtio::VirtioFunction;
use super::{AttachError, Host, Windows};

/// A PCI function: configuration space, and what is behind its BARs.
///
/// Offsets and lengths are the guest's: any, up to 8 bytes long.
pub(super) trait Function: Send {
    fn config(&mut self) -> &mut ConfigSpace;

    /// The BARs there are, by index.
    fn bars(&self) -> Vec<(usize, Bar)> {
        Vec::new()
    }

    /// The BARs answer in `ranges` and nowhere else, until this is called again.
    fn on_placed(&mut self, _ranges: &[Option<Range<u64>>; BARS]) {}

    fn read_config(&mut self, offset: usize, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.config().write(offset, data);
    }

    fn read_bar(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write_bar(&mut self, _bar: usize, _offset: u64, _data: &[u8]) {}

    /// Takes away memory that the guest sees in a BAR. Whether it saw any.
    fn give_up_memory(&mut self) -> bool {
        false
    }

    /// Stops what runs and remembers where it was.
    fn stop_queues(&mut self) {}

    /// Goes on where [`Function::stop_queues`] stopped.
    fn start_queues(&mut self) {}

    /// Back to power-on.
    fn reset(&mut self);
}

/// The root bus of PCI segment 0, with the host bridge in slot 0.
///
/// A handle: clones are the same bus. Any thread may use it.
#[derive(Clone)]
pub struct PciRoot(Arc<Inner>);

// Lock order: one function, then `map`. `functions` is for looking up: it is released before what
// was found is locked. A function is locked while its
// device is called, because a device is called from one thread at a time; the others answer
// meanwhile.
struct Inner {
    host: Arc<dyn Host>,
    memory: Arc<GuestMemory>,
    windows: Windows,
    functions: Mutex<Functions>,
    map: RwLock<Vec<Mapping>>,
    /// How often a function's memory was taken away.
    given_up: AtomicU64,
}

type SharedFunction = Arc<Mutex<dyn Function>>;

struct Functions {
    /// By slot and function number.
    list: Vec<(u8, SharedFunction)>,
    low: AddressAllocator,
    high: Option<AddressAllocator>,
}

/// A BAR that answers. In [`Inner::map`] they are in order of addresses and do not overlap.
struct Mapping {
    range: Range<u64>,
    devfn: u8,
    bar: usize,
    function: SharedFunction,
}

impl PciRoot {
    /// An empty bus whose BARs are in `windows` and whose devices work in `memory`.
    ///
    /// # Errors
    /// A window is empty or ends beyond the address space.
    pub fn new(host: Arc<dyn Host>, memory: Arc<GuestMemory>, windows: Windows) -> Result<Self, AttachError> {
        let low = allocator(&windows.low)?;
        let high = windows.high.as_ref().map(allocator).transpose()?;
        let functions = Mutex::new(Functions { list: Vec::new(), low, high });
        let root = Self(Arc::new(Inner {
            host,
            memory,
            windows,
            functions,
            map: RwLock::default(),
            given_up: AtomicU64::new(0),
        }));
        root.insert(HostBridge::new(), Some(PciAddress::from_devfn(0, 0)))?;
        Ok(root)
    }

    /// Puts a virtio device at `address`, or in the first slot that is free, and says where.
    ///
    /// A guest looks for functions 1 to 7 of a slot only if there is a function 0.
    ///
    /// # Errors
    /// The address is taken or not on this bus, no slot is free, or the device has more than fits.
    pub fn attach_virtio(
        &self,
        device: Box<dyn VirtioDevice>,
        address: Option<PciAddress>,
    ) -> Result<PciAddress, AttachError> {
        let Inner { host, memory, windows, .. } = &*self.0;
        let function = VirtioFunction::new(device, Arc::clone(host), Arc::clone(memory), windows.clone())?;
        self.insert(function, address)
    }

    /// Stops every queue of every device and remembers where it was. Nothing changes for the guest;
    /// it must not run meanwhile, as what it writes to devices would wait for [`Self::start_queues`].
    pub fn stop_queues(&self) {
        self.each(|function| function.stop_queues());
    }

    /// Starts the queues that [`Self::stop_queues`] stopped. A device that cannot go on tells its
    /// driver that it needs a reset.
    pub fn start_queues(&self) {
        self.each(|function| function.start_queues());
    }

    /// Brings all functions back to power-on, for a guest that starts again. A bus whose queues
    /// were stopped stays so.
    pub fn reset(&self) {
        for (devfn, function) in self.snapshot() {
            let mut locked = lock(&function);
            locked.reset();
            self.place(devfn, &function, &mut *locked);
        }
    }

    /// Takes the shared memory of all devices from the guest, which touched some in a way that
    /// processors cannot go on from. A device that loses it tells its driver that it needs a reset,
    /// which brings it back. Says how many devices have lost theirs since the bus was made.
    #[must_use]
    pub fn give_up_memory(&self) -> u64 {
        let given_up = &self.0.given_up;
        self.each(|function| {
            if function.give_up_memory() {
                given_up.fetch_add(1, Ordering::Relaxed);
            }
        });
        given_up.load(Ordering::Relaxed)
    }

    fn insert(
        &self,
        mut function: impl Function + 'static,
        address: Option<PciAddress>,
    ) -> Result<PciAddress, AttachError> {
        let mut functions = self.functions();
        let address = functions.place(address)?;
        for (index, bar) in function.bars() {
            let at = functions.allocate(bar)?;
            function.config().add_bar(index, bar, at);
        }
        let devfn = address.devfn();
        let at = functions.list.partition_point(|(other, _)| *other < devfn);
        functions.list.insert(at, (devfn, Arc::new(Mutex::new(function))));
        let slot = |devfn: u8| devfn / FUNCTIONS;
        let several = functions.list.iter().filter(|(other, _)| slot(*other) == slot(devfn)).count() > 1;
        let first = functions.find(slot(devfn) * FUNCTIONS);
        drop(functions);
        if let Some(first) = first {
            lock(&first).config().set_multifunction(several);
        }
        Ok(address)
    }

    fn each(&self, act: impl Fn(&mut dyn Function)) {
        for (_, function) in self.snapshot() {
            act(&mut *lock(&function));
        }
    }

    /// The functions there are now.
    fn snapshot(&self) -> Vec<(u8, SharedFunction)> {
        self.functions().list.clone()
    }

    /// Fills `data` from `offset` of the configuration space of function `devfn`; all ones where
    /// there is none, as a master abort reads.
    pub(super) fn read_config(&self, devfn: u8, offset: usize, data: &mut [u8]) {
        let function = self.functions().find(devfn);
        match function {
            Some(function) => lock(&function).read_config(offset, data),
            None => data.fill(0xFF),
        }
    }

    pub(super) fn write_config(&self, devfn: u8, offset: usize, data: &[u8]) {
        let found = self.functions().find(devfn);
        let Some(function) = found else { return };
        let mut locked = lock(&function);
        locked.write_config(offset, data);
        if config::touches_decoding(offset, data.len()) {
            self.place(devfn, &function, &mut *locked);
        }
    }

    /// Has the BARs of `function`, which is `locked`, answer where its registers say and nowhere else.
    fn place(&self, devfn: u8, function: &SharedFunction, locked: &mut dyn Function) {
        let mut map = self.write_map();
        map.retain(|mapping| mapping.devfn != devfn);
        let placed = std::array::from_fn(|bar| {
            let range = locked.config().decoded(bar).filter(|range| self.0.windows.contain(range))?;
            let at = map.partition_point(|mapping| mapping.range.end <= range.start);
            // Of two BARs in one place, the one that was there first answers.
            let free = map.get(at).is_none_or(|next| range.end <= next.range.start);
            free.then(|| {
                let mapping = Mapping { range: range.clone(), devfn, bar, function: Arc::clone(function) };
                map.insert(at, mapping);
                range
            })
        });
        drop(map);
        locked.on_placed(&placed);
    }

    /// Fills `data` from guest-physical `address`; all ones where no BAR answers.
    pub(super) fn read_memory(&self, address: u64, data: &mut [u8]) {
        match self.find_bar(address) {
            Some((function, bar, offset)) => lock(&function).read_bar(bar, offset, data),
            None => data.fill(0xFF),
        }
    }

    pub(super) fn write_memory(&self, address: u64, data: &[u8]) {
        if let Some((function, bar, offset)) = self.find_bar(address) {
            lock(&function).write_bar(bar, offset, data);
        }
    }

    fn find_bar(&self, address: u64) -> Option<(SharedFunction, usize, u64)> {
        let map = self.0.map.read().unwrap_or_else(PoisonError::into_inner);
        let at = map.partition_point(|mapping| mapping.range.end <= address);
        let Mapping { range, bar, function, .. } = map.get(at)?;
        range.contains(&address).then(|| (Arc::clone(function), *bar, address - range.start))
    }

    fn functions(&self) -> MutexGuard<'_, Functions> {
        lock(&self.0.functions)
    }

    fn write_map(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Mapping>> {
        self.0.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Functions {
    fn find(&self, devfn: u8) -> Option<SharedFunction> {
        let index = self.list.binary_search_by_key(&devfn, |(devfn, _)| *devfn).ok()?;
        Some(Arc::clone(&self.list[index].1))
    }

    /// Where a function goes: to `wanted` if that is free, or to the first slot with nothing in it.
    fn place(&self, wanted: Option<PciAddress>) -> Result<PciAddress, AttachError> {
        if let Some(address) = wanted {
            if address.bus() != 0 {
                return Err(AttachError::NoSuchBus(address));
            }
            let taken = self.find(address.devfn()).is_some();
            return if taken { Err(AttachError::Occupied(address)) } else { Ok(address) };
        }
        let is_free = |slot: &u8| self.list.iter().all(|(devfn, _)| devfn / FUNCTIONS != *slot);
        let slot = (0..SLOTS).find(is_free).ok_or(AttachError::NoFreeSlot)?;
        Ok(PciAddress::from_devfn(0, slot * FUNCTIONS))
    }

    fn allocate(&mut self, bar: Bar) -> Result<u64, AttachError> {
        let window = if bar.wide { self.high.as_mut().unwrap_or(&mut self.low) } else { &mut self.low };
        let range = window.allocate(bar.size, bar.size, AllocPolicy::FirstMatch);
        Ok(range.map_err(|_| AttachError::NoRoom(bar.size))?.start())
    }
}

fn allocator(window: &Range<u64>) -> Result<AddressAllocator, AttachError> {
    let size = window.end.saturating_sub(window.start);
    AddressAllocator::new(window.start, size).map_err(|_| AttachError::Window(window.clone()))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
