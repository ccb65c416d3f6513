//! A second process that steps through a thread of this one: nobody may trace its own process.
#![expect(unsafe_code, reason = "ptrace, and memory shared with the tracer")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;

/// Shared by both: a count, whether tracing has begun, whether it is to end.
struct Counter(*mut [AtomicU64; 3]);

impl Counter {
    fn map(file: &File) -> io::Result<Self> {
        // SAFETY: a shared mapping of a file that is at least that long; never unmapped.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(memory.cast())) }
    }

    fn get(&self) -> &[AtomicU64; 3] {
        // SAFETY: mapped for the life of the process; atomics may be shared with another one.
        unsafe { &*self.0 }
    }
}

pub(crate) struct Tracer {
    process: Child,
    counter: Counter,
    _file: tempfile::NamedTempFile,
}

impl Tracer {
    pub(crate) fn start(how: &str, thread: i32) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        file.as_file().set_len(4096)?;
        let counter = Counter::map(file.as_file())?;
        // SAFETY: no memory is involved. Where the host has no such restriction it fails, and
        // nothing is lost.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        let process = Command::new(std::env::current_exe()?)
            .args(["--trace", how, &thread.to_string()])
            .arg(file.path())
            .spawn()?;
        let mut tracer = Self { process, counter, _file: file };
        let end = Instant::now() + Duration::from_secs(10);
        while tracer.counter.get()[1].load(Ordering::Acquire) == 0 {
            if Instant::now() > end || tracer.process.try_wait()?.is_some() {
                return Err("the host does not let us trace".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(tracer)
    }

    pub(crate) fn count(&self) -> u64 {
        self.counter.get()[0].load(Ordering::Acquire)
    }

    /// Ends the tracing with a thread that `moves`.
    pub(crate) fn finish(mut self, moves: impl FnOnce()) {
        self.counter.get()[2].store(1, Ordering::Release);
        moves();
        let _ = self.process.wait();
    }
}

/// The other process: counts until it is told to end.
pub(crate) fn run(how: &str, thread: i32, counter: &Path) -> Result<()> {
    let counter = Counter::map(&File::options().read(true).write(true).open(counter)?)?;
    let [count, begun, end] = counter.get();
    let step = if how == "steps" { libc::PTRACE_SINGLESTEP } else { libc::PTRACE_SYSCALL };
    request(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD as usize)?;
    request(libc::PTRACE_INTERRUPT, thread, 0)?;
    let mut entering = true;
    loop {
        let mut status = 0;
        // SAFETY: the kernel writes one int, which outlives the call.
        if unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
        if !libc::WIFSTOPPED(status) {
            return Ok(());
        }
        if end.load(Ordering::Acquire) != 0 {
            return Ok(request(libc::PTRACE_DETACH, thread, 0)?);
        }
        let signal = libc::WSTOPSIG(status);
        let mut deliver = 0;
        if begun.load(Ordering::Relaxed) == 0 {
            begun.store(1, Ordering::Release);
        } else if signal == libc::SIGTRAP | 0x80 {
            count.fetch_add(u64::from(entering), Ordering::Release);
            entering = !entering;
        } else if signal == libc::SIGTRAP {
            count.fetch_add(1, Ordering::Release);
        } else {
            deliver = signal as usize;
        }
        request(step, thread, deliver)?;
    }
}

fn request(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: none of the requests used here touches memory of this process.
    let result = unsafe { libc::ptrace(request, thread, 0, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
