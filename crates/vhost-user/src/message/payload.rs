//! What payloads are made of. Numbers are in the machine's own byte order.

use super::{MAX_CONFIG, MAX_TABLE_REGIONS, Message, MessageError};

/// A payload as a value.
pub trait Payload: Sized {
    /// The bytes on the wire.
    fn payload(&self) -> Vec<u8>;

    /// What `bytes` mean.
    ///
    /// # Errors
    /// They are too few or too many, or mean nothing.
    fn parse(bytes: &[u8]) -> Result<Self, Wrong>;
}

/// What is wrong with a payload, whatever message it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It should have this many bytes.
    Size(usize),
    /// A field, and what is wrong with it.
    Value(&'static str),
}

impl Wrong {
    pub(super) fn about(self, message: &Message) -> MessageError {
        let request = message.request;
        match self {
            Self::Size(expected) => MessageError::Size { request, size: message.payload.len(), expected },
            Self::Value(what) => MessageError::Value { request, what },
        }
    }
}

/// A payload of fixed size: fields one after the other, each a number or padding.
macro_rules! fixed {
    ($(#[$attr:meta])* $name:ident { $($(#[$field_attr:meta])* $field:ident: $kind:ty,)* } $size:literal) => {
        $(#[$attr])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$field_attr])* pub $field: $kind,)*
        }

        impl Payload for $name {
            fn payload(&self) -> Vec<u8> {
                let mut bytes = Vec::with_capacity($size);
                $(bytes.extend(self.$field.to_ne_bytes());)*
                bytes.resize($size, 0);
                bytes
            }

            fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
                if bytes.len() != $size {
                    return Err(Wrong::Size($size));
                }
                let mut at = Fields(bytes);
                Ok(Self { $($field: <$kind>::from_ne_bytes(at.take()),)* })
            }
        }
    };
}

/// Bytes taken apart from the front; their number was checked before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the size was checked");
        self.0 = rest;
        *field
    }
}

impl Payload for () {
    fn payload(&self) -> Vec<u8> {
        Vec::new()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        if bytes.is_empty() { Ok(()) } else { Err(Wrong::Size(0)) }
    }
}

impl Payload for u64 {
    fn payload(&self) -> Vec<u8> {
        self.to_ne_bytes().into()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        Ok(Self::from_ne_bytes(bytes.try_into().map_err(|_| Wrong::Size(8))?))
    }
}

/// Bytes that mean nothing here.
impl Payload for Vec<u8> {
    fn payload(&self) -> Vec<u8> {
        self.clone()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        Ok(bytes.into())
    }
}

fixed! {
    /// Something about a ring: its size, its base, whether it is enabled.
    VringState {
        /// Which ring.
        index: u32,
        /// What is said of it.
        num: u32,
    } 8
}

fixed! {
    /// Where a ring is. Addresses are the front-end's own, or the guest's with
    /// `VHOST_USER_PROTOCOL_F_GPA_ADDRESSES`.
    VringAddr {
        /// Which ring.
        index: u32,
        /// Bit 0 (`VHOST_VRING_F_LOG`): writes to the used ring are logged.
        flags: u32,
        /// Descriptor table.
        descriptor: u64,
        /// Used ring.
        used: u64,
        /// Available ring.
        available: u64,
        /// Guest-physical address of the used ring in the log.
        log: u64,
    } 40
}

impl VringAddr {
    /// `VHOST_VRING_F_LOG`.
    pub const F_LOG: u32 = 1;
}

fixed! {
    /// A region of guest memory.
    MemoryRegion {
        /// Where the guest finds it.
        guest_address: u64,
        /// Bytes.
        size: u64,
        /// Where the front-end has it: what ring addresses are relative to.
        user_address: u64,
        /// Where it begins in the descriptor beside it.
        mmap_offset: u64,
    } 32
}

fixed! {
    /// The log of dirty pages.
    Log {
        /// Bytes.
        size: u64,
        /// Where it begins in the descriptor beside it.
        offset: u64,
    } 16
}

/// Where the log of dirty pages is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogBase {
    /// In the descriptor beside it (`VHOST_USER_PROTOCOL_F_LOG_SHMFD`); this has a reply.
    Shared(Log),
    /// In the memory of the front-end's process; this has none.
    Address(u64),
}

