//! What one 4 KiB read costs on its way through a virtio disk: system calls, instructions, heap
//! allocations and processor time of the queue's thread, by I/O engine and depth.
//!
//!     cargo run --release --example blk_path -- [FILE]
//!
//! Without a file, a temporary one is made, which stays in the host's cache. `depth` requests go in at once, and the next
//! ones when all are back and the thread sleeps again, so that what a request costs does not depend
//! on how fast the driver is. Beside it is what the same reads cost without a device, asked of the
//! I/O engine by a thread that does nothing else: the limit. Each line is a list of `key=value`; figures are per request.
//! Instructions of user space and system calls are counted by tracing the thread step by step, so
//! they are exact and need no performance counters; those of the kernel need them, and say
//! `unsupported` where the processor's are hidden (in most virtual machines).
#![expect(unsafe_code, reason = "perf_event_open, and the memory that reads go to")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

#[path = "../../tests/counting/mod.rs"]
mod counting;
mod tracer;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use parador_block::{Aio, Buffer, Disk, Image, Op, RawOptions, Submitted};
use parador_devices::blk::{Blk, BlkOptions};
use parador_virtio::testing::{Driver, Harness, PATIENCE};

use tracer::Tracer;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FILE_LEN: u64 = 64 << 20;
const READ_LEN: usize = 4096;
/// Requests per figure; stepping through one takes milliseconds.
const REQUESTS: u64 = 2048;
const REQUESTS_STEPPED: u64 = 64;
const MAX_DEPTH: u64 = 32;

fn main() -> Result<()> {
    counting::leave_out_this_thread();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [trace, how, tid, counter] = args.as_slice()
        && trace == "--trace"
    {
        return tracer::run(how, tid.parse()?, Path::new(counter));
    }
    let made;
    let path = if let Some(path) = args.first() {
        PathBuf::from(path)
    } else {
        made = tempfile::NamedTempFile::new()?;
        // Every page is there, so that no read finds a hole.
        let page = vec![0x5a; 1 << 20];
        (0..FILE_LEN)
            .step_by(page.len())
            .try_for_each(|_| io::Write::write_all(&mut made.as_file(), &page))?;
        made.path().to_path_buf()
    };
    for aio in [Aio::IoUring, Aio::Threads, Aio::Sync] {
        for depth in [1, MAX_DEPTH] {
            compare(&path, aio, depth)?;
        }
    }
    Ok(())
}

/// Figures of one thread, per request; `None` where the host does not let us count.
struct Figures {
    syscalls: Option<f64>,
    user: Option<f64>,
    kernel: Option<f64>,
    allocations: f64,
    cpu_ns: f64,
    wall_ns: f64,
}

/// Prints what the device costs, what its I/O engine alone costs, and one as a multiple of the other.
fn compare(path: &Path, aio: Aio, depth: u64) -> Result<()> {
    let options = RawOptions { aio, read_only: true, ..RawOptions::new(path) };
    let image = Image::open(&options)?;
    let engine = EngineLoad::start(&image, depth)?;
    let alone = measure(engine.thread, &mut |requests| engine.run(requests))?;
    engine.stop();

    let aio = image.queue(1)?.aio();
    let sectors = image.size() / 512;
    let mut disk = Harness::new(Blk::new(BlkOptions::new(image))?);
    let driver = disk.driver(0);
    let mut load = Load { sectors, depth, random: Random(1), thread: find_thread("blk.0")? };
    let device = measure(load.thread, &mut |requests| load.run(driver, requests))?;

    print("device", aio, depth, &device);
    print("engine", aio, depth, &alone);
    let ratio = |device: Option<f64>, alone: Option<f64>| Some(device? / alone?);
    println!(
        "path=device/engine aio={aio:?} depth={depth} syscalls={} instructions_user={} instructions_kernel={}",
        text(ratio(device.syscalls, alone.syscalls)),
        text(ratio(device.user, alone.user)),
        text(ratio(device.kernel, alone.kernel)),
    );
    Ok(())
}

fn print(path: &str, aio: Aio, depth: u64, figures: &Figures) {
    let Figures { syscalls, user, kernel, allocations, cpu_ns, wall_ns } = figures;
    println!(
        "path={path} aio={aio:?} depth={depth} syscalls={} instructions_user={} instructions_kernel={} \
         allocations={allocations:.2} cpu_ns={cpu_ns:.0} wall_ns={wall_ns:.0}",
        text(*syscalls),
        text(*user),
        text(*kernel),
    );
}

fn text(figure: Option<f64>) -> String {
    figure.map_or_else(|| "unsupported".into(), |figure| format!("{figure:.2}"))
}

/// Measures `thread` while `run` makes it serve requests.
fn measure(thread: i32, run: &mut impl FnMut(u64)) -> Result<Figures> {
    run(REQUESTS);
    let counter = KernelInstructions::of(thread).ok();
    let kernel = counter.as_ref().map(KernelInstructions::read);
    let (allocations, cpu, start) = (counting::allocations(), cpu_ns(thread)?, Instant::now());
    run(REQUESTS);
    let elapsed = start.elapsed();
    let allocations = counting::allocations() - allocations;
    let cpu = cpu_ns(thread)? - cpu;
    let kernel = counter.zip(kernel).map(|(counter, before)| counter.read() - before);
    let per_request = |count: u64| count as f64 / REQUESTS as f64;
    Ok(Figures {
        syscalls: traced("syscalls", thread, run, REQUESTS),
        user: traced("steps", thread, run, REQUESTS_STEPPED),
        kernel: kernel.map(per_request),
        allocations: per_request(allocations),
        cpu_ns: per_request(cpu),
        wall_ns: per_request(u64::try_from(elapsed.as_nanos())?),
    })
}

