//! The bus and its functions as a guest sees them, on a model of the host.

mod bus;
mod hostile;
mod interrupts;
mod kvm;
mod lifecycle;
mod shared_memory;
mod virtio;
