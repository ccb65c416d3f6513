//! What bad images get, and what good ones say about themselves.
#![expect(unsafe_code, reason = "the memory of a request is named by Buffer::new")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use parador_block::{Aio, Buffer, Disk, Error, Fault, Image, Op, Outcome, RawOptions, Submitted, ZoneAction};

const ENGINES: [Aio; 3] = [Aio::Sync, Aio::Threads, Aio::IoUring];

fn image_of(len: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

fn open(path: &Path, change: impl FnOnce(&mut RawOptions)) -> Result<Image, Error> {
    let mut options = RawOptions::new(path);
    change(&mut options);
    Image::open(&options)
}

fn finish(disk: &mut dyn Disk, op: Op<'_>) -> io::Result<()> {
    match outcome(disk, op) {
        Ok(number) => {
            assert_eq!(number, 0);
            Ok(())
        }
        Err(Fault::Host(error)) => Err(error),
        Err(Fault::Refused(refusal)) => Err(io::Error::other(refusal)),
    }
}

fn outcome(disk: &mut dyn Disk, op: Op<'_>) -> Outcome {
    match disk.submit(op, 9) {
        Submitted::Done(result) => result,
        Submitted::InFlight => loop {
            disk.wait();
            if let Some((tag, result)) = disk.reap() {
                assert_eq!(tag, 9);
                return result;
            }
        },
    }
}

fn buffer(memory: &mut [u8]) -> Buffer {
    let iovec = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: `finish` returns after the request is over, and the memory outlives it.
    unsafe { Buffer::new(iovec) }
}

#[test]
fn a_disk_without_zones_appends_nothing() {
    let file = image_of(1 << 20);
    for aio in ENGINES {
        let mut disk = open(file.path(), |o| o.aio = aio).unwrap().queue(1).unwrap();
        let mut memory = [0; 4096];
        let buffers = [buffer(&mut memory)];
        let reset = Op::Zone { action: ZoneAction::Reset, zone: 0 };
        for op in [Op::Append { zone: 0, buffers: &buffers }, reset] {
            assert_eq!(finish(&mut *disk, op).unwrap_err().kind(), io::ErrorKind::Unsupported);
        }
    }
}

#[test]
fn each_mistake_has_its_own_message_and_hint() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.img");
    let error = open(&missing, |_| {}).unwrap_err();
    assert_eq!(error.to_string(), format!("disk image {} does not exist", missing.display()));
    assert!(error.hint().unwrap().contains("truncate"));

    let error = open(directory.path(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
    let error = open(Path::new("/dev/null"), |_| {}).unwrap_err();
    assert!(error.to_string().contains("is a character device"), "{error}");

    let error = open(image_of(0).path(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Empty { bytes: 0, .. }), "{error}");
    let error = open(image_of(511).path(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("511 bytes"), "{error}");
    assert_eq!(error.path(), error.path());
}

#[test]
fn a_descriptor_without_write_access_is_no_writable_disk() {
    let file = image_of(4096);
    let reader = std::fs::File::open(file.path()).unwrap();
    let error = Image::from_file(reader, &RawOptions::new(file.path())).unwrap_err();
    assert!(error.to_string().contains("for reading and writing"), "{error}");
    assert!(error.hint().unwrap().contains("read-only"));
}

#[test]
fn one_writer_or_many_readers() {
    let file = image_of(4096);
    let writer = open(file.path(), |_| {}).unwrap();
    for read_only in [false, true] {
        let error = open(file.path(), |o| o.read_only = read_only).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        open(file.path(), |o| (o.read_only, o.lock) = (read_only, false)).unwrap();
    }
    // A disk keeps the lock of the image it was made from.
    let disk = writer.queue(1).unwrap();
    drop(writer);
    assert!(open(file.path(), |_| {}).is_err());
    drop(disk);

    let reader = open(file.path(), |o| o.read_only = true).unwrap();
    open(file.path(), |o| o.read_only = true).unwrap();
    assert!(open(file.path(), |_| {}).is_err());
    drop(reader);
    open(file.path(), |_| {}).unwrap();
}

#[test]
fn an_image_is_waited_for_while_its_last_user_is_taken_apart() {
    let file = image_of(4096);
    for read_only in [false, true] {
        let writer = open(file.path(), |_| {}).unwrap();
        let gone = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            drop(writer);
        });
        open(file.path(), |o| o.read_only = read_only).unwrap();
        gone.join().unwrap();
    }
}

#[test]
fn the_tail_that_is_no_sector_is_not_part_of_the_disk() {
    let image = open(image_of(4096 + 100).path(), |_| {}).unwrap();
    assert_eq!(image.size(), 4096);
}

#[test]
fn a_header_of_another_format_is_data() {
    let file = image_of(1 << 20);
    let backing = tempfile::NamedTempFile::new().unwrap();
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.extend_from_slice(backing.path().as_os_str().as_encoded_bytes());
    std::os::unix::fs::FileExt::write_all_at(file.as_file(), &header, 0).unwrap();
    let image = open(file.path(), |_| {}).unwrap();
    assert_eq!(image.size(), 1 << 20);
    let mut memory = vec![0; header.len()];
    let buffers = [buffer(&mut memory)];
    finish(&mut *image.queue(1).unwrap(), Op::Read { offset: 0, buffers: &buffers }).unwrap();
    assert_eq!(memory, header);
}

#[test]
fn requests_beyond_the_end_fail_and_change_nothing() {
    for aio in ENGINES {
        let file = image_of(8192);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(4).unwrap();
        let mut memory = vec![7; 1024];
        let buffers = [buffer(&mut memory)];
        let buffers = buffers.as_slice();
        for offset in [8192 - 512, 8192, u64::MAX - 511, u64::MAX, 1 << 63] {
            for op in [
                Op::Read { offset, buffers },
                Op::Write { offset, buffers },
                Op::Discard { offset, len: 1024 },
                Op::WriteZeroes { offset, len: 1024, unmap: true },
                Op::WriteZeroes { offset: 0, len: u64::MAX, unmap: false },
            ] {
                let error = finish(&mut *disk, op).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{op:?}");
            }
        }
        assert_eq!(std::fs::read(file.path()).unwrap(), vec![0; 8192]);
    }
}

#[test]
fn a_read_only_image_is_never_written() {
    for aio in ENGINES {
        let file = image_of(8192);
        let image = open(file.path(), |o| (o.aio, o.read_only) = (aio, true)).unwrap();
        assert!(image.is_read_only() && image.discard_granularity().is_none());
        let mut disk = image.queue(4).unwrap();
        let mut memory = vec![7; 1024];
        let buffers = [buffer(&mut memory)];
        for op in [
            Op::Write { offset: 0, buffers: &buffers },
            Op::Discard { offset: 0, len: 1024 },
            Op::WriteZeroes { offset: 0, len: 1024, unmap: false },
        ] {
            assert_eq!(finish(&mut *disk, op).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        finish(&mut *disk, Op::Read { offset: 0, buffers: &buffers }).unwrap();
        finish(&mut *disk, Op::Flush).unwrap();
        assert_eq!(memory, vec![0; 1024]);
    }
}

#[test]
fn a_file_that_shrank_gives_an_error_rather_than_zeroes() {
    for aio in ENGINES {
        let file = image_of(64 << 10);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(4).unwrap();
        file.as_file().set_len(4096).unwrap();
        let mut memory = vec![7; 8192];
        let buffers = [buffer(&mut memory)];
        let error = finish(&mut *disk, Op::Read { offset: 0, buffers: &buffers }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{aio:?}");
        assert_eq!(image.refresh_size().unwrap(), 4096);
        let error = finish(&mut *disk, Op::Read { offset: 0, buffers: &buffers }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{aio:?}");
        file.as_file().set_len(0).unwrap();
        assert!(image.refresh_size().is_err());
        assert_eq!(image.size(), 4096);
    }
}

#[test]
fn more_pieces_than_one_system_call_takes() {
    for aio in ENGINES {
        let file = image_of(64 << 10);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(4).unwrap();
        let mut memory: Vec<u8> = (0..3000 * 3).map(|i| (i % 251) as u8).collect();
        let expected = memory.clone();
        let mut buffers: Vec<Buffer> = memory.chunks_mut(3).map(buffer).collect();
        // Emptiness is no end of file.
        buffers.splice(0..0, (0..1500).map(|_| buffer(&mut [])));
        finish(&mut *disk, Op::Write { offset: 5, buffers: &buffers }).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap()[5..5 + 9000], expected);
        memory.fill(0);
        let buffers: Vec<Buffer> = memory.chunks_mut(3).map(buffer).collect();
        finish(&mut *disk, Op::Read { offset: 5, buffers: &buffers }).unwrap();
        assert_eq!(memory, expected);
    }
}

#[test]
fn more_in_flight_than_the_depth_promised() {
    for aio in ENGINES {
        let file = image_of(1 << 20);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(2).unwrap();
        let mut memory = vec![0u8; 200 * 512];
        let mut left = std::collections::HashSet::new();
        for (index, piece) in memory.chunks_mut(512).enumerate() {
            let buffers = [buffer(piece)];
            let op = Op::Read { offset: index as u64 * 512, buffers: &buffers };
            match disk.submit(op, index as u32) {
                Submitted::Done(result) => drop(result.unwrap()),
                Submitted::InFlight => assert!(left.insert(index as u32)),
            }
        }
        while !left.is_empty() {
            disk.wait();
            while let Some((tag, result)) = disk.reap() {
                result.unwrap();
                assert!(left.remove(&tag));
            }
        }
    }
}

/// As a queue's thread does it: reap until there is nothing, sleep until `wake` fires again.
#[test]
fn no_completion_is_left_behind_by_an_edge_triggered_wait() {
    for aio in [Aio::Threads, Aio::IoUring] {
        let file = image_of(1 << 20);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(2).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&disk.wake().unwrap());
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: the kernel reads one event, which outlives the call.
        let epoll = unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event), 0);
            epoll
        };
        for _ in 0..50 {
            let mut left = 0;
            for index in 0..64 {
                let op = Op::WriteZeroes { offset: index * 4096, len: 4096, unmap: true };
                left += u32::from(matches!(disk.submit(op, 0), Submitted::InFlight));
            }
            disk.kick();
            while left > 0 {
                while let Some((_, result)) = disk.reap() {
                    result.unwrap();
                    left -= 1;
                }
                if left > 0 {
                    // SAFETY: the kernel writes one event, which outlives the call.
                    let fired = unsafe { libc::epoll_wait(epoll, &raw mut event, 1, 10_000) };
                    let interrupted =
                        fired < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
                    assert!(fired == 1 || interrupted, "{aio:?}: {left} never come");
                }
            }
        }
        // SAFETY: made above, used by nobody else.
        unsafe { libc::close(epoll) };
    }
}