impl Payload for LogBase {
    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Shared(log) => log.payload(),
            Self::Address(address) => address.payload(),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        match bytes.len() {
            8 => u64::parse(bytes).map(Self::Address),
            _ => Log::parse(bytes).map(Self::Shared),
        }
    }
}

fixed! {
    /// An entry of the IOMMU's translation table, or a request for one.
    Iotlb {
        /// I/O virtual address.
        iova: u64,
        /// Bytes.
        size: u64,
        /// Address in the front-end.
        user_address: u64,
        /// Bit 0 read, bit 1 write.
        permission: u8,
        /// 1 miss, 2 update, 3 invalidate, 4 access failed.
        kind: u8,
    } 32
}

fixed! {
    /// A part of the back-end's memory that takes a ring's kicks.
    VringArea {
        /// Bits 0-7 the ring, bit 8: no descriptor comes with it.
        index: u64,
        /// Bytes.
        size: u64,
        /// Where it begins in the descriptor.
        offset: u64,
    } 24
}

/// Which ring a descriptor is for, and whether there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VringFd {
    /// Which ring.
    pub index: u8,
    /// Whether a descriptor comes with it. Without one, kicks are found by polling, and calls not made.
    pub has_fd: bool,
}

const NO_FD: u64 = 1 << 8;

impl Payload for VringFd {
    fn payload(&self) -> Vec<u8> {
        (u64::from(self.index) | if self.has_fd { 0 } else { NO_FD }).payload()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let value = u64::parse(bytes)?;
        if value & !(NO_FD | 0xff) != 0 {
            return Err(Wrong::Value("bits 9 and up are reserved"));
        }
        Ok(Self { index: value as u8, has_fd: value & NO_FD == 0 })
    }
}

/// The whole memory table: a number, padding, that many regions.
impl Payload for Vec<MemoryRegion> {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = (self.len() as u64).payload(); // u32 and padding; there are few
        bytes.extend(self.iter().flat_map(Payload::payload));
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        const REGION: usize = 32;
        let (head, regions) = bytes.split_at_checked(8).ok_or(Wrong::Size(8))?;
        let count = u64::parse(head)? as u32 as usize; // the other half is padding
        if !(1..=MAX_TABLE_REGIONS).contains(&count) {
            return Err(Wrong::Value("a memory table has 1 to 8 regions"));
        }
        // Linux in user mode sends room for two, whatever their number.
        if regions.len() < count * REGION || !regions.len().is_multiple_of(REGION) {
            return Err(Wrong::Size(8 + count * REGION));
        }
        regions.chunks_exact(REGION).take(count).map(MemoryRegion::parse).collect()
    }
}

/// One region, after padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SingleRegion(pub(super) MemoryRegion);

impl Payload for SingleRegion {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = 0u64.payload();
        bytes.extend(self.0.payload());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let region = bytes.get(8..).and_then(|region| MemoryRegion::parse(region).ok());
        region.map(Self).ok_or(Wrong::Size(40))
    }
}

/// Part of the configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it begins.
    pub offset: u32,
    /// Why it is written.
    pub flags: ConfigFlags,
    /// The bytes; in a request to read them, what they are makes no difference.
    pub data: Vec<u8>,
}

/// Why the configuration space is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum ConfigFlags {
    /// The guest does.
    #[default]
    Writable = 0,
    /// The device is being restored after a migration: read-only fields, too.
    Migration = 1,
}

impl Payload for Config {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + self.data.len());
        for field in [self.offset, self.data.len() as u32, self.flags as u32] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(&self.data);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let (head, data) = bytes.split_at_checked(12).ok_or(Wrong::Size(12))?;
        let mut head = Fields(head);
        let [offset, size, flags] = [(); 3].map(|()| u32::from_ne_bytes(head.take()));
        if size as usize > MAX_CONFIG {
            return Err(Wrong::Value("more of the configuration space than any device has"));
        }
        if data.len() != size as usize {
            return Err(Wrong::Size(12 + size as usize));
        }
        let flags = match flags {
            0 => ConfigFlags::Writable,
            1 => ConfigFlags::Migration,
            _ => return Err(Wrong::Value("flags are 0 (guest) or 1 (migration)")),
        };
        Ok(Self { offset, flags, data: data.into() })
    }
}

/// Where requests in flight are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inflight {
    /// Bytes.
    pub mmap_size: u64,
    /// Where it begins in the descriptor beside it.
    pub mmap_offset: u64,
    /// How many rings.
    pub queues: u16,
    /// Descriptors in each.
    pub queue_size: u16,
}

