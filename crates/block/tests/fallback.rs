//! A host that forbids io_uring, as containers do. Alone in its binary: the warning is one per process.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod refuse;

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

#[test]
fn where_io_uring_is_forbidden_threads_do_the_work_and_one_warning_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let image = Image::open(&RawOptions::new(file.path())).unwrap();
    let warnings = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(Arc::clone(&warnings)), || {
        refuse::refuse(libc::SYS_io_uring_setup, libc::EPERM).unwrap();
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
