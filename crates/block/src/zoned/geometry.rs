//! The shape of a zoned disk: what it is made with, and never changes.

/// How a disk is divided into zones. All sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The whole disk. Its last zone is shorter when this is not a multiple of `zone_size`.
    pub capacity: u64,
    /// From the start of a zone to that of the next one; a power of two.
    pub zone_size: u64,
    /// How much of a sequential zone can be written, at most `zone_size`.
    pub zone_capacity: u64,
    /// How many zones at the start are conventional: written anywhere, in any order.
    pub conventional: u32,
    /// The most zones that may be open at once; 0 is no limit.
    pub max_open: u32,
    /// The most zones that may be open or closed (partly written) at once; 0 is no limit.
    pub max_active: u32,
    /// The most bytes of one append.
    pub max_append: u64,
    /// What offsets and lengths of writes to sequential zones are multiples of: 512 or 4096.
    pub granularity: u32,
}

/// Why a disk cannot have such zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Writes of neither 512 nor 4096 bytes.
    #[error("a write granularity of {0} bytes; it is 512 or 4096")]
    Granularity(u32),
    /// Not a power of two, which Linux refuses, or absurd.
    #[error("a zone size of {0} bytes; it is a power of two from 64 KiB to 1 TiB")]
    ZoneSize(u64),
    /// None, more than the zone size, or not whole blocks.
    #[error(
        "a zone capacity of {capacity} bytes; it is whole blocks of {granularity}, at most the zone size"
    )]
    ZoneCapacity {
        /// What was asked for.
        capacity: u64,
        /// The block.
        granularity: u32,
    },
    /// Not whole blocks, or not even one zone.
    #[error("a disk of {0} bytes; it is whole blocks and at least one zone")]
    Capacity(u64),
    /// More zones than a disk may have.
    #[error("{0} zones; a disk has at most {MAX_ZONES}: make them larger")]
    Zones(u64),
    /// A short last zone where zones are not written to their end, which Linux refuses.
    #[error("the last zone is short, and zones have a capacity below their size: one or the other")]
    ShortLastZone,
    /// No sequential zone is left.
    #[error("{conventional} conventional zones of {zones}; at least one is sequential")]
    Conventional {
        /// What was asked for.
        conventional: u32,
        /// How many zones there are.
        zones: u32,
    },
    /// More zones may be open than active.
    #[error("{max_open} zones may be open, but only {max_active} active: an open zone is active")]
    Limits {
        /// What was asked for.
        max_open: u32,
        /// What was asked for.
        max_active: u32,
    },
    /// None, which Linux refuses, or not whole blocks, or more than fits in a zone.
    #[error("appends of {0} bytes; at least one block, whole blocks, at most the zone capacity")]
    MaxAppend(u64),
}

/// The most zones of a disk.
pub const MAX_ZONES: u32 = 1 << 20;

const ZONE_SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 40;

impl Geometry {
    /// Zones of `zone_size` bytes on a disk of `capacity`, all sequential and writable to their end,
    /// without limits, in blocks of 4096 bytes.
    #[must_use]
    pub fn new(capacity: u64, zone_size: u64) -> Self {
        Self {
            capacity,
            zone_size,
            zone_capacity: zone_size,
            conventional: 0,
            max_open: 0,
            max_active: 0,
            max_append: zone_size.min(1016 << 10),
            granularity: 4096,
        }
    }

