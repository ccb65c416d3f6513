//! The serial port of a PC (16550A), between the guest and two files.
//!
//! The guest's bytes are collected into lines and written when the file takes them. When nobody reads,
//! a bounded number is kept and the rest dropped: the guest neither waits nor fills the host's memory
//! (CVE-2020-27174).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::output::Output;
use crate::bus::{BusDevice, Effect};

/// An unfinished line is written after this long.
const LINE_PATIENCE: Duration = Duration::from_millis(5);
/// A blocked reader is tried again after this long.
const RETRY: Duration = Duration::from_millis(50);
/// So much of a line is written before it is finished.
const LINE_LIMIT: usize = 512;

/// Registers of a 16550, and bits of theirs, that are looked at here.
const IER: u8 = 1;
const IER_DATA: u8 = 1;
const IIR: u8 = 2;
const IIR_NONE: u8 = 1;
const IIR_DATA: u8 = 4;
const LCR: u8 = 3;
const LCR_DIVISOR: u8 = 0x80;
const LSR: u8 = 5;
const LSR_DATA: u8 = 1;

/// The guest's side of the port: its registers.
#[derive(Debug)]
pub struct Serial {
    shared: Arc<Mutex<State>>,
}

/// The host's side of the port, for the one thread that waits for events.
///
/// Its descriptor becomes readable when [`SerialPort::service`] has something to do.
#[derive(Debug, Clone)]
pub struct SerialPort {
    shared: Arc<Mutex<State>>,
    wake_fd: RawFd,
}

#[derive(Debug)]
struct State {
    uart: Uart<Line, Arc<Drained>, Sink>,
    drained: Arc<Drained>,
    /// Input was refused, so room for it is news.
    input_waits: bool,
    timer: TimerFd,
    armed: bool,
}

/// The interrupt line.
#[derive(Debug)]
struct Line(EventFd);

/// What the guest writes, on its way to the file.
#[derive(Debug)]
struct Sink(Output);

/// Whether the guest has read all its input since this was last asked.
#[derive(Debug, Default)]
struct Drained(AtomicBool);

impl Serial {
    /// A port that signals `interrupt` and writes the guest's bytes to `output`.
    ///
    /// `output` is never waited for. The master of a pseudo-terminal must not block by itself.
    ///
    /// # Errors
    /// The host has no descriptors left, or cannot wait for `output`.
    pub fn new(interrupt: EventFd, output: File) -> io::Result<(Self, SerialPort)> {
        let drained = Arc::new(Drained::default());
        let sink = Sink(Output::new(output)?);
        let timer = TimerFd::new()?;
        let wake_fd = timer.as_raw_fd();
        let uart = Uart::with_events(Line(interrupt), Arc::clone(&drained), sink);
        let state = State { uart, drained, input_waits: false, timer, armed: false };
        let shared = Arc::new(Mutex::new(state));
        Ok((Self { shared: Arc::clone(&shared) }, SerialPort { shared, wake_fd }))
    }
}

impl SerialPort {
    /// Writes what waits, as far as the file takes it.
    pub fn service(&self) {
        let mut state = lock(&self.shared);
        state.output().write_out(0);
        state.rearm();
    }

    /// How many bytes [`SerialPort::input`] would take now. When there is none, the descriptor becomes
    /// readable once the guest has read what it has.
    #[must_use]
    pub fn room(&self) -> usize {
        let mut state = lock(&self.shared);
        let room = state.uart.fifo_capacity();
        state.input_waits = room == 0;
        room
    }

    /// Gives bytes to the guest, and says how many it took: the first so many.
    ///
    /// # Errors
    /// The interrupt cannot be signalled.
    pub fn input(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.shared);
        let count = bytes.len().min(state.uart.fifo_capacity());
        state.input_waits = count < bytes.len();
        if count > 0 {
            state.uart.enqueue_raw_bytes(&bytes[..count]).map_err(|error| match error {
                vm_superio::serial::Error::Trigger(error) | vm_superio::serial::Error::IOError(error) => {
                    error
                }
                vm_superio::serial::Error::FullFifo => io::ErrorKind::WouldBlock.into(),
            })?;
        }
        Ok(count)
    }

    /// Writes what waits, and gives the reader until `patience` is over to take it.
    pub fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.shared);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let left = i32::try_from(left).unwrap_or(i32::MAX);
            state.output().write_out(left.min(100));
            if state.output().pending().is_empty() || left == 0 {
                return;
            }
        }
    }
}

impl AsRawFd for SerialPort {
    fn as_raw_fd(&self) -> RawFd {
        self.wake_fd
    }
}

impl State {
    fn output(&mut self) -> &mut Output {
        &mut self.uart.writer_mut().0
    }

