//! What differs between processor architectures: addresses, tables, registers, how a kernel starts.
//!
//! Nothing here talks to KVM. Functions say what to set; the machine sets it.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;
