//! What Linux says and does about zones, and passes through to NVMe namespaces.
#![expect(unsafe_code, reason = "ioctls; each is one function with a safe signature")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The most zones of one report.
pub(crate) const MAX_ZONES: usize = 256;

const fn request(direction: u32, kind: u8, number: u8, size: usize) -> libc::Ioctl {
    (direction << 30 | (size as u32) << 16 | (kind as u32) << 8 | number as u32) as libc::Ioctl
}

const WRITE: u32 = 1;
const READ_WRITE: u32 = 3;
const ZONES: u8 = 0x12;
const NVME: u8 = b'N';
const BLKREPORTZONE: libc::Ioctl = request(READ_WRITE, ZONES, 130, 16);
/// NVMe's own number of Zone Append.
const ZONE_APPEND: u8 = 0x7d;
const NVME_IOCTL_ID: libc::Ioctl = request(0, NVME, 0x40, 0);
const NVME_IOCTL_IO64_CMD: libc::Ioctl = request(READ_WRITE, NVME, 0x48, size_of::<Passthrough>());

/// `struct blk_zone`: everything in sectors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawZone {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) wp: u64,
    pub(crate) kind: u8,
    pub(crate) cond: u8,
    flags: [u8; 6],
    pub(crate) capacity: u64,
    reserved: [u8; 24],
}

#[repr(C)]
struct Report {
    sector: u64,
    zones: u32,
    flags: u32,
    zone: [RawZone; MAX_ZONES],
}

/// All zones of a disk, of at most [`MAX_ZONES`].
pub(crate) fn report(disk: &File) -> io::Result<Vec<RawZone>> {
    let mut report =
        Report { sector: 0, zones: MAX_ZONES as u32, flags: 0, zone: [RawZone::default(); MAX_ZONES] };
    // SAFETY: the report has room for as many zones as it says.
    told(unsafe { libc::ioctl(disk.as_raw_fd(), BLKREPORTZONE, &raw mut report) })?;
    Ok(report.zone[..report.zones as usize].to_vec())
}

/// What is done to whole zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Reset = 131,
    Open = 134,
    Close = 135,
    Finish = 136,
}

/// Does it to the zones of `sectors` from `sector` on.
pub(crate) fn command(disk: &File, command: Command, sector: u64, sectors: u64) -> io::Result<()> {
    let range = [sector, sectors];
    let number = request(WRITE, ZONES, command as u8, size_of_val(&range));
    // SAFETY: `struct blk_zone_range` is these two numbers.
    told(unsafe { libc::ioctl(disk.as_raw_fd(), number, &raw const range) }).map(drop)
}

/// `struct nvme_passthru_cmd64`.
#[repr(C)]
#[derive(Default)]
struct Passthrough {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_len: u32,
    data_len: u32,
    /// 10 to 15.
    cdw10: [u32; 6],
    timeout_ms: u32,
    reserved2: u32,
    result: u64,
}

/// The number of a namespace.
pub(crate) fn namespace(nvme: &File) -> io::Result<u32> {
    // SAFETY: it takes no argument.
    told(unsafe { libc::ioctl(nvme.as_raw_fd(), NVME_IOCTL_ID) })
}

/// Appends `data`, blocks of `block` bytes, to the zone that begins at the block `zone`: the block at which they
/// are now, or the status with which NVMe refused it.
pub(crate) fn append(
    nvme: &File,
    namespace: u32,
    zone: u64,
    data: &[u8],
    block: usize,
) -> io::Result<Result<u64, u32>> {
    let blocks = (data.len() / block) as u32;
    let mut command = Passthrough {
        opcode: ZONE_APPEND,
        namespace,
        address: data.as_ptr() as u64,
        data_len: data.len() as u32,
        cdw10: [zone as u32, (zone >> 32) as u32, blocks - 1, 0, 0, 0],
        ..Passthrough::default()
    };
    // SAFETY: the command says where the data is and how long it is, and the data is only read.
    let status = told(unsafe { libc::ioctl(nvme.as_raw_fd(), NVME_IOCTL_IO64_CMD, &raw mut command) })?;
    Ok(if status == 0 { Ok(command.result) } else { Err(status) })
}

fn told(value: libc::c_int) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::Error::last_os_error())
}
