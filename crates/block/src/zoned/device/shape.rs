//! What a host says of a zoned block device, and what that is to us.

use std::io;

use crate::sys::BlkZone;
use crate::zoned::{Condition, Geometry, GeometryError};

/// The unit of zones in the kernel, in bytes.
pub(super) const SECTOR: u64 = 512;

// linux/blkzoned.h
pub(super) const CONVENTIONAL: u8 = 1;
pub(super) const SEQUENTIAL: u8 = 2;

/// Why zones of a block device cannot be passed through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A regular file.
    #[error("it is no block device")]
    NotADevice,
    /// A block device without zones.
    #[error("it has no zones")]
    NotZoned,
    /// Zones that can be written anywhere, which Linux does not know any more.
    #[error("its zones are host-aware: they can be written anywhere")]
    HostAware,
    /// Zones no disk of ours can have.
    #[error("it has {0}")]
    Geometry(#[from] GeometryError),
    /// A zone that is not as the others.
    #[error("its zone {zone} {what}")]
    Zone {
        /// Which.
        zone: u32,
        /// What is so about it.
        what: &'static str,
    },
    /// Anything else the kernel says.
    #[error("the host refuses to {action}: {source}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl DeviceError {
    pub(super) fn host(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Host { action, source }
    }

    /// What the user can do about it, as a sentence without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotADevice => "name a block device; a disk with zones in a file is made with `parador image create --zoned`".into(),
            Self::NotZoned | Self::HostAware => {
                "pass it as a disk without zones; `lsblk --zoned` tells which devices are host-managed".into()
            }
            Self::Geometry(_) | Self::Zone { .. } => {
                "a disk with zones begins with the conventional ones, if any; all others are sequential and alike"
                    .into()
            }
            Self::Host { .. } => return None,
        })
    }
}

/// What the queue of a device says besides its zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::zoned) struct Limits {
    pub(in crate::zoned) max_open: u32,
    pub(in crate::zoned) max_active: u32,
    /// Bytes.
    pub(in crate::zoned) granularity: u32,
}

impl Limits {
    /// As `queue` has them, a name to a text.
    pub(in crate::zoned) fn read(
        queue: impl Fn(&'static str) -> Option<String>,
        logical_block: u32,
    ) -> Result<Self, DeviceError> {
        match queue("zoned").as_deref() {
            Some("host-managed") => {}
            Some("host-aware") => return Err(DeviceError::HostAware),
            _ => return Err(DeviceError::NotZoned),
        }
        let number = |name| queue(name).and_then(|text| text.parse().ok());
        Ok(Self {
            max_open: number("max_open_zones").unwrap_or(0),
            max_active: number("max_active_zones").unwrap_or(0),
            granularity: number("zone_write_granularity").filter(|bytes| *bytes > 0).unwrap_or(logical_block),
        })
    }
}

/// The shape of a device of `capacity` bytes with these zones. The most of an append is not the
/// device's: appends are writes to it.
pub(super) fn geometry(capacity: u64, limits: &Limits, zones: &[BlkZone]) -> Result<Geometry, DeviceError> {
    let bytes = |sectors: u64| sectors.saturating_mul(SECTOR);
    let conventional = zones.iter().take_while(|zone| zone.kind == CONVENTIONAL).count();
    let first = zones.first().ok_or(DeviceError::NotZoned)?;
    let usual = zones.get(conventional).unwrap_or(first);
    let Limits { max_open, max_active, granularity } = *limits;
    let zone_capacity = bytes(usual.capacity);
    let shape = Geometry::new(capacity, bytes(first.len));
    let geometry = Geometry {
        zone_capacity,
        conventional: u32::try_from(conventional).unwrap_or(u32::MAX),
        max_open,
        max_active,
        max_append: shape.max_append.min(zone_capacity),
        granularity,
        ..shape
    }
    .checked()?;
    let wrong = |zone, what| Err(DeviceError::Zone { zone, what });
    for (number, zone) in (0..geometry.zones()).zip(zones) {
        let start = geometry.start_of(number);
        let len = geometry.zone_size.min(capacity - start);
        if bytes(zone.start) != start || bytes(zone.len) != len {
            return wrong(number, "is not as long as the others");
        }
        match zone.kind {
            CONVENTIONAL if geometry.is_conventional(number) => {}
            CONVENTIONAL => return wrong(number, "is conventional, behind sequential ones"),
            SEQUENTIAL => {}
            _ => return wrong(number, "is neither conventional nor one that must be written sequentially"),
        }
        if bytes(zone.capacity) != geometry.capacity_of(number) {
            return wrong(number, "can be written to another length than the others");
        }
    }
    if zones.len() < geometry.zones() as usize {
        return wrong(zones.len() as u32, "is missing in what the host says");
    }
    Ok(geometry)
}

/// The condition of zone `number`, and how much of it is written.
pub(super) fn state(
    geometry: &Geometry,
    number: u32,
    zone: &BlkZone,
) -> Result<(Condition, u64), DeviceError> {
    let wrong = |what| DeviceError::Zone { zone: number, what };
    let condition = Condition::from_number(zone.condition);
    let condition = condition.ok_or_else(|| wrong("is in a condition that nobody knows"))?;
    let (start, capacity) = (geometry.start_of(number), geometry.capacity_of(number));
    let written = match condition {
        Condition::Empty => 0,
        open if open.is_active() => {
            let written = zone.write_pointer.saturating_mul(SECTOR).checked_sub(start);
            let fits = |written: &u64| {
                *written <= capacity && written.is_multiple_of(u64::from(geometry.granularity))
            };
            written.filter(fits).ok_or_else(|| wrong("has its write pointer elsewhere"))?
        }
        // Its write pointer means nothing; what can be read of it the device knows.
        _ => capacity,
    };
    if (condition == Condition::NotWritePointer) != geometry.is_conventional(number)
        && !matches!(condition, Condition::ReadOnly | Condition::Offline)
    {
        return Err(wrong("is in a condition that its kind does not have"));
    }
    Ok((condition, written))
}
