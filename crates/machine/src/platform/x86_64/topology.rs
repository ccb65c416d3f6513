//! How many processors there are, and how they sit in sockets, cores and threads.

use super::layout::MAX_VCPUS;

/// Sockets, cores in each socket and threads in each core; and from that each processor's APIC
/// identifier.
///
/// An APIC identifier is three bit fields (socket, core, thread), each as wide as its count needs, so
/// counts that are no powers of two leave gaps (Intel SDM vol. 3A §9.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    sockets: u32,
    cores: u32,
    threads: u32,
}

/// Why there can be no such processors.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopologyError {
    /// A count is zero.
    #[error("a machine has at least one socket, core and thread")]
    Zero,
    /// There are more processors than APIC identifiers.
    #[error(
        "{sockets} sockets of {cores} cores of {threads} threads need APIC identifiers beyond {}",
        MAX_VCPUS - 1
    )]
    TooMany {
        /// Sockets asked for.
        sockets: u32,
        /// Cores in each socket asked for.
        cores: u32,
        /// Threads in each core asked for.
        threads: u32,
    },
}

impl Topology {
    /// The topology of `sockets * cores * threads` processors.
    ///
    /// # Errors
    /// A count is zero, or the last APIC identifier would be 255 or more.
    pub fn new(sockets: u32, cores: u32, threads: u32) -> Result<Self, TopologyError> {
        if sockets == 0 || cores == 0 || threads == 0 {
            return Err(TopologyError::Zero);
        }
        let topology = Self { sockets, cores, threads };
        let fits = [sockets, cores, threads].iter().all(|&count| count <= MAX_VCPUS)
            && u64::from(sockets) * u64::from(cores) * u64::from(threads) <= u64::from(MAX_VCPUS)
            && topology.apic_id(topology.cpus() - 1) < MAX_VCPUS;
        if fits { Ok(topology) } else { Err(TopologyError::TooMany { sockets, cores, threads }) }
    }

    /// Processors in all.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }

    /// The APIC identifier of processor `index` (from 0). KVM wants it as the number of the vCPU.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        let thread = index % self.threads;
        let core = index / self.threads % self.cores;
        let socket = index / self.threads / self.cores;
        socket << self.socket_shift() | core << self.core_shift() | thread
    }

    /// Cores in a socket.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Threads in a core.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Processors in a socket.
    #[must_use]
    pub fn cpus_per_socket(&self) -> u32 {
        self.cores * self.threads
    }

    /// Bits of an APIC identifier below the core field.
    #[must_use]
    pub fn core_shift(&self) -> u32 {
        bits_for(self.threads)
    }

    /// Bits of an APIC identifier below the socket field.
    #[must_use]
    pub fn socket_shift(&self) -> u32 {
        self.core_shift() + bits_for(self.cores)
    }
}

/// Bits that tell `count` things apart.
fn bits_for(count: u32) -> u32 {
    u32::BITS - (count - 1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(sockets: u32, cores: u32, threads: u32) -> Vec<u32> {
        let topology = Topology::new(sockets, cores, threads).unwrap();
        (0..topology.cpus()).map(|index| topology.apic_id(index)).collect()
    }

    #[test]
    fn identifiers_have_a_field_for_each_level() {
        assert_eq!(ids(1, 1, 1), [0]);
        assert_eq!(ids(1, 2, 1), [0, 1]);
        assert_eq!(ids(2, 2, 2), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(ids(1, 3, 1), [0, 1, 2]);
        assert_eq!(ids(2, 3, 1), [0, 1, 2, 4, 5, 6], "three cores need two bits");
        assert_eq!(ids(1, 3, 2), [0, 1, 2, 3, 4, 5]);
        assert_eq!(ids(2, 1, 3), [0, 1, 2, 4, 5, 6]);
        assert_eq!(ids(4, 4, 2), (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(Topology::new(1, 0, 1), Err(TopologyError::Zero));
        assert!(Topology::new(1, 255, 1).is_ok());
        assert!(Topology::new(1, 256, 1).is_err(), "255 is the broadcast identifier");
        assert!(Topology::new(u32::MAX, u32::MAX, u32::MAX).is_err());
        assert!(Topology::new(51, 5, 1).is_err(), "255 processors, but identifiers up to 404");
    }
}
