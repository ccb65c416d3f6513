//! MSI-X (PCI 3.0 §6.8.2): the vector table, the pending bits, and an irqfd for each vector in use.
//!
//! A vector is an eventfd that devices signal. While the guest takes the vector's interrupts, the
//! eventfd is connected to the interrupt controller and no code of ours runs for an interrupt.
//! While it does not (vector or function masked, MSI-X disabled), the eventfd is disconnected and
//! keeps count: that count is the pending bit, and is delivered when the vector is connected again.
//!
//! | table entry, 16 bytes | |
//! |---|---|
//! | 0 | message address, low half |
//! | 4 | message address, high half |
//! | 8 | message data |
//! | 12 | vector control: bit 0 masks |

use std::{io, mem};

use parador_virtio::{Interrupt, LogLimit};
use tracing::warn;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Host, MsiMessage};

/// Capability identifier of MSI-X.
pub(super) const CAPABILITY: u8 = 0x11;
/// Where Message Control is in the capability.
pub(super) const CONTROL: usize = 2;
/// Message Control: MSI-X is enabled.
pub(super) const CONTROL_ENABLE: u16 = 1 << 15;
/// Message Control: all vectors are masked.
pub(super) const CONTROL_MASK_ALL: u16 = 1 << 14;
/// Bytes of a table entry.
pub(super) const ENTRY_SIZE: usize = 16;
/// The most vectors a table may have.
pub(super) const MAX_VECTORS: usize = 2048;

/// Vector control: the vector is masked.
const VECTOR_MASKED: u32 = 1;

/// The vectors of one function.
pub(super) struct Msix {
    entries: Box<[Entry]>,
    enabled: bool,
    masked: bool,
}

struct Entry {
    message: MsiMessage,
    masked: bool,
    /// Signalled while disconnected, and taken out of the eventfd to show in the pending bits.
    pending: bool,
    /// Made when something is first mapped to the vector.
    line: Option<Line>,
}

/// The way from an eventfd to the guest.
struct Line {
    interrupt: Interrupt,
    gsi: u32,
    routed: Option<MsiMessage>,
    connected: bool,
}

impl Msix {
    /// A table of `count` vectors (1 to [`MAX_VECTORS`]) as at power-on: disabled, all masked.
    pub(super) fn new(count: u16) -> Self {
        let entries = (0..count).map(|_| Entry::new()).collect();
        Self { entries, enabled: false, masked: false }
    }

    /// Number of vectors.
    pub(super) fn count(&self) -> u16 {
        self.entries.len() as u16
    }

    /// The capability's body, and the bits of it a guest may write (PCI 3.0 §6.8.2.3). Table and
    /// pending bits are in `bar` at these offsets, multiples of 8.
    pub(super) fn capability(&self, bar: u8, table: u32, pending: u32) -> ([u8; 10], [u8; 2]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.count() - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        (body, (CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes())
    }

    /// What signals vector `index`. `None` if there is no such vector.
    ///
    /// # Errors
    /// The host has no descriptor or interrupt number left.
    pub(super) fn open(&mut self, index: u16, host: &dyn Host) -> io::Result<Option<Interrupt>> {
        let open = self.enabled && !self.masked;
        let Some(entry) = self.entries.get_mut(usize::from(index)) else { return Ok(None) };
        if entry.line.is_none() {
            let interrupt = Interrupt::from_eventfd(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
            entry.line = Some(Line { interrupt, gsi: host.allocate_gsi()?, routed: None, connected: false });
            entry.update(open, host);
        }
        Ok(entry.line.as_ref().map(|line| line.interrupt.clone()))
    }

    /// Whether MSI-X is enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Takes Message Control as the guest wrote it.
    pub(super) fn set_control(&mut self, control: u16, host: &dyn Host) {
        let enabled = control & CONTROL_ENABLE != 0;
        let masked = control & CONTROL_MASK_ALL != 0;
        if (enabled, masked) != (self.enabled, self.masked) {
            (self.enabled, self.masked) = (enabled, masked);
            for entry in &mut self.entries {
                entry.update(enabled && !masked, host);
            }
        }
    }

    /// Fills `data` from `offset` of the vector table; zero beyond its end. Any width and alignment.
    pub(super) fn read_table(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            let entry = self.entries.get(at / ENTRY_SIZE);
            *byte = entry.map_or(0, |entry| entry.word(at / 4 % 4).to_le_bytes()[at % 4]);
        }
    }

    /// Takes `data` at `offset` of the vector table; nothing beyond its end. Accesses other than
    /// aligned words of 4 or 8 bytes are undefined to the guest; here they change the bytes written.
    pub(super) fn write_table(&mut self, offset: usize, data: &[u8], host: &dyn Host) {
        let open = self.enabled && !self.masked;
        let end = offset + data.len();
        for word in offset / 4..end.div_ceil(4) {
            let Some(entry) = self.entries.get_mut(word / 4) else { return };
            let mut bytes = entry.word(word % 4).to_le_bytes();
            for (at, byte) in (word * 4..).zip(&mut bytes) {
                if let Some(value) = at.checked_sub(offset).and_then(|index| data.get(index)) {
                    *byte = *value;
                }
            }
            entry.set_word(word % 4, u32::from_le_bytes(bytes));
            entry.update(open, host);
        }
    }

    /// Fills `data` from `offset` of the pending bits, one for each vector; zero beyond the last.
    pub(super) fn read_pending(&mut self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = 0;
            for (bit, entry) in self.entries.iter_mut().skip(at.saturating_mul(8)).take(8).enumerate() {
                *byte |= u8::from(entry.is_pending()) << bit;
            }
        }
    }