impl Payload for Inflight {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = self.mmap_size.payload();
        bytes.extend(self.mmap_offset.to_ne_bytes());
        bytes.extend(self.queues.to_ne_bytes());
        bytes.extend(self.queue_size.to_ne_bytes());
        // A C structure has padding at its end, and everybody sends it.
        bytes.resize(24, 0);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        if !matches!(bytes.len(), 20 | 24) {
            return Err(Wrong::Size(24));
        }
        let mut at = Fields(bytes);
        let [mmap_size, mmap_offset] = [(); 2].map(|()| u64::from_ne_bytes(at.take()));
        let [queues, queue_size] = [(); 2].map(|()| u16::from_ne_bytes(at.take()));
        Ok(Self { mmap_size, mmap_offset, queues, queue_size })
    }
}

/// What names a shared object.
pub type Uuid = [u8; 16];

impl Payload for Uuid {
    fn payload(&self) -> Vec<u8> {
        self.into()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        bytes.try_into().map_err(|_| Wrong::Size(16))
    }
}

/// Where a device's state is about to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStateTransfer {
    /// Out of the back-end or into it.
    pub direction: StateDirection,
    /// When: 0 (`VHOST_TRANSFER_STATE_PHASE_STOPPED`) is the only phase there is.
    pub phase: u32,
}

/// Out of the back-end or into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum StateDirection {
    /// The back-end writes it.
    Save = 0,
    /// The back-end reads it.
    Load = 1,
}

impl Payload for DeviceStateTransfer {
    fn payload(&self) -> Vec<u8> {
        VringState { index: self.direction as u32, num: self.phase }.payload()
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let VringState { index: direction, num: phase } = VringState::parse(bytes)?;
        let direction = match direction {
            0 => StateDirection::Save,
            1 => StateDirection::Load,
            _ => return Err(Wrong::Value("the direction is 0 (save) or 1 (load)")),
        };
        if phase != 0 {
            return Err(Wrong::Value("the phase is 0 (stopped)"));
        }
        Ok(Self { direction, phase })
    }
}

/// A piece of a file to show in the device's shared memory, or one to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mmap {
    /// Which region.
    pub shmid: u8,
    /// Where it begins in the descriptor beside it.
    pub fd_offset: u64,
    /// Where it begins in the region.
    pub shm_offset: u64,
    /// Bytes.
    pub len: u64,
    /// Bit 0: writable, too.
    pub flags: u64,
}

impl Mmap {
    /// `VHOST_USER_FLAG_MAP_RW`.
    pub const F_WRITABLE: u64 = 1;
}

impl Payload for Mmap {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = u64::from_ne_bytes([self.shmid, 0, 0, 0, 0, 0, 0, 0]).payload();
        for field in [self.fd_offset, self.shm_offset, self.len, self.flags] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        if bytes.len() != 40 {
            return Err(Wrong::Size(40));
        }
        let mut at = Fields(bytes);
        let [shmid, ..] = at.take::<8>();
        let [fd_offset, shm_offset, len, flags] = [(); 4].map(|()| u64::from_ne_bytes(at.take()));
        Ok(Self { shmid, fd_offset, shm_offset, len, flags })
    }
}

/// The most regions of shared memory a device can have.
pub const MAX_SHARED_REGIONS: usize = 256;

/// Sizes of a device's regions of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMemoryConfig {
    /// Bytes of each region, by its shmid; zero for none.
    pub sizes: Box<[u64; MAX_SHARED_REGIONS]>,
}

impl Payload for SharedMemoryConfig {
    fn payload(&self) -> Vec<u8> {
        let count = self.sizes.iter().filter(|size| **size != 0).count();
        let mut bytes = (count as u64).payload(); // u32 and padding
        bytes.extend(self.sizes.iter().flat_map(|size| size.to_ne_bytes()));
        bytes
    }

    /// The number of regions is not looked at: it follows from the sizes.
    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        const LEN: usize = 8 + 8 * MAX_SHARED_REGIONS;
        if bytes.len() != LEN {
            return Err(Wrong::Size(LEN));
        }
        let mut at = Fields(&bytes[8..]);
        let mut sizes = Box::new([0; MAX_SHARED_REGIONS]);
        sizes.fill_with(|| u64::from_ne_bytes(at.take()));
        Ok(Self { sizes })
    }
}