    /// Says whether a disk can have this shape, and Linux would take it. Limits that no number of
    /// open zones can reach come back as no limit.
    ///
    /// # Errors
    /// See [`GeometryError`].
    pub fn checked(self) -> Result<Self, GeometryError> {
        let Self {
            capacity,
            zone_size,
            zone_capacity,
            conventional,
            max_open,
            max_active,
            max_append,
            granularity,
        } = self;
        let block = u64::from(granularity);
        if !matches!(granularity, 512 | 4096) {
            return Err(GeometryError::Granularity(granularity));
        }
        if !zone_size.is_power_of_two() || !ZONE_SIZES.contains(&zone_size) {
            return Err(GeometryError::ZoneSize(zone_size));
        }
        if zone_capacity == 0 || zone_capacity > zone_size || !zone_capacity.is_multiple_of(block) {
            return Err(GeometryError::ZoneCapacity { capacity: zone_capacity, granularity });
        }
        if capacity < zone_size || !capacity.is_multiple_of(block) {
            return Err(GeometryError::Capacity(capacity));
        }
        if capacity.div_ceil(zone_size) > u64::from(MAX_ZONES) {
            return Err(GeometryError::Zones(capacity.div_ceil(zone_size)));
        }
        if !capacity.is_multiple_of(zone_size) && zone_capacity < zone_size {
            return Err(GeometryError::ShortLastZone);
        }
        let zones = self.zones();
        if conventional >= zones {
            return Err(GeometryError::Conventional { conventional, zones });
        }
        if max_open > max_active && max_active != 0 {
            return Err(GeometryError::Limits { max_open, max_active });
        }
        if max_append == 0 || max_append > zone_capacity || !max_append.is_multiple_of(block) {
            return Err(GeometryError::MaxAppend(max_append));
        }
        let reachable = |limit: u32| if limit >= zones - conventional { 0 } else { limit };
        Ok(Self { max_open: reachable(max_open), max_active: reachable(max_active), ..self })
    }

    /// How many zones there are.
    #[must_use]
    pub fn zones(&self) -> u32 {
        self.capacity.div_ceil(self.zone_size) as u32 // a checked geometry has at most MAX_ZONES
    }

    /// Which zone `offset` is in; `None` beyond the disk.
    #[must_use]
    pub fn zone_at(&self, offset: u64) -> Option<u32> {
        (offset < self.capacity).then(|| (offset >> self.zone_size.trailing_zeros()) as u32)
    }

    /// Where `zone` starts.
    #[must_use]
    pub fn start_of(&self, zone: u32) -> u64 {
        u64::from(zone) * self.zone_size
    }

    /// How much of `zone` can be written.
    #[must_use]
    pub fn capacity_of(&self, zone: u32) -> u64 {
        let whole = if self.is_conventional(zone) { self.zone_size } else { self.zone_capacity };
        whole.min(self.capacity - self.start_of(zone))
    }

    /// Whether `zone` is written anywhere, in any order.
    #[must_use]
    pub fn is_conventional(&self, zone: u32) -> bool {
        zone < self.conventional
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn good() -> Geometry {
        Geometry::new(64 * MIB, 4 * MIB)
    }

    #[test]
    fn what_linux_refuses_is_refused() {
        type Case = (fn(&mut Geometry), &'static str);
        let cases: [Case; 12] = [
            (|g| g.granularity = 1024, "granularity of 1024"),
            (|g| g.zone_size = 3 * MIB, "power of two"),
            (|g| g.zone_capacity = 0, "zone capacity of 0"),
            (|g| g.zone_capacity = 8 * MIB, "at most the zone size"),
            (|g| g.zone_capacity = 4 * MIB - 512, "whole blocks"),
            (|g| g.capacity = 2 * MIB, "at least one zone"),
            (|g| g.capacity += 512, "whole blocks"),
            (|g| (g.capacity, g.zone_capacity) = (62 * MIB, 3 * MIB), "one or the other"),
            (|g| g.conventional = 16, "at least one is sequential"),
            (|g| (g.max_open, g.max_active) = (8, 4), "an open zone is active"),
            (|g| g.max_append = 0, "at least one block"),
            (|g| g.max_append = 8 * MIB, "at most the zone capacity"),
        ];
        for (change, said) in cases {
            let mut geometry = good();
            change(&mut geometry);
            let error = geometry.checked().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(good().checked(), Ok(good()));
    }

    #[test]
    fn a_limit_nobody_reaches_is_none() {
        let geometry =
            Geometry { conventional: 4, max_open: 11, max_active: 12, ..good() }.checked().unwrap();
        assert_eq!((geometry.max_open, geometry.max_active), (11, 0));
    }

    #[test]
    fn the_last_zone_may_be_short() {
        let geometry = Geometry { capacity: 62 * MIB, conventional: 1, ..good() }.checked().unwrap();
        assert_eq!(geometry.zones(), 16);
        assert_eq!(geometry.capacity_of(15), 2 * MIB);
        assert_eq!(geometry.zone_at(62 * MIB - 1), Some(15));
        assert_eq!(geometry.zone_at(62 * MIB), None);
        assert_eq!((geometry.start_of(3), geometry.capacity_of(3)), (12 * MIB, 4 * MIB));
    }
}
