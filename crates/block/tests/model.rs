//! Every engine against a vector of bytes: random requests, many in flight, pieces of any length.
#![expect(unsafe_code, reason = "the memory of a request is named by Buffer::new")]
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use parador_block::{Aio, Buffer, Disk, Image, Op, Outcome, RawOptions, Submitted, Tag};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const SIZE: usize = 256 << 10;
const DEPTH: u16 = 16;

#[derive(Debug, Clone)]
enum Step {
    Read { offset: usize, pieces: Vec<usize> },
    Write { offset: usize, pieces: Vec<usize>, seed: u8 },
    Flush,
    Discard { offset: usize, len: usize },
    WriteZeroes { offset: usize, len: usize, unmap: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let pieces = || prop::collection::vec(prop_oneof![4 => 1..6000usize, 1 => 30_000..40_000usize], 1..6);
    let range = || (0..SIZE, 0..40_000usize);
    prop_oneof![
        4 => (0..SIZE, pieces()).prop_map(|(offset, pieces)| Step::Read { offset, pieces }),
        4 => (0..SIZE, pieces(), any::<u8>())
            .prop_map(|(offset, pieces, seed)| Step::Write { offset, pieces, seed }),
        1 => Just(Step::Flush),
        1 => range().prop_map(|(offset, len)| Step::Discard { offset, len }),
        2 => (range(), any::<bool>())
            .prop_map(|((offset, len), unmap)| Step::WriteZeroes { offset, len, unmap }),
    ]
}

/// A request in flight: its memory, and for a read what must be in it at the end.
struct Pending {
    memory: Vec<u8>,
    expected: Option<Vec<u8>>,
    range: std::ops::Range<usize>,
}

struct Model {
    disk: Box<dyn Disk>,
    bytes: Vec<u8>,
    /// Alignment of offsets and lengths.
    block: usize,
    discards: bool,
    pending: HashMap<Tag, Pending>,
    next: Tag,
}

impl Model {
    fn run(&mut self, step: &Step) {
        match step {
            Step::Read { offset, pieces } | Step::Write { offset, pieces, .. } => {
                let offset = offset / self.block * self.block;
                let room = SIZE - offset;
                let len = pieces.iter().sum::<usize>().min(room) / self.block * self.block;
                let range = offset..offset + len;
                self.settle(&range);
                let write = if let Step::Write { seed, .. } = step { Some(*seed) } else { None };
                // One byte at the front makes the memory unaligned.
                let mut memory = vec![0xEE; len + 1];
                if let Some(seed) = write {
                    for (index, byte) in memory[1..].iter_mut().enumerate() {
                        *byte = (index as u8).wrapping_mul(31).wrapping_add(seed) | 1;
                    }
                    self.bytes[range.clone()].copy_from_slice(&memory[1..]);
                }
                let expected = write.is_none().then(|| self.bytes[range.clone()].to_vec());
                let buffers = split(&mut memory[1..], pieces);
                self.pending.insert(self.next, Pending { memory, expected, range });
                let (offset, buffers) = (offset as u64, buffers.as_slice());
                self.submit(if write.is_some() {
                    Op::Write { offset, buffers }
                } else {
                    Op::Read { offset, buffers }
                });
            }
            Step::Flush => self.erase(0..0, Op::Flush, false),
            Step::Discard { offset, len } => {
                let (range, offset, len) = self.range(*offset, *len);
                self.erase(range, Op::Discard { offset, len }, self.discards);
            }
            Step::WriteZeroes { offset, len, unmap } => {
                let (range, offset, len) = self.range(*offset, *len);
                self.erase(range, Op::WriteZeroes { offset, len, unmap: *unmap }, true);
            }
        }
    }

    fn range(&self, offset: usize, len: usize) -> (std::ops::Range<usize>, u64, u64) {
        let offset = offset / self.block * self.block;
        let len = len.min(SIZE - offset) / self.block * self.block;
        (offset..offset + len, offset as u64, len as u64)
    }

    fn erase(&mut self, range: std::ops::Range<usize>, op: Op<'_>, zeroes: bool) {
        self.settle(&range);
        if zeroes {
            self.bytes[range.clone()].fill(0);
        }
        self.pending.insert(self.next, Pending { memory: Vec::new(), expected: None, range });
        self.submit(op);
    }

    fn submit(&mut self, op: Op<'_>) {
        let tag = self.next;
        self.next += 1;
        if let Submitted::Done(result) = self.disk.submit(op, tag) {
            self.check(tag, result);
        }
        if tag.is_multiple_of(5) {
            self.disk.kick();
        }
        if self.pending.len() >= usize::from(DEPTH) {
            self.settle(&(0..SIZE));
        }
    }

    /// Waits for what touches `range`: requests in flight together are not ordered.
    fn settle(&mut self, range: &std::ops::Range<usize>) {
        let touches = |p: &Pending| p.range.start < range.end && range.start < p.range.end;
        while self.pending.values().any(touches) {
            self.disk.wait();
            while let Some((tag, result)) = self.disk.reap() {
                self.check(tag, result);
            }
        }
    }

    fn check(&mut self, tag: Tag, result: Outcome) {
        result.unwrap();
        let pending = self.pending.remove(&tag).expect("a tag comes out once");
        if let Some(expected) = pending.expected {
            assert!(pending.memory[1..] == expected, "read of {:?} differs", pending.range);
        }
    }

