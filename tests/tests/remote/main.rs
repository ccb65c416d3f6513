//! Devices at the other end of a socket: what a driver sees is what it sees of the device itself.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod contract;
mod kill;
mod net;
mod served;
mod zones;
