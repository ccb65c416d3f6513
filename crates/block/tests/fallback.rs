//! A host that forbids io_uring, as containers do. Alone in its binary: the warning is one per process.
#![expect(unsafe_code, reason = "the system call filter that forbids it")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parador_block::{Aio, Image, Op, RawOptions, Submitted};
use tracing::span;

/// Counts warnings.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Makes `io_uring_setup` fail with EPERM on this thread and those it starts.
fn forbid_io_uring() -> io::Result<()> {
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let mut program = [
        statement(0x20, 0, 0, 0),      // load the system call's number
        statement(0x15, 0, 1, number), // is it that one?
        statement(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the call.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn where_io_uring_is_forbidden_threads_do_the_work_and_one_warning_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let image = Image::open(&RawOptions::new(file.path())).unwrap();
    let warnings = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(Arc::clone(&warnings)), || {
        forbid_io_uring().unwrap();
        for _ in 0..3 {
            let mut disk = image.queue(16).unwrap();
            assert_eq!(disk.aio(), Aio::Threads);
            assert!(matches!(disk.submit(Op::Flush, 3), Submitted::InFlight));
            disk.wait();
            assert!(matches!(disk.reap(), Some((3, Ok(0)))));
        }
    });
    assert_eq!(warnings.load(Ordering::Relaxed), 1);
}
