//! The console device (virtio 1.3 §5.3): one port, with a size and an emergency register.
//!
//! Queue 0 carries what the user types to the guest, queue 1 what the guest prints. Output is never
//! buffered here: what the host's end has no room for stays in the ring, so a guest that floods its
//! console costs no memory.

mod backend;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::ids::VIRTIO_ID_CONSOLE;
use parador_virtio::{
    Identity, Interrupt, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, VirtioDevice,
};

use crate::config_space;
use crate::sys::Pieces;
use backend::{Ends, Sink, Source};

/// The configuration space tells the size of the terminal (§5.3.3).
const F_SIZE: u64 = 1 << 0;
/// A byte can be printed before there are queues (§5.3.3).
const F_EMERG_WRITE: u64 = 1 << 2;

/// cols, rows: le16; max_nr_ports, emerg_wr: le32 (§5.3.4).
const CONFIG_LEN: usize = 12;
const EMERG_WR: usize = 8;

/// The most bytes of one chain that are printed; a kernel prints a page at a time.
const MAX_CHAIN: usize = 1 << 20;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// What a console is connected to.
#[derive(Debug)]
pub enum Backend {
    /// Output goes nowhere and nothing is ever typed.
    Null,
    /// A pair of descriptors, such as standard input and output. Terminal modes are the caller's.
    Stdio {
        /// What is typed.
        input: OwnedFd,
        /// Where output goes.
        output: OwnedFd,
    },
    /// A new pseudo-terminal; [`Console::pty`] says where. Output is dropped while nobody has it open.
    Pty,
    /// Output is appended to a file and nothing is ever typed.
    File(PathBuf),
    /// A UNIX socket that is made at this path and takes one client at a time, again and again.
    /// Output is dropped while there is none.
    Socket(PathBuf),
}

/// How a console is to be.
#[derive(Debug)]
pub struct ConsoleOptions {
    /// What it is connected to.
    pub backend: Backend,
    /// Size of the terminal at the start, in characters; zeroes mean unknown.
    pub size: Size,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

/// The host's end of a console cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the console cannot {what}")]
pub struct ConsoleError {
    what: String,
    #[source]
    source: io::Error,
}

/// A console device.
pub struct Console {
    identity: Identity,
    screen: Arc<Mutex<Screen>>,
    sink: Arc<Sink>,
    pty: Option<PathBuf>,
    receive: Lane<Receive>,
    transmit: Lane<Transmit>,
}

impl Console {
    /// Opens the host's end.
    ///
    /// # Errors
    /// A file, socket or pseudo-terminal cannot be opened or watched.
    pub fn new(options: ConsoleOptions) -> Result<Self, ConsoleError> {
        let ConsoleOptions { backend, size } = options;
        let Ends { source, sink, pty } = Ends::new(backend)?;
        let identity = Identity {
            kind: VIRTIO_ID_CONSOLE,
            features: F_SIZE | F_EMERG_WRITE,
            required: 0,
            queue_sizes: Box::new([64, 64]),
            config_len: CONFIG_LEN,
            ..Identity::default()
        };
        let transmit = Transmit { sink: Arc::clone(&sink), pieces: Pieces::default(), sent: 0 };
        Ok(Self {
            identity,
            screen: Arc::new(Mutex::new(Screen { size, changed: Interrupt::nobody() })),
            sink,
            pty,
            receive: Lane::new(Receive { source, pieces: Pieces::default() }),
            transmit: Lane::new(transmit),
        })
    }

    /// The path of the pseudo-terminal, for [`Backend::Pty`].
    #[must_use]
    pub fn pty(&self) -> Option<&Path> {
        self.pty.as_deref()
    }

    /// A handle to tell the guest of a new size. It may be used from any thread, at any time.
    #[must_use]
    pub fn resizer(&self) -> Resizer {
        Resizer(Arc::clone(&self.screen))
    }
}

/// Tells the guest how large its terminal is.
#[derive(Clone)]
pub struct Resizer(Arc<Mutex<Screen>>);

impl Resizer {
    /// Sets the size; a change interrupts the guest.
    pub fn resize(&self, size: Size) {
        let mut screen = lock(&self.0);
        if screen.size != size {
            screen.size = size;
            let changed = screen.changed.clone();
            drop(screen);
            changed.signal();
        }
    }
}

struct Screen {
    size: Size,
    changed: Interrupt,
}

/// Never held across a call out of this file.
fn lock(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VirtioDevice for Console {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let Size { cols, rows } = lock(&self.screen).size;
        let mut space = [0; CONFIG_LEN];
        space[0..2].copy_from_slice(&cols.to_le_bytes());
        space[2..4].copy_from_slice(&rows.to_le_bytes());
        space[4..8].copy_from_slice(&1u32.to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        if offset == EMERG_WR
            && let Some(&byte) = data.first()
        {
            self.sink.send_byte(byte);
        }
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        lock(&self.screen).changed = interrupt;
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        match setup.index {
            RECEIVE => {
                self.receive.start("console-rx", setup)?;
                // Linux reads the size when it is told of a change, and not before.
                let screen = lock(&self.screen);
                let changed = (screen.size != Size::default()).then(|| screen.changed.clone());
                drop(screen);
                changed.into_iter().for_each(|changed| changed.signal());
                Ok(())
            }
            TRANSMIT => self.transmit.start("console-tx", setup),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        match index {
            RECEIVE => self.receive.stop(),
            TRANSMIT => self.transmit.stop(),
            _ => None,
        }
    }

    fn reset(&mut self) {
        if let Some(handler) = self.transmit.handler() {
            handler.sent = 0;
        }
    }
}

struct Receive {
    source: Source,
    pieces: Pieces,
}

impl QueueHandler for Receive {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            let mut writer = chain.writer();
            let room = writer.remaining();
            self.pieces.clear();
            if self.pieces.add_room(&mut writer, room).is_none() || room == 0 {
                queue.push(chain, 0);
                continue;
            }
            let Some(count) = self.source.receive(&mut self.pieces) else {
                queue.undo_pop(chain);
                return Ok(());
            };
            queue.push(chain, u32::try_from(count).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.source.wake()
    }
}

struct Transmit {
    sink: Arc<Sink>,
    pieces: Pieces,
    /// How much of the ring's next chain has been sent already.
    sent: usize,
}

impl QueueHandler for Transmit {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        while let Some(chain) = queue.pop()? {
            // What was sent of it stays sent, whatever the driver has made of the chain since.
            let total = chain.reader().remaining().min(MAX_CHAIN);
            while self.sent < total {
                let mut reader = chain.reader();
                reader.skip(self.sent);
                let left = total - self.sent;
                self.pieces.clear();
                if self.pieces.add_data(&mut reader, left).is_none() {
                    break;
                }
                let Some(count) = self.sink.send(&mut self.pieces, left) else {
                    queue.undo_pop(chain);
                    return Ok(());
                };
                self.sent += count;
            }
            self.sent = 0;
            queue.push(chain, 0);
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.sink.wake())
    }
}
