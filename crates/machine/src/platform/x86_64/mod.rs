//! A PC without a past: x86-64, ACPI with reduced hardware, PCI Express, a few legacy ports.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod registers;
pub mod reset;
pub mod topology;

pub use acpi::{AcpiSetup, Node};
pub use boot::{BootError, Source, Sources, load};
pub use cpuid::{Cpuid, CpuidSetup};
pub use registers::{Entry, boot_msrs};
pub use topology::{Topology, TopologyError};