#[test]
fn wake_becomes_readable_when_something_completes() {
    for aio in [Aio::Threads, Aio::IoUring] {
        let file = image_of(1 << 20);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut disk = image.queue(8).unwrap();
        let mut memory = vec![0u8; 512];
        let buffers = [buffer(&mut memory)];
        assert!(matches!(disk.submit(Op::Read { offset: 0, buffers: &buffers }, 1), Submitted::InFlight));
        disk.kick();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&disk.wake().unwrap());
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, which outlives the call.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "{aio:?}");
        assert!(disk.reap().is_some());
    }
}

#[test]
fn dropping_a_disk_with_requests_in_flight_waits_for_them() {
    for aio in ENGINES {
        let file = image_of(1 << 20);
        let image = open(file.path(), |o| o.aio = aio).unwrap();
        let mut memory = vec![0u8; 1 << 20];
        for _ in 0..20 {
            let mut disk = image.queue(64).unwrap();
            for (index, piece) in memory.chunks_mut(16 << 10).enumerate() {
                let buffers = [buffer(piece)];
                let _ = disk.submit(Op::Read { offset: index as u64 * (16 << 10), buffers: &buffers }, 0);
            }
            disk.kick();
            drop(disk);
            memory.fill(1);
            std::thread::yield_now();
            assert!(memory.iter().all(|&byte| byte == 1), "{aio:?} wrote after it was dropped");
        }
    }
}

