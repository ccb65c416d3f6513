//! Our back-ends in front of a stranger: a QEMU without KVM is their front-end, and its guest, a stock
//! kernel with Debian's programs, uses the device.

mod backend;
mod bench;
mod blk;
mod guest;
mod nbdkit;
mod others;
#[path = "../qemu/qmp.rs"]
mod qmp;
mod under_load;
mod user_mode_linux;
