//! A model of what KVM does for PCI functions.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::pci::{Host, HostMemory, MsiMessage};

/// Ioeventfds and interrupt routes as KVM keeps them, strict about what KVM is lax about.
#[derive(Default)]
pub struct ModelHost {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kicks: BTreeMap<u64, EventFd>,
    lines: BTreeMap<u32, Line>,
    memory: BTreeMap<u64, Arc<HostMemory>>,
    refuses_memory: bool,
    delivered: Vec<MsiMessage>,
    refuses_kicks: bool,
    refuses_lines: bool,
    refuses_routes: bool,
    calls: usize,
}

#[derive(Default)]
struct Line {
    message: Option<MsiMessage>,
    fd: Option<EventFd>,
    /// What was in the descriptor when it was connected: delivered, but not taken out of it.
    stale: u64,
}

/// The first interrupt number, as behind an I/O APIC.
const FIRST_GSI: u32 = 24;

impl ModelHost {
    /// Has the host refuse ioeventfds from now on, or no longer.
    pub fn refuse_kicks(&self, refuse: bool) {
        self.lock().refuses_kicks = refuse;
    }

    /// Has the host run out of interrupt numbers, or no longer.
    pub fn refuse_lines(&self, refuse: bool) {
        self.lock().refuses_lines = refuse;
    }

    /// Has the host refuse messages from now on, or no longer.
    pub fn refuse_routes(&self, refuse: bool) {
        self.lock().refuses_routes = refuse;
    }

    /// Has the host refuse to show memory, or no longer.
    pub fn refuse_memory(&self, refuse: bool) {
        self.lock().refuses_memory = refuse;
    }

    /// Where memory is shown, ascending, and how much.
    #[must_use]
    pub fn memory(&self) -> Vec<(u64, u64)> {
        self.lock().memory.iter().map(|(address, memory)| (*address, memory.len())).collect()
    }

    /// The memory that is shown at `address`, and how far in that is.
    #[must_use]
    pub(super) fn memory_at(&self, address: u64) -> Option<(Arc<HostMemory>, u64)> {
        let state = self.lock();
        let (start, memory) = state.memory.range(..=address).next_back()?;
        (address - start < memory.len()).then(|| (Arc::clone(memory), address - start))
    }

    /// How many times the host was called for kicks, routes and irqfds since this was asked last:
    /// each is a system call in which the kernel waits for its readers.
    #[must_use]
    pub fn take_calls(&self) -> usize {
        std::mem::take(&mut self.lock().calls)
    }

    /// What a write to `address` kicks, if something is registered there. Says whether it is.
    ///
    /// # Panics
    /// The descriptor does not take it.
    pub fn kick(&self, address: u64) -> bool {
        let state = self.lock();
        let kick = state.kicks.get(&address);
        kick.is_some_and(|fd| fd.write(1).is_ok())
    }

    /// Addresses with an ioeventfd, ascending.
    #[must_use]
    pub fn kicks(&self) -> Vec<u64> {
        self.lock().kicks.keys().copied().collect()
    }

    /// Interrupts that reached the guest since this was asked last, those of one vector together.
    #[must_use]
    pub fn take_interrupts(&self) -> Vec<MsiMessage> {
        let mut state = self.lock();
        let lines: Vec<u32> = state.lines.keys().copied().collect();
        for gsi in lines {
            state.deliver(gsi);
        }
        std::mem::take(&mut state.delivered)
    }

    /// How many interrupt numbers are given out, and how many of them are connected.
    #[must_use]
    pub fn lines(&self) -> (usize, usize) {
        let state = self.lock();
        (state.lines.len(), state.lines.values().filter(|line| line.fd.is_some()).count())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What KVM does the moment an irqfd is written: it takes the count out and interrupts.
    fn deliver(&mut self, gsi: u32) {
        let line = self.lines.get_mut(&gsi).expect("only numbers that were given out are used");
        let Some(fd) = &line.fd else { return };
        match fd.read() {
            Ok(count) if count == line.stale => fd.write(count).expect("there was room for it"),
            Ok(_) => {
                line.stale = 0;
                self.delivered.extend(line.message);
            }
            Err(_) => line.stale = 0,
        }
    }

    fn line(&mut self, gsi: u32) -> &mut Line {
        self.lines.get_mut(&gsi).expect("only numbers that were given out are used")
    }
}

impl Host for ModelHost {
    fn set_ioeventfd(&self, address: u64, kick: &EventFd, on: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.calls += 1;
        if !on {
            state.kicks.remove(&address).expect("only what is registered is unregistered");
            return Ok(());
        }
        if state.refuses_kicks {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if state.kicks.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        state.kicks.insert(address, kick.try_clone()?);
        Ok(())
    }

    fn allocate_gsi(&self) -> io::Result<u32> {
        let mut state = self.lock();
        if state.refuses_lines {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let gsi = (FIRST_GSI..).find(|gsi| !state.lines.contains_key(gsi)).expect("numbers do not end");
        state.lines.insert(gsi, Line::default());
        Ok(gsi)
    }

    fn release_gsi(&self, gsi: u32) {
        let line = self.lock().lines.remove(&gsi).expect("only what was given out is given back");
        assert!(line.fd.is_none(), "an irqfd is disconnected before its number is given back");
    }

    fn route_msi(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        let mut state = self.lock();
        state.calls += 1;
        state.deliver(gsi);
        if state.refuses_routes && message.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        state.line(gsi).message = message;
        Ok(())
    }

    fn set_irqfd(&self, gsi: u32, fd: &EventFd, on: bool) -> io::Result<()> {
        let mut state = self.lock();
        state.calls += 1;
        state.deliver(gsi);
        let line = state.line(gsi);
        assert_ne!(line.fd.is_some(), on, "an irqfd is connected and disconnected in turns");
        assert!(!on || line.message.is_some(), "an irqfd is connected when it has a route");
        line.fd = if on { Some(fd.try_clone()?) } else { None };
        let message = line.message;
        // KVM delivers what it finds at once and leaves it in the descriptor.
        line.stale = if on { fd.read().unwrap_or(0) } else { 0 };
        if line.stale != 0 {
            fd.write(line.stale)?;
            state.delivered.extend(message);
        }
        Ok(())
    }

    fn show_memory(&self, address: u64, memory: &Arc<HostMemory>) -> io::Result<()> {
        let mut state = self.lock();
        if state.refuses_memory {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let end = address + memory.len();
        let before = state.memory.range(..end).next_back();
        assert!(
            before.is_none_or(|(start, memory)| start + memory.len() <= address),
            "memory is shown where nothing is"
        );
        state.memory.insert(address, Arc::clone(memory));
        Ok(())
    }

    fn hide_memory(&self, address: u64) {
        self.lock().memory.remove(&address).expect("only what is shown is hidden");
    }
}