    /// Sets the timer for what is left to do. This also takes back an expiry.
    fn rearm(&mut self) {
        let output = self.output();
        let delay = match (output.pending().is_empty(), output.is_blocked()) {
            (true, _) => None,
            (false, false) => Some(LINE_PATIENCE),
            (false, true) => Some(RETRY),
        };
        self.set_timer(delay);
    }

    /// Whether the guest has input to read and wants to be interrupted for it.
    fn wants_data_read(&mut self) -> bool {
        self.uart.read(LCR) & LCR_DIVISOR == 0
            && self.uart.read(IER) & IER_DATA != 0
            && self.uart.read(LSR) & LSR_DATA != 0
    }

    /// Reads a register.
    ///
    /// A 16550 says that there is input for as long as there is; the model forgets it with the first
    /// byte that is read, and a driver that stops after so many bytes would not come back for the rest.
    fn read(&mut self, offset: u8) -> u8 {
        let value = self.uart.read(offset);
        if offset == IIR && value & IIR_NONE != 0 && self.wants_data_read() {
            // It may stop again: there is one more interrupt for as long as there is input.
            self.interrupt();
            return value & !IIR_NONE | IIR_DATA;
        }
        value
    }

    /// Writes a register. Input that came while its interrupt was disabled interrupts when it is enabled.
    fn write(&mut self, offset: u8, value: u8) {
        // Only the interrupt can fail, when its eventfd's count is at its limit: it is pending then.
        if let Err(error) = self.uart.write(offset, value) {
            tracing::trace!(?error, "serial port");
        }
        if offset == IER && self.wants_data_read() {
            self.interrupt();
        }
    }

    fn interrupt(&self) {
        if let Err(error) = self.uart.interrupt_evt().trigger() {
            tracing::trace!(%error, "serial port");
        }
    }

    fn set_timer(&mut self, delay: Option<Duration>) {
        self.armed = delay.is_some();
        let result = match delay {
            Some(delay) => self.timer.reset(delay, None),
            None => self.timer.clear(),
        };
        if let Err(error) = result {
            tracing::error!(%error, "the serial port's timer cannot be set");
        }
    }