/// An independent peer: QEMU's tools lock images too, and either side keeps out of the other's way.
#[test]
fn qemu_and_we_respect_each_other() {
    let file = image_of(1 << 20);
    let map = || Command::new("qemu-img").args(["map", "-f", "raw"]).arg(file.path()).output();
    if map().is_err() {
        eprintln!("skipped: qemu-img is not installed");
        return;
    }
    let writer = open(file.path(), |_| {}).unwrap();
    let output = map().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("lock"));
    drop(writer);
    let reader = open(file.path(), |o| o.read_only = true).unwrap();
    assert!(map().unwrap().status.success(), "two readers get along");
    let convert = |target: &Path| {
        let mut command = Command::new("qemu-img");
        command
            .args(["convert", "-n", "-f", "raw", "-O", "raw"])
            .arg(file.path())
            .arg(target)
            .output()
            .unwrap()
    };
    let copy = image_of(1 << 20);
    assert!(convert(copy.path()).status.success());
    let copy_reader = open(copy.path(), |o| o.read_only = true).unwrap();
    assert!(!convert(copy.path()).status.success(), "it does not write to what we read");
    drop((reader, copy_reader));

    // A daemon that writes.
    let socket = tempfile::tempdir().unwrap();
    let address = socket.path().join("nbd");
    let daemon = Command::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!("driver=file,node-name=disk,filename={}", file.path().display()))
        .arg("--nbd-server")
        .arg(format!("addr.type=unix,addr.path={}", address.display()))
        .args(["--export", "type=nbd,id=export,node-name=disk,writable=on"])
        .spawn();
    let Ok(mut daemon) = daemon else {
        eprintln!("skipped in part: qemu-storage-daemon is not installed");
        return;
    };
    // It listens before it opens the image for writing; what matters is that we are refused at last.
    let end = Instant::now() + Duration::from_secs(20);
    let refused = |read_only| {
        while Instant::now() < end {
            if let Err(error) = open(file.path(), |o| o.read_only = read_only) {
                return matches!(error, Error::Locked { .. });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    };
    let both = [refused(false), refused(true)];
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(both, [true, true]);
    open(file.path(), |_| {}).unwrap();
}