    fn finish(&mut self) {
        while !self.pending.is_empty() {
            self.disk.wait();
            while let Some((tag, result)) = self.disk.reap() {
                self.check(tag, result);
            }
        }
        assert!(self.disk.reap().is_none());
    }
}

/// Cuts memory into pieces of about these lengths, the last one as long as need be.
fn split(mut memory: &mut [u8], pieces: &[usize]) -> Vec<Buffer> {
    let mut buffers = Vec::new();
    for (index, &len) in pieces.iter().enumerate() {
        let len = if index + 1 == pieces.len() { memory.len() } else { len.min(memory.len()) };
        let (piece, rest) = memory.split_at_mut(len);
        memory = rest;
        let iovec = libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: len };
        // SAFETY: the vector stays in `Model::pending`, unread and unmoved, until the tag comes out.
        buffers.push(unsafe { Buffer::new(iovec) });
    }
    buffers
}

fn play_in(directory: &Path, aio: Aio, direct: bool, steps: &[Step]) {
    let file = tempfile::NamedTempFile::new_in(directory).unwrap();
    file.as_file().set_len(SIZE as u64).unwrap();
    play(file.path(), aio, direct, steps);
}

/// Plays `steps` on a disk full of zeroes.
fn play(path: &Path, aio: Aio, direct: bool, steps: &[Step]) {
    let options = RawOptions { aio, direct, ..RawOptions::new(path) };
    let image = match Image::open(&options) {
        Err(parador_block::Error::NoDirect { .. }) if direct => return,
        image => image.unwrap(),
    };
    assert_eq!(image.size(), SIZE as u64);
    let whole_blocks = direct || !path.is_file();
    let mut model = Model {
        disk: image.queue(DEPTH).unwrap(),
        bytes: vec![0; SIZE],
        block: if whole_blocks { image.topology().logical_block as usize } else { 1 },
        discards: image.discard_granularity().is_some(),
        pending: HashMap::new(),
        next: 0,
    };
    assert!(aio == Aio::IoUring || model.disk.aio() == aio);
    for step in steps {
        model.run(step);
    }
    model.finish();
    assert!(std::fs::read(path).unwrap() == model.bytes, "the disk differs at the end");
}

fn directories() -> Vec<PathBuf> {
    let mut directories = vec![std::env::temp_dir()];
    directories.extend(Some(PathBuf::from("/dev/shm")).filter(|shm| shm.is_dir()));
    directories
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn every_engine_is_a_vector_of_bytes(steps in prop::collection::vec(step(), 1..60)) {
        for directory in directories() {
            for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
                for direct in [false, true] {
                    play_in(&directory, aio, direct, &steps);
                }
            }
        }
    }
}

#[test]
fn requests_that_are_given_up_come_out_once_and_later_ones_are_done() {
    const COUNT: u32 = 48;
    for aio in [Aio::Threads, Aio::IoUring] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE as u64).unwrap();
        let image = Image::open(&RawOptions { aio, ..RawOptions::new(file.path()) }).unwrap();
        let mut disk = image.queue(DEPTH).unwrap();
        let mut memory = vec![vec![0; 4096]; COUNT as usize];
        let mut ended = vec![0; COUNT as usize];
        for round in 0..3 {
            for (tag, memory) in (0..).zip(&mut memory) {
                let buffers = split(memory, &[4096]);
                assert!(matches!(
                    disk.submit(Op::Read { offset: 0, buffers: &buffers }, tag),
                    Submitted::InFlight
                ));
                if round > 0 && tag == COUNT / 2 {
                    disk.kick();
                }
            }
            if round < 2 {
                disk.cancel();
            }
            let (mut failed, mut left) = (0, COUNT);
            while left > 0 {
                disk.wait();
                while let Some((tag, result)) = disk.reap() {
                    ended[tag as usize] += 1;
                    failed += u32::from(result.is_err());
                    left -= 1;
                }
            }
            assert!(ended.iter().all(|&count| count == round + 1));
            assert!(round < 2 || failed == 0, "{failed} of those that were not given up failed");
            // What no thread has begun need not be.
            assert!(round > 0 || disk.aio() != Aio::Threads || failed == COUNT);
        }
    }
}

/// A loop device, where this machine lets us have one.
struct Loop {
    path: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl Loop {
    fn new(block: usize) -> Option<Self> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE as u64).unwrap();
        let made = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &block.to_string()])
            .arg(file.path())
            .output();
        let made = made.ok().filter(|output| output.status.success())?;
        let path = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        Some(Self { path, _file: file })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

#[test]
fn a_block_device_is_a_vector_of_bytes() {
    let steps = prop::collection::vec(step(), 60);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for block in [512, 4096] {
        for aio in [Aio::Sync, Aio::Threads, Aio::IoUring] {
            for direct in [false, true] {
                let Some(device) = Loop::new(block) else {
                    eprintln!(
                        "skipped: no loop device of {block}-byte sectors here (needs losetup and its rights)"
                    );
                    return;
                };
                let image = Image::open(&RawOptions::new(&device.path)).unwrap();
                assert_eq!(image.topology().logical_block as usize, block);
                let error = Image::open(&RawOptions::new(&device.path)).unwrap_err();
                assert!(matches!(error, parador_block::Error::Locked { .. }), "{error}");
                drop(image);
                let steps = steps.new_tree(&mut runner).unwrap().current();
                play(&device.path, aio, direct, &steps);
            }
        }
    }
}
