//! Random reads or writes of 4 KiB, as many at once as are asked for, as fast as they come back: of a
//! vhost-user back-end, or of a file by plain io_uring, which is the limit.
//!
//!     cargo run --release --example load -- SOCKET read 32 2 1000
//!     cargo run --release --example load -- --file FILE write 32 2 1000
//!
//! The last three are depth (of each queue), queues and milliseconds; a fourth number keeps a back-end
//! connected, and its queues at work without any, for so many milliseconds more. Prints one line: `requests=`,
//! `seconds=`, and `cpu=`, the processor time in seconds of this process. The client is the
//! `virtio-driver` crate, which knows nothing of Parador; like a guest it sleeps until it is called.
#![expect(unsafe_code, reason = "buffers that another process or the kernel fills")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::event::{PollFd, PollFlags, poll};
use virtio_driver::{EventFd, QueueNotifier, VhostUser, VirtioBlkQueue, VirtioBlkTransport};
use virtio_driver::{VirtioBlkFeatureFlags, VirtioFeatureFlags};
use vm_memory::{FileOffset, MmapRegion};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const BLOCK: usize = 4096;

/// What is asked, of each queue.
#[derive(Clone, Copy)]
struct Load {
    write: bool,
    depth: usize,
    /// Blocks in the disk.
    blocks: u64,
    time: Duration,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (file, socket, rest) = match args.as_slice() {
        ["--file", path, rest @ ..] => (Some(*path), "", rest),
        [socket, rest @ ..] => (None, *socket, rest),
        [] => return Err("nothing to load".into()),
    };
    let [kind, depth, queues, time, rest @ ..] = rest else {
        return Err("usage: load SOCKET|--file FILE read|write DEPTH QUEUES MILLISECONDS [REST]".into());
    };
    let (depth, queues) = (depth.parse()?, queues.parse()?);
    let load = Load { write: *kind == "write", depth, blocks: 0, time: Duration::from_millis(time.parse()?) };
    let begin = Instant::now();
    let (requests, _connection) = match file {
        Some(path) => (plain(path, queues, load)?, None),
        None => remote(socket, queues, load).map(|(requests, transport)| (requests, Some(transport)))?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    println!("requests={requests} seconds={seconds:.3} cpu={:.3}", processor_time()?.as_secs_f64());
    if let [rest] = rest {
        std::thread::sleep(Duration::from_millis(rest.parse()?));
    }
    Ok(())
}

/// Runs `load` on each queue of a back-end; the number of requests, and the connection.
fn remote(socket: &str, queues: usize, mut load: Load) -> Result<(u64, Box<VirtioBlkTransport>)> {
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let features = features.bits() | VirtioBlkFeatureFlags::MQ.bits() | VirtioBlkFeatureFlags::FLUSH.bits();
    let mut transport: Box<VirtioBlkTransport> = Box::new(VhostUser::new(socket, features)?);
    load.blocks = u64::from(transport.get_config()?.capacity) * 512 / BLOCK as u64;
    let memory = shared_memory(queues * load.depth * BLOCK)?;
    let offset = memory.file_offset().ok_or("the memory has a file")?;
    transport.map_mem_region(memory.as_ptr().addr(), memory.size(), offset.file().as_raw_fd(), 0)?;
    // Three descriptors for each request.
    let size = u16::try_from((3 * load.depth).next_power_of_two())?;
    let rings = VirtioBlkQueue::setup_queues(&mut *transport, queues, size)?;
    let client = |(index, queue)| Client {
        queue,
        notifier: transport.get_submission_notifier(index),
        called: transport.get_completion_fd(index),
        buffers: memory.as_ptr().wrapping_add(index * load.depth * BLOCK).expose_provenance(),
        random: Random(index as u64 + 1),
        load,
    };
    let clients: Vec<_> = rings.into_iter().enumerate().map(client).collect();
    Ok((in_threads(clients, Client::run)?, transport))
}

/// One queue of a back-end.
struct Client {
    queue: VirtioBlkQueue<'static, usize>,
    notifier: Box<dyn QueueNotifier>,
    called: Arc<EventFd>,
    /// Address of the first of as many blocks as there are requests at once.
    buffers: usize,
    random: Random,
    load: Load,
}

impl Client {
    fn run(mut self) -> Result<u64> {
        let end = Instant::now() + self.load.time;
        let (mut done, mut waiting) = (0, 0);
        let mut free: Vec<usize> = (0..self.load.depth).collect();
        loop {
            if Instant::now() < end {
                waiting += free.len();
                while let Some(slot) = free.pop() {
                    self.ask(slot)?;
                }
                if self.queue.avail_notif_needed() {
                    self.notifier.notify()?;
                }
            } else if waiting == 0 {
                return Ok(done);
            }
            free.clear();
            while free.is_empty() {
                for completion in self.queue.completions() {
                    check(completion.ret, 0)?;
                    free.push(completion.context);
                }
                if free.is_empty() {
                    self.sleep()?;
                }
            }
            waiting -= free.len();
            done += free.len() as u64;
        }
    }

