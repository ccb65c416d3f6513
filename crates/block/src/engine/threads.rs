//! A few threads per queue, for hosts where io_uring is forbidden.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{USUAL_PIECES, tidy};
use crate::disk::outcome;
use crate::raw::{RawFile, Scratch};
use crate::{Aio, Buffer, Disk, Op, Outcome, Submitted, Tag, sys};

/// The most threads one queue starts; it starts them as it needs them.
const MAX_THREADS: usize = 4;

pub(crate) struct ThreadsDisk {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Submitted since the last kick.
    staged: Vec<Job>,
    /// Storage of buffer lists that are not in use.
    spare: Vec<Vec<Buffer>>,
    in_flight: usize,
    /// For requests done here when not one thread could be started.
    scratch: Scratch,
}

struct Shared {
    raw: Arc<RawFile>,
    /// The only lock; never held across I/O.
    state: Mutex<State>,
    /// There are jobs, or it is time to stop.
    work: Condvar,
    /// Something is done.
    progress: Condvar,
    wake: OwnedFd,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: VecDeque<(Tag, Outcome, Vec<Buffer>)>,
    idle: usize,
    stop: bool,
}

/// A request that owns its buffer list.
struct Job {
    tag: Tag,
    kind: Kind,
    buffers: Vec<Buffer>,
}

#[derive(Clone, Copy)]
enum Kind {
    Read { offset: u64 },
    Write { offset: u64 },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, unmap: bool },
}

impl ThreadsDisk {
    pub(crate) fn new(raw: Arc<RawFile>, depth: u16) -> io::Result<Self> {
        let depth = usize::from(depth);
        let state = State {
            jobs: VecDeque::with_capacity(depth),
            done: VecDeque::with_capacity(depth),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            raw,
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            wake: sys::eventfd()?,
        });
        Ok(Self {
            shared,
            threads: Vec::with_capacity(MAX_THREADS),
            staged: Vec::with_capacity(depth),
            spare: Vec::with_capacity(depth),
            in_flight: 0,
            scratch: Scratch::default(),
        })
    }

    /// Starts threads until there are as many as jobs or as allowed; whether there is one at all.
    fn staff(&mut self, jobs: usize, idle: usize) -> bool {
        let wanted = (self.threads.len() + jobs.saturating_sub(idle)).min(MAX_THREADS);
        while self.threads.len() < wanted {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("disk".into()).spawn(move || shared.serve());
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(_) => break,
            }
        }
        !self.threads.is_empty()
    }
}

impl Disk for ThreadsDisk {
    fn submit(&mut self, op: Op<'_>, tag: Tag) -> Submitted {
        match self.shared.raw.admit(&op) {
            Err(error) => return Submitted::Done(Err(error.into())),
            Ok(0) if !matches!(op, Op::Flush) => return Submitted::Done(Ok(0)),
            Ok(_) => {}
        }
        let mut buffers = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(USUAL_PIECES));
        let kind = match op {
            Op::Read { offset, buffers: pieces } => {
                buffers.extend_from_slice(pieces);
                Kind::Read { offset }
            }
            Op::Write { offset, buffers: pieces } => {
                buffers.extend_from_slice(pieces);
                Kind::Write { offset }
            }
            Op::Flush => Kind::Flush,
            Op::Discard { offset, len } => Kind::Discard { offset, len },
            Op::WriteZeroes { offset, len, unmap } => Kind::WriteZeroes { offset, len, unmap },
            Op::Append { .. } | Op::Zone { .. } => {
                return Submitted::Done(Err(io::ErrorKind::Unsupported.into()));
            }
        };
        self.staged.push(Job { tag, kind, buffers });
        self.in_flight += 1;
        Submitted::InFlight
    }

    fn kick(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let (waiting, idle) = {
            let state = self.shared.lock();
            (state.jobs.len(), state.idle)
        };
        let staffed = self.staff(waiting + self.staged.len(), idle);
        let mut state = self.shared.lock();
        if staffed {
            let more = self.staged.len() > 1;
            state.jobs.extend(self.staged.drain(..));
            drop(state);
            if more { self.shared.work.notify_all() } else { self.shared.work.notify_one() }
        } else {
            for job in self.staged.drain(..) {
                let result = job.execute(&self.shared.raw, &mut self.scratch);
                state.done.push_back((job.tag, result, job.buffers));
            }
            drop(state);
            sys::signal(self.shared.wake.as_fd());
        }
    }

    fn reap(&mut self) -> Option<(Tag, Outcome)> {
        if self.in_flight == 0 {
            return None;
        }
        let (tag, result, mut buffers) = self.shared.lock().done.pop_front()?;
        self.in_flight -= 1;
        tidy(&mut buffers);
        self.spare.push(buffers);
        Some((tag, result))
    }

    fn wait(&mut self) {
        self.kick();
        if self.in_flight == 0 {
            return;
        }
        let mut state = self.shared.lock();
        while state.done.is_empty() {
            state = self.shared.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn cancel(&mut self) {
        let mut state = self.shared.lock();
        let State { jobs, done, .. } = &mut *state;
        for job in jobs.drain(..).chain(self.staged.drain(..)) {
            done.push_back((job.tag, Err(io::ErrorKind::Interrupted.into()), job.buffers));
        }
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.wake.as_fd())
    }

    fn aio(&self) -> Aio {
        Aio::Threads
    }
}

impl Drop for ThreadsDisk {
    fn drop(&mut self) {
        // Jobs that no thread has begun need not be: whoever drops a disk asks for no results.
        self.shared.lock().jobs.clear();
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported itself; it holds no memory of a request any more.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one thread.
    fn serve(&self) {
        let mut scratch = Scratch::default();
        let mut state = self.lock();
        loop {
            let Some(job) = state.jobs.pop_front() else {
                if state.stop {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let result = job.execute(&self.raw, &mut scratch);
            state = self.lock();
            state.done.push_back((job.tag, result, job.buffers));
            self.progress.notify_one();
            // Whoever reaps goes on until it finds nothing, so only the first needs a signal.
            if state.done.len() == 1 {
                sys::signal(self.wake.as_fd());
            }
        }
    }
}

impl Job {
    fn execute(&self, raw: &RawFile, scratch: &mut Scratch) -> Outcome {
        let buffers = self.buffers.as_slice();
        let op = match self.kind {
            Kind::Read { offset } => Op::Read { offset, buffers },
            Kind::Write { offset } => Op::Write { offset, buffers },
            Kind::Flush => Op::Flush,
            Kind::Discard { offset, len } => Op::Discard { offset, len },
            Kind::WriteZeroes { offset, len, unmap } => Op::WriteZeroes { offset, len, unmap },
        };
        outcome(raw.execute(op, scratch))
    }
}
