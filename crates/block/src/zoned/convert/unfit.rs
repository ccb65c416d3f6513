//! Whether a device can be made a copy of a disk.

use super::{Drive, Source};
use crate::zoned::Condition;

/// Why a device cannot be made a copy of a disk. Nothing on it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Zones of another size.
    #[error("its zones are {target} bytes long, those of the source {wanted}")]
    ZoneSize {
        /// Of the device.
        target: u64,
        /// Of the source.
        wanted: u64,
    },
    /// Too few zones.
    #[error("it has {target} zones, the source {wanted}")]
    Zones {
        /// Of the device.
        target: u32,
        /// Of the source.
        wanted: u32,
    },
    /// Other conventional zones.
    #[error("{target} of its zones are conventional, and {wanted} of the source")]
    Conventional {
        /// Of the device.
        target: u32,
        /// Of the source.
        wanted: u32,
    },
    /// A zone that cannot be written as far.
    #[error("zone {zone} holds {target} bytes, and {wanted} in the source")]
    Capacity {
        /// Which.
        zone: u32,
        /// Of the device.
        target: u64,
        /// Of the source.
        wanted: u64,
    },
    /// Larger blocks.
    #[error("it is written in blocks of {target} bytes, the source in {wanted}")]
    Granularity {
        /// Of the device.
        target: u32,
        /// Of the source.
        wanted: u32,
    },
    /// Too many zones are partly written.
    #[error("{target} of its zones can be partly written, and {wanted} of the source are")]
    Active {
        /// Of the device.
        target: u32,
        /// Of the source.
        wanted: u32,
    },
    /// A zone that is read-only or offline.
    #[error("its zone {0} cannot be written, and something is in it in the source")]
    Lost(u32),
    /// Zones that are not empty.
    #[error("{0} of its zones are not empty")]
    NotEmpty(u32),
    /// Zones of which nobody knows whether something is in them.
    #[error("{0} of its zones are conventional, and may not be empty")]
    MayNotBeEmpty(u32),
}

/// Whether `drive` can be made as `source` is, what is on it being lost only by `force`.
pub(super) fn check(source: &Source, drive: &Drive, force: bool) -> Result<(), Unfit> {
    let (ours, theirs) = (&source.geometry, &drive.geometry);
    let (target, wanted) = (theirs.zone_size, ours.zone_size);
    if target != wanted {
        return Err(Unfit::ZoneSize { target, wanted });
    }
    let (target, wanted) = (theirs.zones(), ours.zones());
    if target < wanted {
        return Err(Unfit::Zones { target, wanted });
    }
    let (target, wanted) = (theirs.conventional, ours.conventional);
    if target != wanted {
        return Err(Unfit::Conventional { target, wanted });
    }
    let (target, wanted) = (theirs.granularity, ours.granularity);
    if target > wanted {
        return Err(Unfit::Granularity { target, wanted });
    }
    for zone in 0..ours.zones() {
        let (target, wanted) = (theirs.capacity_of(zone), ours.capacity_of(zone));
        if target < wanted {
            return Err(Unfit::Capacity { zone, target, wanted });
        }
        let is_lost = matches!(drive.zones[zone as usize].0, Condition::ReadOnly | Condition::Offline);
        let is_blank = matches!(source.zones[zone as usize].0, Condition::Empty | Condition::Offline);
        if is_lost && !is_blank {
            return Err(Unfit::Lost(zone));
        }
    }
    let becomes_active = |zone: &u32| {
        let condition = source.zones[*zone as usize].0;
        let is_partly = matches!(condition, Condition::Closed | Condition::ReadOnly);
        is_partly && !ours.is_conventional(*zone) && source.written_of(*zone) > 0
    };
    let (target, wanted) = (theirs.max_active, (0..ours.zones()).filter(becomes_active).count() as u32);
    if target != 0 && target < wanted {
        return Err(Unfit::Active { target, wanted });
    }
    let holds = |(condition, _): &&(Condition, u64)| condition.is_active() || *condition == Condition::Full;
    let not_empty = drive.zones.iter().filter(holds).count() as u32;
    match (not_empty, theirs.conventional) {
        _ if force => Ok(()),
        (0, 0) => Ok(()),
        (0, conventional) => Err(Unfit::MayNotBeEmpty(conventional)),
        (not_empty, _) => Err(Unfit::NotEmpty(not_empty)),
    }
}
