//! Opening an image: what it is, how big, who else has it.

mod host;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::host::{alignment, check_kind, discard_granularity, lock, open_error, patiently, topology};
use crate::engine::{SyncDisk, ThreadsDisk, UringDisk};
use crate::raw::{Abilities, RawFile};
use crate::zoned::convert::Drive;
use crate::zoned::disk::ZonedFile;
use crate::zoned::{DeviceError, Zoned};
use crate::{Aio, Disk, Error, sys};

/// The unit of sizes in virtio and on disks, in bytes.
pub const SECTOR: u32 = 512;

/// How to open a raw image or a block device.
#[derive(Debug, Clone)]
pub struct RawOptions {
    /// A regular file or a block device. What is in it is never looked at: a guest that writes the
    /// header of another format there changes nothing.
    pub path: PathBuf,
    /// Whether writes are refused; the host is then asked for read access only. Default: no.
    pub read_only: bool,
    /// Whether to bypass the host's page cache (`O_DIRECT`). Default: no.
    pub direct: bool,
    /// How to move data. Default: io_uring.
    pub aio: Aio,
    /// Whether [`crate::Op::Discard`] gives space back to the host. Default: yes.
    pub discard: bool,
    /// Whether to refuse an image that somebody else has open, and to make others refuse it.
    /// Default: yes. Only for software in the guests that is made to share disks is "no" safe.
    pub lock: bool,
    /// Whether what nobody flushed to a zoned image is gone when the process ends, as after a power
    /// cut: for tests. Default: no.
    pub power_cut: bool,
}

impl RawOptions {
    /// The defaults for `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            path,
            read_only: false,
            direct: false,
            aio: Aio::IoUring,
            discard: true,
            lock: true,
            power_cut: false,
        }
    }
}

/// Block sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// The unit of addressing, at least 512; requests smaller than that may be refused.
    pub logical_block: u32,
    /// What the medium writes at once.
    pub physical_block: u32,
    /// Offset of the first physical block that starts on a boundary.
    pub alignment_offset: u32,
    /// Requests smaller than that are slow; 0 when unknown.
    pub minimum_io: u32,
    /// Requests of a multiple of that are best; 0 when unknown.
    pub optimal_io: u32,
}

/// An open disk image. Cheap to clone, usable from any thread; its lock goes with the last clone and
/// the last disk made of it.
#[derive(Debug, Clone)]
pub struct Image {
    raw: Arc<RawFile>,
    aio: Aio,
    zoned: Option<Arc<ZonedFile>>,
}

impl Image {
    /// Opens and locks an image.
    ///
    /// # Errors
    /// See [`Error`]: each has the path and cause in its message, and most a hint.
    pub fn open(options: &RawOptions) -> Result<Self, Error> {
        Self::from_file(Self::open_file(options)?, options)
    }