    /// Waits until there is something, having asked to be told of it.
    fn sleep(&mut self) -> io::Result<()> {
        self.queue.set_used_notif_enabled(true);
        if !self.queue.completions().has_next() {
            // The descriptor may be one that does not block: the back-end chooses.
            poll(&mut [PollFd::new(&*self.called, PollFlags::IN)], None)?;
            let _ = self.called.read();
        }
        self.queue.set_used_notif_enabled(false);
        Ok(())
    }

    fn ask(&mut self, slot: usize) -> io::Result<()> {
        let buffer = std::ptr::with_exposed_provenance_mut(self.buffers + slot * BLOCK);
        let offset = self.random.below(self.load.blocks) * BLOCK as u64;
        // SAFETY: a block of the shared memory, which outlives all requests and is only looked at by
        // whoever serves them.
        unsafe {
            match self.load.write {
                true => self.queue.write_raw(offset, buffer, BLOCK, slot),
                false => self.queue.read_raw(offset, buffer, BLOCK, slot),
            }
        }
    }
}

/// Runs `load` on as many rings, of a file.
fn plain(path: &str, queues: usize, mut load: Load) -> Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    load.blocks = file.metadata()?.len() / BLOCK as u64;
    in_threads((0..queues).collect(), |index| plain_queue(&file, load, Random(index as u64 + 1)))
}

fn plain_queue(file: &File, load: Load, mut random: Random) -> Result<u64> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .build(u32::try_from(load.depth)?.next_power_of_two())?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let mut memory = vec![0_u8; load.depth * BLOCK];
    let mut free: Vec<usize> = (0..load.depth).collect();
    let (end, mut done, mut waiting) = (Instant::now() + load.time, 0, 0);
    loop {
        if Instant::now() < end {
            for slot in free.drain(..) {
                let (buffer, len) = (memory[slot * BLOCK..].as_mut_ptr(), BLOCK as u32);
                let offset = random.below(load.blocks) * BLOCK as u64;
                let entry = match load.write {
                    true => opcode::Write::new(types::Fixed(0), buffer, len).offset(offset).build(),
                    false => opcode::Read::new(types::Fixed(0), buffer, len).offset(offset).build(),
                };
                // SAFETY: the block lives until all requests are over, and nobody looks at it.
                unsafe { ring.submission().push(&entry.user_data(slot as u64)) }?;
                waiting += 1;
            }
        } else if waiting == 0 {
            return Ok(done);
        } else {
            free.clear();
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            check(completion.result(), BLOCK as i32)?;
            free.push(usize::try_from(completion.user_data())?);
            (waiting, done) = (waiting - 1, done + 1);
        }
    }
}

fn check(result: i32, expected: i32) -> Result<()> {
    if result == expected { Ok(()) } else { Err(format!("a request failed: {result}").into()) }
}

/// Runs each on a thread of its own; the sum of what they say.
fn in_threads<T: Send>(each: Vec<T>, run: impl Fn(T) -> Result<u64> + Sync) -> Result<u64> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = each.into_iter().map(|one| scope.spawn(move || run(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    })
}

fn shared_memory(len: usize) -> Result<MmapRegion> {
    let file = tempfile::tempfile_in("/dev/shm")?;
    file.set_len(len as u64)?;
    Ok(MmapRegion::from_file(FileOffset::new(file, 0), len)?)
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
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
