//! A computer made of KVM: memory, processors, buses, PCI Express, boot and ACPI.
//!
//! [`Machine`] is put together in order (shape, devices, boot), started, and then watched from
//! outside as a [`RunningMachine`]. What a guest does comes back as values: an [`bus::Effect`] of a
//! device, the [`Outcome`] of the whole. A guest that reboots does so inside: its processors are made
//! anew, its devices reset, its kernel loaded again.
//!
//! | module | |
//! |---|---|
//! | [`bus`] | address spaces and the devices in them |
//! | [`pci`] | the PCI Express bus, and virtio on it |
//! | [`legacy`] | serial port, clock, power |
//! | [`platform`] | what differs between processor architectures: addresses, tables, registers, boot |
//!
//! A machine whose "kernel" switches it off with three instructions:
//!
//! ```
//! use std::{fs::File, io::Write};
//! use parador_machine::{Boot, BootFile, Error, KvmError, Machine, Outcome, Shape};
//!
//! // mov al, 0x34; mov dx, 0x600; out dx, al: "soft off" to ACPI's sleep control register.
//! let kernel = elf_kernel(&[0xb0, 0x34, 0x66, 0xba, 0x00, 0x06, 0xee]);
//! let mut machine = match Machine::new(Shape::new(16 << 20)) {
//!     // Nothing to show on a host without KVM.
//!     Err(Error::Kvm(KvmError::Absent | KvmError::NoPermission)) => return Ok(()),
//!     machine => machine?,
//! };
//! let path = std::env::temp_dir().join(format!("soft-off-{}", std::process::id()));
//! File::create(&path)?.write_all(&kernel)?;
//! machine.load(Boot { kernel: BootFile::open(&path)?, initrd: None, cmdline: String::new() })?;
//! let machine = machine.start()?;
//! assert_eq!(machine.wait(), Outcome::PoweredOff);
//! # std::fs::remove_file(&path)?;
//!
//! /// An ELF file that is loaded at 1 MiB and entered at its first byte.
//! fn elf_kernel(code: &[u8]) -> Vec<u8> {
//!     let (at, size, address) = (64 + 56, code.len() as u64, 0x10_0000_u64);
//!     let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
//!     file.extend([address, 64, 0].map(u64::to_le_bytes).concat());
//!     file.extend([0_u16, 0, 64, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
//!     file.extend([1_u32, 7].map(u32::to_le_bytes).concat());
//!     file.extend([at, address, address, size, size, 4].map(u64::to_le_bytes).concat());
//!     file.extend(code);
//!     file
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

mod affinity;
mod board;
pub mod bus;
mod error;
mod kvm;
pub mod legacy;
mod machine;
mod memory;
mod parts;
pub mod pci;
pub mod platform;
mod processors;
mod running;
mod serial;
mod shape;
mod vcpu;

pub use error::Error;
pub use kvm::{KvmError, Vm, hardware_virtualization, open_kvm};
pub use machine::Machine;
pub use memory::{Backing, HugePage, MemoryError, MemoryShape};
pub use pci::PciAddress;
pub use platform::x86_64::{BootError, Topology, TopologyError};
pub use running::{Outcome, Report, RunningMachine};
pub use shape::{Boot, BootFile, NumaNode, OnPanic, OnReset, SerialLine, Shape};