    /// Opens the file of an image, for [`Image::from_file`] of another process, and locks nothing.
    ///
    /// # Errors
    /// It is not there, is no disk, or does not open for this user.
    pub fn open_file(options: &RawOptions) -> Result<File, Error> {
        let path = &options.path;
        let block_device = check_kind(path, &std::fs::metadata(path).map_err(|e| open_error(options, e))?)?;
        let mut flags = libc::O_CLOEXEC;
        if block_device && options.lock && !options.read_only {
            // Without O_CREAT this is the kernel's own "nobody else": mounts, RAID, other exclusive users.
            flags |= libc::O_EXCL;
        }
        let open = || OpenOptions::new().read(true).write(!options.read_only).custom_flags(flags).open(path);
        let is_busy =
            |file: &io::Result<File>| file.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY));
        patiently(open, is_busy).map_err(|e| open_error(options, e))
    }

    /// Whether somebody has a lock on the image that keeps us from it, now.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn is_locked(file: &File, read_only: bool) -> io::Result<bool> {
        if read_only { sys::is_locked(file, 101, 3) } else { sys::is_locked(file, 100, 200) }
    }

    /// Locks `file`, which is to become an image, against everybody else; whether nobody has it.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn try_lock(file: &File) -> io::Result<bool> {
        sys::lock(file, true, 100, 200)
    }

    /// Takes an image somebody else opened, with `options.path` as its name in messages. The file
    /// must be open for reading, and for writing unless `options.read_only`.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn from_file(file: File, options: &RawOptions) -> Result<Self, Error> {
        let path = options.path.clone();
        let host = |action| {
            let path = path.clone();
            move |source| Error::Host { path, action, source }
        };
        let metadata = file.metadata().map_err(host("examine"))?;
        let block_device = check_kind(&path, &metadata)?;
        let mode = sys::open_flags(&file).map_err(host("examine"))? & libc::O_ACCMODE;
        if mode == libc::O_WRONLY || (mode == libc::O_RDONLY && !options.read_only) {
            return Err(Error::Permission { path, read_only: options.read_only });
        }
        if options.lock {
            lock(&file, options)?;
        }
        if options.direct {
            sys::set_direct(&file).map_err(|source| Error::NoDirect { path: path.clone(), source })?;
        }
        let topology = topology(&file, &metadata, block_device, options.direct).map_err(host("examine"))?;
        let direct = options.direct.then(|| alignment(&file, &topology));
        let discard =
            if options.discard && !options.read_only { discard_granularity(&file, &metadata) } else { None };
        let raw = RawFile {
            path: path.clone(),
            in_memory: sys::is_in_memory(&file),
            file,
            size: AtomicU64::new(0),
            read_only: options.read_only,
            block_device,
            direct,
            topology,
            discard,
            can: Abilities::default(),
        };
        let bytes = raw.host_size().map_err(host("measure"))?;
        let size = raw.usable(bytes);
        if size == 0 {
            return Err(Error::Empty { path, bytes, block: topology.logical_block });
        }
        if size != bytes {
            tracing::warn!(
                "disk image {}: the last {} bytes are not a whole block of {} and are not part of the disk",
                path.display(),
                bytes - size,
                topology.logical_block,
            );
        }
        raw.size.store(size, Ordering::Relaxed);
        Ok(Self { raw: Arc::new(raw), aio: options.aio, zoned: None })
    }

    /// As [`Image::open`], of a zoned image: docs/zoned-image.md.
    ///
    /// # Errors
    /// As [`Image::open`]; besides, it is no such image, or not a sound one.
    pub fn open_zoned(options: &RawOptions) -> Result<Self, Error> {
        Self::from_file_zoned(Self::open_file(options)?, options)
    }

    /// As [`Image::from_file`], of a zoned image.
    ///
    /// # Errors
    /// As [`Image::open_zoned`].
    pub fn from_file_zoned(file: File, options: &RawOptions) -> Result<Self, Error> {
        let path = || options.path.clone();
        if options.read_only {
            return Err(Error::ZonedReadOnly { path: path() });
        }
        if options.direct {
            // The metadata shares the open file, and is not aligned.
            return Err(Error::NoDirect { path: path(), source: io::ErrorKind::Unsupported.into() });
        }
        let image = Self::from_file(file, options)?;
        let zoned = ZonedFile::open(Arc::clone(&image.raw), options.power_cut);
        let zoned = zoned.map_err(|source| Error::Zoned { path: path(), source })?;
        Ok(Self { zoned: Some(Arc::new(zoned)), ..image })
    }

    /// As [`Image::open`], of a block device with zones: the host's own. Reading and writing always go
    /// around the host's page cache.
    ///
    /// # Errors
    /// As [`Image::open`]; besides, it is no such device, or its zones are not as [`Zoned`] has them.
    pub fn open_zoned_device(options: &RawOptions) -> Result<Self, Error> {
        Self::from_file_zoned_device(Self::open_file(options)?, options)
    }

    /// As [`Image::from_file`], of a block device with zones.
    ///
    /// # Errors
    /// As [`Image::open_zoned_device`].
    pub fn from_file_zoned_device(file: File, options: &RawOptions) -> Result<Self, Error> {
        let path = || options.path.clone();
        if options.read_only {
            return Err(Error::ZonedReadOnly { path: path() });
        }
        let unfit = |source| Error::ZonedDevice { path: path(), source };
        if !file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device()) {
            return Err(unfit(DeviceError::NotADevice));
        }
        // The kernel takes no other writes to sequential zones.
        let image = Self::from_file(file, &RawOptions { direct: true, ..options.clone() })?;
        let zoned = ZonedFile::pass_through(Arc::clone(&image.raw)).map_err(unfit)?;
        Ok(Self { zoned: Some(Arc::new(zoned)), ..image })
    }

    /// Opens and locks a block device with zones, to be copied from or to.
    ///
    /// # Errors
    /// As [`Image::open_zoned_device`].
    pub fn open_drive(options: &RawOptions) -> Result<Drive, Error> {
        let unfit = |source| Error::ZonedDevice { path: options.path.clone(), source };
        let image = Self::open(&RawOptions { direct: true, ..options.clone() })?;
        if !image.raw.block_device {
            return Err(unfit(DeviceError::NotADevice));
        }
        Drive::open(image.raw).map_err(unfit)
    }

    /// A queue of requests for one virtqueue, at its best with up to `depth` in flight.
    ///
    /// Where io_uring was asked for and the host forbids it (a container's system call filter, the
    /// `kernel.io_uring_disabled` setting, an old kernel), threads do the work instead: one warning
    /// says so and [`Disk::aio`] tells.
    ///
    /// # Errors
    /// The host refuses a descriptor.
    pub fn queue(&self, depth: u16) -> io::Result<Box<dyn Disk>> {
        let raw = self.raw_queue(depth)?;
        match &self.zoned {
            Some(zoned) => zoned.queue(raw, depth),
            None => Ok(raw),
        }
    }

    /// A queue of requests to the whole file.
    fn raw_queue(&self, depth: u16) -> io::Result<Box<dyn Disk>> {
        let raw = Arc::clone(&self.raw);
        match self.aio {
            Aio::Sync => Ok(Box::new(SyncDisk::new(raw))),
            Aio::Threads => Ok(Box::new(ThreadsDisk::new(raw, depth)?)),
            Aio::IoUring => match UringDisk::new(Arc::clone(&raw), depth) {
                Ok(disk) => Ok(Box::new(disk)),
                Err(error) => {
                    warn_no_uring(&error);
                    Ok(Box::new(ThreadsDisk::new(raw, depth)?))
                }
            },
        }
    }

    /// Bytes of disk: whole logical blocks.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self.zoned() {
            Some(zoned) => zoned.geometry().capacity,
            None => self.raw.size.load(Ordering::Relaxed),
        }
    }

    /// Measures the image again, after somebody resized it, and returns the new [`Image::size`].
    /// Requests are judged by it from then on.
    ///
    /// # Errors
    /// The host does not say, or nothing is left (`InvalidData`); the size stays as it was. That of a
    /// zoned image always does.
    pub fn refresh_size(&self) -> io::Result<u64> {
        if self.zoned.is_some() {
            return Ok(self.size());
        }
        let size = self.raw.usable(self.raw.host_size()?);
        if size == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.raw.size.store(size, Ordering::Relaxed);
        Ok(size)
    }

    /// Makes everything written so far durable; blocks for as long as that takes.
    ///
    /// # Errors
    /// The host could not: what was written may be lost.
    pub fn flush(&self) -> io::Result<()> {
        match &self.zoned {
            Some(zoned) => zoned.flush(),
            None => self.raw.file.sync_data(),
        }
    }

    /// Makes all durable and says so in a zoned image, as dropping the last of it does: for a process
    /// that ends without. Its queues have been stopped.
    ///
    /// # Errors
    /// The host could not: what was written may be lost.
    pub fn close(&self) -> io::Result<()> {
        self.zoned.as_ref().map_or(Ok(()), |zoned| zoned.close())
    }

    #[cfg(test)]
    pub(crate) fn zones(&self) -> Option<&Arc<ZonedFile>> {
        self.zoned.as_ref()
    }

    /// Its zones, if it has any.
    #[must_use]
    pub fn zoned(&self) -> Option<&dyn Zoned> {
        self.zoned.as_deref().map(|zoned| zoned as &dyn Zoned)
    }

    /// The block sizes a guest should know.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let Some(zoned) = self.zoned() else { return self.raw.topology };
        // What is written at once is what a write pointer moves by.
        let block = zoned.geometry().granularity;
        Topology {
            logical_block: block,
            physical_block: block,
            alignment_offset: 0,
            minimum_io: block,
            optimal_io: 0,
        }
    }

    /// Whether writes are refused.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.raw.read_only
    }

    /// The unit, in bytes, in which [`crate::Op::Discard`] gives space back; `None` when it does
    /// nothing here.
    #[must_use]
    pub fn discard_granularity(&self) -> Option<u32> {
        if self.zoned.is_some() { None } else { self.raw.discard }
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.raw.path
    }
}

impl RawFile {
    fn host_size(&self) -> io::Result<u64> {
        if self.block_device { sys::block_device_size(&self.file) } else { Ok(self.file.metadata()?.len()) }
    }

    /// The whole logical blocks in `bytes`.
    fn usable(&self, bytes: u64) -> u64 {
        bytes - bytes % u64::from(self.topology.logical_block)
    }
}

fn warn_no_uring(error: &io::Error) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::warn!("io_uring is not available here ({error}); disks use threads instead");
    });
}