/// Where to read.
struct Random(u64);

impl Random {
    /// A sector of which eight can be read.
    fn sector(&mut self, sectors: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (sectors / 8) * 8
    }
}

/// The same reads without a device: a thread that does nothing but ask the I/O engine. The limit of
/// what a device over it can reach.
struct EngineLoad {
    thread: i32,
    jobs: SyncSender<u64>,
    done: Receiver<()>,
    handle: JoinHandle<()>,
}

impl EngineLoad {
    fn start(image: &Image, depth: u64) -> Result<Self> {
        let mut disk = image.queue(256)?;
        let sectors = image.size() / 512;
        let (jobs, todo) = sync_channel(1);
        let (finished, done) = sync_channel(1);
        let handle = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let mut random = Random(1);
            let mut memory = vec![0; READ_LEN * MAX_DEPTH as usize];
            while let Ok(requests) = todo.recv() {
                for _ in 0..requests / depth {
                    round(&mut *disk, &mut memory, depth, || random.sector(sectors) * 512);
                }
                if finished.send(()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: find_thread("engine")?, jobs, done, handle })
    }

    fn run(&self, requests: u64) {
        self.jobs.send(requests).expect("the thread waits for work");
        self.done.recv().expect("the thread says when it is done");
    }

    fn stop(self) {
        drop(self.jobs);
        self.handle.join().expect("the thread ends when there is no more work");
    }
}

/// `depth` reads at once, into pieces of `memory`.
fn round(disk: &mut dyn Disk, memory: &mut [u8], depth: u64, mut offset: impl FnMut() -> u64) {
    let mut left = 0;
    for (tag, piece) in (0..depth).zip(memory.chunks_mut(READ_LEN)) {
        let iovec = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: piece.len() };
        // SAFETY: nobody looks at the memory before all reads are over, below.
        let buffers = [unsafe { Buffer::new(iovec) }];
        match disk.submit(Op::Read { offset: offset(), buffers: &buffers }, tag as u32) {
            Submitted::Done(result) => drop(result.expect("the disk reads")),
            Submitted::InFlight => left += 1,
        }
    }
    disk.kick();
    while left > 0 {
        match disk.reap() {
            Some((_, result)) => {
                result.expect("the disk reads");
                left -= 1;
            }
            None => disk.wait(),
        }
    }
}

/// Random reads of a driver.
struct Load {
    sectors: u64,
    depth: u64,
    random: Random,
    thread: i32,
}

impl Load {
    fn run(&mut self, driver: &mut Driver, requests: u64) {
        for _ in 0..requests / self.depth {
            for _ in 0..self.depth {
                let sector = self.random.sector(self.sectors);
                let mut header = [0; 16];
                header[8..].copy_from_slice(&sector.to_le_bytes());
                driver.add(&[&header], &[READ_LEN, 1]).expect("the ring has room");
            }
            // A driver that happens to look before it is told would spare the device the telling.
            driver.ask_for_interrupt();
            driver.kick();
            while driver.in_flight() > 0 {
                let used = driver.wait_used(PATIENCE).expect("the disk answers");
                assert_eq!(used.data.last(), Some(&0), "the disk reads");
            }
            while !is_asleep(self.thread) {
                std::thread::yield_now();
            }
        }
    }
}

/// Runs `requests` requests with the thread traced; what was counted, per request.
fn traced(how: &str, thread: i32, run: &mut impl FnMut(u64), requests: u64) -> Option<f64> {
    let tracer = Tracer::start(how, thread).ok()?;
    let before = tracer.count();
    run(requests);
    let count = tracer.count() - before;
    // The thread has to move for its tracer to let go of it.
    tracer.finish(|| run(MAX_DEPTH));
    Some(count as f64 / requests as f64)
}

/// Whether a thread waits in `epoll_wait`, as a queue's does when there is nothing to do.
fn is_asleep(thread: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    // A stopped thread (a traced one) says what it was in; only a sleeping one is done.
    let state = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    let sleeps = state.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'));
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    sleeps && [libc::SYS_epoll_wait, libc::SYS_epoll_pwait].map(Some).contains(&number)
}

/// The thread of that name, which may just have been started.
fn find_thread(name: &str) -> Result<i32> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?;
            // It may have ended since it was listed.
            let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.trim_end() == name {
                return Ok(task.file_name().to_string_lossy().parse()?);
            }
        }
        std::thread::yield_now();
    }
    Err(format!("no thread is called {name}").into())
}

/// Time the thread spent on a processor. In the lab's virtual time, that is its instructions.
fn cpu_ns(thread: i32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))?;
    Ok(stat.split(' ').next().unwrap_or_default().parse()?)
}

/// A performance counter of a thread's instructions in the kernel.
struct KernelInstructions(File);

impl KernelInstructions {
    fn of(thread: i32) -> io::Result<Self> {
        // struct perf_event_attr: type 0 (hardware), size, config 1 (instructions), exclude_user.
        let mut attributes = [0u64; 16];
        attributes[0] = 128 << 32;
        attributes[1] = 1;
        attributes[5] = 1 << 4;
        // SAFETY: the kernel reads 128 bytes of attributes, which outlive the call.
        let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), thread, -1, -1, 8) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it and nobody else knows it.
        Ok(Self(unsafe { File::from_raw_fd(fd as i32) }))
    }

    fn read(&self) -> u64 {
        let mut count = [0; 8];
        (&self.0).read_exact(&mut count).map_or(0, |()| u64::from_ne_bytes(count))
    }
}
