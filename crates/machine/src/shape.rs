//! What a machine is to be, before it is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::memory::MemoryShape;
use crate::platform::x86_64::layout::ram_ranges;
use crate::platform::x86_64::{Node, Source, Sources, Topology};

/// What a machine is made of. Devices are added with [`crate::Machine::attach`].
#[derive(Debug)]
pub struct Shape {
    /// `/dev/kvm`, where somebody else opened it.
    pub kvm: Option<OwnedFd>,
    /// Processors.
    pub topology: Topology,
    /// Memory.
    pub memory: MemoryShape,
    /// NUMA nodes, whose memory adds up to all of it; none, and the guest is not told of any.
    pub nodes: Vec<NumaNode>,
    /// Processors of the host that a processor, by index, runs on. One that is not here runs on any.
    pub affinity: BTreeMap<u32, Vec<u32>>,
    /// The first serial port (COM1); none, when there is nobody at its other end.
    pub serial: Option<SerialLine>,
    /// What happens when the guest asks to be reset.
    pub on_reset: OnReset,
    /// What happens when the guest says that it has panicked.
    pub on_panic: OnPanic,
}

/// A NUMA node, as the guest is told of it. On the host there is no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaNode {
    /// Bytes of memory. Nodes share out the guest's memory in their order, from address 0 up.
    pub memory: u64,
    /// Its processors, by index; each belongs to one node.
    pub cpus: Vec<u32>,
}

/// The other end of a serial port.
#[derive(Debug)]
pub struct SerialLine {
    /// Where the guest's bytes go. They are dropped, not kept, while nobody reads them.
    pub output: File,
    /// Where bytes for the guest come from.
    pub input: Option<File>,
}

/// What happens when the guest asks to be reset (or a triple fault does).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReset {
    /// It is: the kernel is loaded and started again.
    #[default]
    Restart,
    /// The machine ends with [`crate::Outcome::Reset`].
    Stop,
}

/// What happens when the guest says that it has panicked (pvpanic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnPanic {
    /// The machine ends with [`crate::Outcome::Panicked`].
    #[default]
    Stop,
    /// It goes on: the guest may write a dump and reset itself.
    Continue,
}

/// What the guest starts with.
#[derive(Debug)]
pub struct Boot {
    /// The kernel: a bzImage, or an ELF file with a PVH entry.
    pub kernel: BootFile,
    /// An initial RAM file system.
    pub initrd: Option<BootFile>,
    /// The kernel's command line, in ASCII, without a terminating zero.
    pub cmdline: String,
}

/// An open file and the name it was opened by, for messages.
#[derive(Debug)]
pub struct BootFile {
    /// What the user called it.
    pub path: PathBuf,
    /// The file. It is read with absolute offsets, at every start of the guest.
    pub file: File,
}

impl Boot {
    pub(crate) fn sources(&self) -> Sources<'_> {
        let Self { kernel, initrd, cmdline } = self;
        Sources { kernel: kernel.source(), initrd: initrd.as_ref().map(BootFile::source), cmdline }
    }
}

impl BootFile {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: impl AsRef<Path>) -> std::io::Result<Self> {
        let path = path.as_ref().to_owned();
        Ok(Self { file: File::open(&path)?, path })
    }

    fn source(&self) -> Source<'_> {
        Source { file: &self.file, path: &self.path }
    }
}

impl Shape {
    /// The nodes, with the addresses of their memory.
    pub(crate) fn numa(&self) -> Vec<Node> {
        let mut left = ram_ranges(self.memory.size);
        let take = |mut bytes: u64| {
            let mut memory = Vec::new();
            while bytes > 0 && !left.is_empty() {
                let Range { start, end } = left[0];
                let middle = end.min(start.saturating_add(bytes));
                memory.push(start..middle);
                bytes -= middle - start;
                if middle == end {
                    left.remove(0);
                } else {
                    left[0].start = middle;
                }
            }
            memory
        };
        let memories: Vec<_> = self.nodes.iter().map(|node| node.memory).map(take).collect();
        let distances =
            |node| (0..self.nodes.len()).map(move |other| if node == other { 10 } else { 20 }).collect();
        let nodes = self.nodes.iter().zip(memories).enumerate();
        nodes
            .map(|(index, (node, memory))| Node {
                cpus: node.cpus.clone(),
                memory,
                distances: distances(index),
            })
            .collect()
    }

    /// One processor and ordinary memory of `bytes`, no serial port.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            kvm: None,
            topology: Topology::new(1, 1, 1).expect("the least there can be"),
            memory: MemoryShape::new(bytes),
            nodes: Vec::new(),
            affinity: BTreeMap::new(),
            serial: None,
            on_reset: OnReset::default(),
            on_panic: OnPanic::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn nodes_share_out_memory_around_the_hole() {
        let node = |memory, cpu| NumaNode { memory, cpus: vec![cpu] };
        let shape =
            Shape { nodes: vec![node(GIB, 0), node(3 * GIB, 1), node(GIB, 2)], ..Shape::new(5 * GIB) };
        let nodes = shape.numa();
        let memory: Vec<_> = nodes
            .iter()
            .flat_map(|node| &node.memory)
            .map(|range| (range.start / GIB, range.end / GIB))
            .collect();
        assert_eq!(memory, [(0, 1), (1, 3), (4, 5), (5, 6)]);
        assert_eq!(nodes.iter().map(|node| node.memory.len()).collect::<Vec<_>>(), [1, 2, 1]);
        assert_eq!(
            (nodes[1].cpus.as_slice(), nodes[1].distances.as_slice()),
            ([1].as_slice(), [20, 10, 20].as_slice())
        );
        assert!(Shape::new(GIB).numa().is_empty());
    }
}