    /// Back to power-on: disabled, all vectors masked, and everything given back to the host.
    pub(super) fn reset(&mut self, host: &dyn Host) {
        let Self { entries, enabled, masked } = self;
        (*enabled, *masked) = (false, false);
        for entry in entries {
            entry.update(false, host);
            if let Some(line) = entry.line.take() {
                host.release_gsi(line.gsi);
            }
            *entry = Entry::new();
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self { message: MsiMessage { address: 0, data: 0 }, masked: true, pending: false, line: None }
    }

    fn word(&self, index: usize) -> u32 {
        match index {
            0 => self.message.address as u32,
            1 => (self.message.address >> 32) as u32,
            2 => self.message.data,
            _ => u32::from(self.masked),
        }
    }

    fn set_word(&mut self, index: usize, value: u32) {
        let address = &mut self.message.address;
        match index {
            0 => *address = *address >> 32 << 32 | u64::from(value),
            1 => *address = *address & 0xFFFF_FFFF | u64::from(value) << 32,
            2 => self.message.data = value,
            _ => self.masked = value & VECTOR_MASKED != 0,
        }
    }

    /// Connects or disconnects the vector as the guest has it now; `open` is the function's part.
    fn update(&mut self, open: bool, host: &dyn Host) {
        let Self { message, masked, pending, line } = self;
        let Some(line) = line else { return };
        let open = open && !*masked;
        if open && line.routed != Some(*message) {
            if line.route(Some(*message), host) {
                line.routed = Some(*message);
            } else {
                // The old message is not what the guest asked for.
                line.routed = None;
                line.route(None, host);
            }
        }
        // Without a route an interrupt would be lost; disconnected it stays pending.
        let open = open && line.routed.is_some();
        if open == line.connected {
            return;
        }
        if open {
            // What came in meanwhile is taken out first and signalled again afterwards: a count
            // that is in the eventfd when it is connected would be delivered, but never taken out.
            *pending |= line.take();
        }
        if !line.connect(open, host) {
            return;
        }
        if open && mem::take(pending) {
            line.interrupt.signal();
        }
    }

    fn is_pending(&mut self) -> bool {
        if let Some(line) = &self.line
            && !line.connected
        {
            self.pending |= line.take();
        }
        self.pending
    }
}

impl Line {
    /// Whether the eventfd was signalled since it was last asked.
    fn take(&self) -> bool {
        self.interrupt.as_eventfd().is_some_and(|fd| fd.read().is_ok())
    }

    fn route(&self, message: Option<MsiMessage>, host: &dyn Host) -> bool {
        let result = host.route_msi(self.gsi, message);
        if let Err(error) = &result {
            // The guest chose where to.
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(dropped) = LIMIT.pass() {
                warn!(gsi = self.gsi, ?message, %error, dropped, "cannot route an interrupt");
            }
        }
        result.is_ok()
    }

    fn connect(&mut self, on: bool, host: &dyn Host) -> bool {
        let Some(fd) = self.interrupt.as_eventfd() else { return false };
        match host.set_irqfd(self.gsi, fd, on) {
            Ok(()) => {
                self.connected = on;
                true
            }
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(dropped) = LIMIT.pass() {
                    warn!(gsi = self.gsi, on, %error, dropped, "cannot connect an interrupt");
                }
                false
            }
        }
    }
}
