//! Requests of 4 KiB, as many at once as are asked for, as fast as they come back: to a vhost-user
//! back-end, or to a file by plain io_uring, which is the limit.
//!
//!     cargo run --release --example load -- SOCKET read 32 2 1000
//!     cargo run --release --example load -- SOCKET append 32 1 1000 zone=65536 empty=zones
//!     cargo run --release --example load -- --file FILE write 32 2 1000
//!
//! After what is asked (`read` and `write` are random; `sequence` is written and `append`ed from the start
//! of zones, until they are full) come depth (of each queue), queues and milliseconds, and then, in any
//! order: `streams=N`, how many zones from the first on are written by turns, `zone=N`, how many blocks
//! each has; `flush=N`, a FLUSH after every N writes; `empty=zones` or `empty=ranges`, to reset all zones or
//! to discard all blocks before; `settled=yes`, a FLUSH afterwards, as what is not on the disk yet would be in
//! the way of whoever is measured next; `rest=N`, to stay connected for so many milliseconds more, with queues
//! that have nothing to do. Prints one line: `requests=`, `seconds=`, and `cpu=`, the processor time in
//! seconds of this process. The client is the `virtio-driver` crate, which knows nothing of Parador; like a
//! guest it sleeps until it is called.
#![expect(unsafe_code, reason = "asks the kernel for its time")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod course;
mod disk;
mod plain;

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use course::{Kind, Load};
use disk::Empty;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const BLOCK: usize = 4096;

const USAGE: &str = "usage: load SOCKET|--file FILE read|write|sequence|append DEPTH QUEUES MILLISECONDS \
                     [streams=N] [zone=N] [flush=N] [empty=zones|ranges] [settled=yes] [rest=N]";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let task = Task::parse(&args)?;
    let (Done { requests, time }, _connection) = task.run()?;
    let (seconds, cpu) = (time.as_secs_f64(), processor_time()?.as_secs_f64());
    println!("requests={requests} seconds={seconds:.6} cpu={cpu:.3}");
    std::thread::sleep(task.rest);
    Ok(())
}

/// What is to be done, and where.
pub(crate) struct Task<'a> {
    file: bool,
    target: &'a str,
    queues: usize,
    load: Load,
    empty: Option<Empty>,
    settled: bool,
    rest: Duration,
}

impl<'a> Task<'a> {
    /// Does it; what was done, and the connection.
    pub(crate) fn run(&self) -> Result<(Done, Option<Box<disk::Transport>>)> {
        let Self { file, target, queues, load, empty, settled, .. } = *self;
        if file {
            return Ok((plain::run(target, queues, load)?, None));
        }
        let (done, transport) = disk::run(target, queues, load, empty, settled)?;
        Ok((done, Some(transport)))
    }

    pub(crate) fn parse(args: &[&'a str]) -> Result<Self> {
        let (file, target, rest) = match args {
            ["--file", path, rest @ ..] => (true, *path, rest),
            [socket, rest @ ..] => (false, *socket, rest),
            [] => return Err(USAGE.into()),
        };
        let [kind, depth, queues, time, words @ ..] = rest else { return Err(USAGE.into()) };
        let kind = match *kind {
            "read" => Kind::Read,
            "write" => Kind::Write,
            "sequence" => Kind::Sequence,
            "append" => Kind::Append,
            _ => return Err(USAGE.into()),
        };
        let time = Duration::from_millis(time.parse()?);
        let load = Load { kind, depth: depth.parse()?, blocks: 0, time, streams: 1, zone: 0, flush: None };
        let mut task = Task {
            file,
            target,
            queues: queues.parse()?,
            load,
            empty: None,
            settled: false,
            rest: Duration::ZERO,
        };
        for word in words {
            match word.split_once('=').ok_or(USAGE)? {
                ("streams", count) => task.load.streams = count.parse()?,
                ("zone", blocks) => task.load.zone = blocks.parse()?,
                ("flush", writes) => task.load.flush = Some(writes.parse()?),
                ("empty", "zones") => task.empty = Some(Empty::Zones),
                ("empty", "ranges") => task.empty = Some(Empty::Ranges),
                ("settled", "yes") => task.settled = true,
                ("rest", time) => task.rest = Duration::from_millis(time.parse()?),
                _ => return Err(USAGE.into()),
            }
        }
        let zones = matches!(kind, Kind::Sequence | Kind::Append);
        if zones && (task.load.zone == 0 || task.load.streams == 0 || task.queues != 1 || file) {
            return Err("zones are written by one queue of a back-end, and have blocks".into());
        }
        Ok(task)
    }
}

/// What was done, by all queues.
pub(crate) struct Done {
    pub(crate) requests: u64,
    time: Duration,
}

/// Runs each on a thread of its own; each says how many requests it made.
fn in_threads<T: Send>(each: Vec<T>, run: impl Fn(T) -> Result<u64> + Sync) -> Result<Done> {
    let begin = Instant::now();
    let requests = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = each.into_iter().map(|one| scope.spawn(move || run(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum::<Result<u64>>()
    })?;
    Ok(Done { requests, time: begin.elapsed() })
}

/// Of this process, all threads, in user space and in the kernel.
fn processor_time() -> Result<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel fills in the structure.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: it did.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| -> Result<Duration> {
        Ok(Duration::new(time.tv_sec.try_into()?, 1000 * u32::try_from(time.tv_usec)?))
    };
    Ok(time(usage.ru_utime)? + time(usage.ru_stime)?)
}