    /// Writes a line when it is finished, and otherwise sees to it that it does not wait for long.
    fn after_write(&mut self) {
        let output = self.output();
        let pending = output.pending();
        if pending.is_empty() || output.is_blocked() {
            return;
        }
        if pending.ends_with(b"\n") || pending.len() >= LINE_LIMIT {
            output.write_out(0);
            if output.is_blocked() {
                self.rearm();
            }
        } else if !self.armed {
            self.rearm();
        }
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if let [first, ..] = data
            && let Ok(offset) = u8::try_from(offset)
        {
            let mut state = lock(&self.shared);
            *first = state.read(offset);
            if state.drained.0.swap(false, Ordering::Relaxed) && state.input_waits {
                state.input_waits = false;
                state.set_timer(Some(Duration::from_nanos(1)));
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        if let (&[first, ..], Ok(offset)) = (data, u8::try_from(offset)) {
            let mut state = lock(&self.shared);
            state.write(offset, first);
            state.after_write();
        }
        Effect::None
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            self.0.push(byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use vmm_sys_util::poll::PollContext;

    use super::super::output::LIMIT;
    use super::*;

    const THR: u64 = 0;
    const RBR: u64 = 0;
    const IER: u64 = super::IER as u64;
    const IIR: u64 = super::IIR as u64;
    const LSR: u64 = super::LSR as u64;
    const DATA_READY: u8 = LSR_DATA;

    struct Rig {
        serial: Serial,
        port: SerialPort,
        interrupt: EventFd,
        reader: io::PipeReader,
    }

    fn rig() -> Rig {
        let (reader, writer) = pipe().unwrap();
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let (serial, port) =
            Serial::new(interrupt.try_clone().unwrap(), File::from(OwnedFd::from(writer))).unwrap();
        Rig { serial, port, interrupt, reader }
    }

    impl Rig {
        fn print(&mut self, text: &[u8]) {
            for &byte in text {
                assert_eq!(self.serial.write(THR, &[byte]), Effect::None);
            }
        }

        fn register(&mut self, offset: u64) -> u8 {
            let mut data = [0];
            self.serial.read(offset, &mut data);
            data[0]
        }

        fn read(&mut self, size: usize) -> Vec<u8> {
            let mut bytes = vec![0; size];
            self.reader.read_exact(&mut bytes).unwrap();
            bytes
        }

        fn wakes_within(&self, milliseconds: u64) -> bool {
            let context = PollContext::new().unwrap();
            context.add(&self.port, 0u32).unwrap();
            let events = context.wait_timeout(Duration::from_millis(milliseconds)).unwrap();
            events.iter_readable().count() > 0
        }
    }

    #[test]
    fn a_finished_line_is_written_at_once() {
        let mut rig = rig();
        rig.print(b"hello\n");
        assert_eq!(rig.read(6), b"hello\n");
    }

    #[test]
    fn a_prompt_is_written_soon() {
        let mut rig = rig();
        rig.print(b"login: ");
        assert!(rig.wakes_within(5000));
        rig.port.service();
        assert_eq!(rig.read(7), b"login: ");
        assert!(!rig.wakes_within(20), "nothing is left to do");
    }

    #[test]
    fn a_flood_with_a_blocked_reader_is_bounded() {
        let mut rig = rig();
        let line = [b"x".repeat(79), b"\n".to_vec()].concat();
        for _ in 0..20_000 {
            rig.print(&line);
        }
        assert_eq!(lock(&rig.port.shared).output().pending().len(), LIMIT);
        let before = Instant::now();
        rig.port.service();
        rig.port.finish(Duration::from_millis(30));
        assert!(before.elapsed() < Duration::from_secs(5), "nothing waits for the reader");

        // The reader comes back: it gets what was kept, and then what is new.
        let mut buffer = [0; 4096];
        while !lock(&rig.port.shared).output().pending().is_empty() {
            assert!(rig.reader.read(&mut buffer).unwrap() > 0);
            rig.port.service();
        }
        rig.print(b"\nback\n");
        let mut last = Vec::new();
        while !last.ends_with(b"\nback\n") {
            let count = rig.reader.read(&mut buffer).unwrap();
            last.extend_from_slice(&buffer[..count]);
            rig.port.service();
        }
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing() {
        let Rig { mut serial, port, interrupt: _, reader } = rig();
        drop(reader);
        for _ in 0..1000 {
            for byte in *b"to nobody\n" {
                assert_eq!(serial.write(THR, &[byte]), Effect::None);
            }
        }
        assert!(lock(&port.shared).output().pending().is_empty());
    }

    #[test]
    fn regular_files_are_written_too() {
        let mut file = tempfile::tempfile().unwrap();
        let interrupt = EventFd::new(0).unwrap();
        let (mut serial, port) = Serial::new(interrupt, file.try_clone().unwrap()).unwrap();
        for byte in *b"log\nend" {
            assert_eq!(serial.write(THR, &[byte]), Effect::None);
        }
        port.finish(Duration::ZERO);
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "log\nend");
    }

    #[test]
    fn input_left_in_the_port_is_announced_again() {
        let mut rig = rig();
        assert_eq!(rig.serial.write(IER, &[IER_DATA]), Effect::None);
        rig.port.input(b"abc").unwrap();
        rig.interrupt.read().unwrap();
        for byte in *b"abc" {
            assert_eq!(rig.register(IIR) & 0x0f, IIR_DATA, "a driver that stopped half-way comes back");
            assert_eq!(rig.register(RBR), byte);
        }
        assert_eq!(rig.register(IIR) & 0x0f, IIR_NONE);
        // Once for each time that it was told of what it had left behind.
        assert_eq!(rig.interrupt.read().unwrap(), 2);
    }

    #[test]
    fn input_from_before_the_interrupt_was_enabled_interrupts() {
        let mut rig = rig();
        rig.port.input(b"a").unwrap();
        assert!(rig.interrupt.read().is_err(), "nobody asked");
        assert_eq!(rig.serial.write(IER, &[IER_DATA]), Effect::None);
        rig.interrupt.read().unwrap();
        assert_eq!(rig.register(IIR) & 0x0f, IIR_DATA);
    }

    #[test]
    fn input_waits_for_the_guest() {
        let mut rig = rig();
        assert_eq!(rig.serial.write(IER, &[1]), Effect::None);
        let bytes: Vec<u8> = (0..100).collect();
        let taken = rig.port.input(&bytes).unwrap();
        assert_eq!((taken, rig.port.room()), (64, 0));
        assert_eq!(rig.interrupt.read().unwrap(), 1);
        assert!(!rig.wakes_within(20));
        for expected in 0..64 {
            assert_eq!(rig.register(LSR) & DATA_READY, DATA_READY);
            assert_eq!(rig.register(THR), expected);
        }
        assert_eq!(rig.register(LSR) & DATA_READY, 0);
        assert!(rig.wakes_within(5000), "there is room again");
        rig.port.service();
        assert_eq!(rig.port.room(), 64);
        assert_eq!(rig.port.input(&bytes[taken..]).unwrap(), 36);
    }

    #[test]
    fn odd_accesses_are_harmless() {
        let mut rig = rig();
        let mut data = [0; 8];
        for offset in [0, 7, 8, 255, 256, u64::MAX] {
            rig.serial.read(offset, &mut data);
            rig.serial.read(offset, &mut []);
            assert_eq!(rig.serial.write(offset, &[]), Effect::None);
            assert_eq!(rig.serial.write(offset, &[0; 8]), Effect::None);
        }
    }
}
