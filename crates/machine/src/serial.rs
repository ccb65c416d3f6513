//! The thread between a serial port and the world: it brings input and waits for slow readers.

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::legacy::SerialPort;

const STACK_BYTES: usize = 64 << 10;
/// Most bytes read at once; the port's own room is less.
const CHUNK: usize = 64;
/// How long the last output of a guest that has ended waits for a slow reader.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread, once it was started. It ends when this is dropped.
pub(crate) struct SerialThread {
    port: SerialPort,
    stop: EventFd,
    state: Mutex<State>,
}

enum State {
    Made(Pump),
    Started(JoinHandle<()>),
    Over,
}

impl SerialThread {
    /// All that the thread of `port` needs, whose input comes from `input`.
    pub(crate) fn new(port: SerialPort, input: Option<File>) -> io::Result<Self> {
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)?;
        let pump = Pump::new(port.clone(), input, &stop)?;
        Ok(Self { port, stop, state: Mutex::new(State::Made(pump)) })
    }

    /// Starts the thread. A guest that runs already misses nothing: it sees its input a little later.
    pub(crate) fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        let State::Made(mut pump) = mem::replace(&mut *state, State::Over) else { return Ok(()) };
        let builder = thread::Builder::new().name("serial".to_owned()).stack_size(STACK_BYTES);
        *state = State::Started(builder.spawn(move || {
            if let Err(error) = pump.run() {
                tracing::error!(%error, "the serial port goes on without its input");
            }
        })?);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what the guest left behind, unless its reader is too slow.
    pub(crate) fn finish(&self) {
        self.port.finish(PATIENCE);
    }
}

impl Drop for SerialThread {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        let state = mem::replace(&mut *self.state(), State::Over);
        if let State::Started(thread) = state
            && thread.join().is_err()
        {
            tracing::error!("the serial port's thread panicked");
        }
    }
}

/// What the thread waits for, and what it does then.
struct Pump {
    port: SerialPort,
    input: Option<Input>,
    epoll: Epoll,
}

struct Input {
    file: File,
    /// A file that never blocks (a regular one, /dev/null) cannot be waited for.
    pollable: bool,
    /// Whether the thread waits for it: only while the guest has room.
    awaited: bool,
}

const STOP: u64 = 0;
const PORT: u64 = 1;
const INPUT: u64 = 2;

impl Pump {
    fn new(port: SerialPort, input: Option<File>, stop: &EventFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let watch =
            |fd: RawFd, what: u64| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, what));
        watch(stop.as_raw_fd(), STOP)?;
        watch(port.as_raw_fd(), PORT)?;
        let input = match input {
            Some(file) => match epoll.ctl(
                ControlOperation::Add,
                file.as_raw_fd(),
                EpollEvent::new(EventSet::empty(), INPUT),
            ) {
                Ok(()) => Some(Input { file, pollable: true, awaited: false }),
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    Some(Input { file, pollable: false, awaited: false })
                }
                Err(error) => return Err(error),
            },
            None => None,
        };
        Ok(Self { port, input, epoll })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 3];
        loop {
            self.offer_input()?;
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                match event.data() {
                    STOP => return Ok(()),
                    PORT => self.port.service(),
                    _ => self.take_input()?,
                }
            }
        }
    }

    /// Waits for input while the guest has room for it.
    fn offer_input(&mut self) -> io::Result<()> {
        while self.input.as_ref().is_some_and(|input| !input.pollable) && self.port.room() > 0 {
            self.take_input()?;
        }
        let Some(input) = &mut self.input else { return Ok(()) };
        let wanted = input.pollable && self.port.room() > 0;
        if wanted != input.awaited {
            input.awaited = wanted;
            let set = if wanted { EventSet::IN } else { EventSet::empty() };
            self.epoll.ctl(ControlOperation::Modify, input.file.as_raw_fd(), EpollEvent::new(set, INPUT))?;
        }
        Ok(())
    }

    fn take_input(&mut self) -> io::Result<()> {
        let mut bytes = [0; CHUNK];
        let room = self.port.room().min(CHUNK);
        let Some(input) = self.input.as_mut().filter(|_| room > 0) else { return Ok(()) };
        match input.file.read(&mut bytes[..room]) {
            Ok(0) => self.close_input(),
            Ok(count) => self.port.input(&bytes[..count]).map(drop),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                Ok(())
            }
            // A terminal that has hung up, a pseudo-terminal whose other side is closed.
            Err(_) => self.close_input(),
        }
    }

    fn close_input(&mut self) -> io::Result<()> {
        match self.input.take() {
            Some(input) if input.pollable => {
                self.epoll.ctl(ControlOperation::Delete, input.file.as_raw_fd(), EpollEvent::default())
            }
            _ => Ok(()),
        }
    }
}
