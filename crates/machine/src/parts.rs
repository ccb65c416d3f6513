//! What a machine is made of, and what it takes to put it together again when the guest reboots.

use std::sync::Arc;

use tracing::{debug, warn};

use crate::board::Board;
use crate::error::Error;
use crate::kvm::{KvmError, Vm};
use crate::memory;
use crate::platform::x86_64::{self as platform, Cpuid, Entry};
use crate::shape::{Boot, Shape};
use crate::vcpu::Vcpu;

/// All of a machine but its processors. It outlives them: a guest that reboots gets new ones.
pub(crate) struct Core {
    pub(crate) shape: Shape,
    pub(crate) vm: Arc<Vm>,
    pub(crate) board: Board,
    pub(crate) cpuid: Cpuid,
    pub(crate) boot: Option<Boot>,
}

impl Core {
    /// Writes what the guest starts with into memory that is all zero.
    pub(crate) fn load(&self) -> Result<Entry, Error> {
        let Self { shape, vm, board, cpuid: _, boot } = self;
        let boot = boot.as_ref().ok_or(Error::NothingToBoot)?;
        let memory = vm.memory();
        let entry = platform::load(&boot.sources(), memory)?;
        board.write_tables(shape, memory).map_err(Error::Tables)?;
        Ok(entry)
    }

    /// Gives processors what they start with.
    pub(crate) fn set_up(&self, processors: &[Vcpu], entry: &Entry) -> Result<(), Error> {
        let msrs = platform::boot_msrs();
        for (index, processor) in (0..).zip(processors) {
            for refused in processor.set_up(&self.cpuid.of(index), &msrs)? {
                if index == 0 {
                    // Nothing that a guest needs is refused by hardware KVM.
                    warn!("this KVM refuses to set MSR {refused:#x}; the guest does without it");
                } else {
                    debug!("KVM refuses to set MSR {refused:#x} of processor {index}");
                }
            }
        }
        if let Some(first) = processors.first() {
            first.set_registers(&entry.registers(), |special| entry.set_special_registers(special))?;
        }
        Ok(())
    }

    /// Makes the machine as it was before it started, with new processors. All old ones are gone, and
    /// the queues of all devices stopped.
    pub(crate) fn renew(&self) -> Result<(Vec<Vcpu>, Entry), Error> {
        self.board.reset();
        self.vm.renew()?;
        memory::clear(self.vm.memory()).map_err(Error::host("clear the guest's memory"))?;
        let entry = self.load()?;
        Ok((create_processors(&self.vm, &self.shape)?, entry))
    }
}

/// New processors for `vm`, as many as `shape` says.
pub(crate) fn create_processors(vm: &Vm, shape: &Shape) -> Result<Vec<Vcpu>, KvmError> {
    let topology = shape.topology;
    (0..topology.cpus()).map(|index| vm.create_processor(index, topology.apic_id(index))).collect()
}
