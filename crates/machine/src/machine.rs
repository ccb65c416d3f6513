//! A machine being put together.

use std::sync::Arc;

use parador_virtio::VirtioDevice;

use crate::board::Board;
use crate::error::Error;
use crate::kvm::{KvmError, Vm};
use crate::parts::{Core, create_processors};
use crate::pci::PciAddress;
use crate::platform::x86_64::{Cpuid, CpuidSetup, Entry};
use crate::running::RunningMachine;
use crate::shape::{Boot, Shape};
use crate::vcpu::Vcpu;

/// A machine being put together: [`Machine::new`], then [`Machine::attach`] for each device, then
/// [`Machine::load`], then [`Machine::start`].
pub struct Machine {
    core: Core,
    processors: Vec<Vcpu>,
    entry: Option<Entry>,
}

impl Machine {
    /// Takes memory from the host and makes a machine without devices.
    ///
    /// # Errors
    /// There is no such memory, KVM does not make the machine, or it has too many processors for it.
    pub fn new(mut shape: Shape) -> Result<Self, Error> {
        let memory = shape.memory.build()?;
        let vm = Arc::new(Vm::new(memory, shape.kvm.take())?);
        let (asked, limit) = (shape.topology.cpus(), vm.processor_limit());
        if asked > limit {
            return Err(KvmError::TooManyProcessors { asked, limit }.into());
        }
        // Processors first: it is cheap to make one while nothing is connected to the machine.
        let processors = create_processors(&vm, &shape)?;
        let cpuid = Cpuid::new(
            vm.supported_cpuid()?.as_slice(),
            &CpuidSetup {
                topology: shape.topology,
                tsc_khz: processors.first().and_then(Vcpu::tsc_khz),
                tsc_deadline: vm.has_tsc_deadline(),
                pmu: false,
            },
        );
        let board = Board::new(&vm, shape.serial.take(), cpuid.physical_bits())?;
        let core = Core { shape, vm, board, cpuid, boot: None };
        Ok(Self { core, processors, entry: None })
    }

    /// Connects `device` to the PCI bus, at `address` or in the first slot that is free, and says
    /// where.
    ///
    /// # Errors
    /// The address is taken or impossible, or the device does not fit.
    pub fn attach(
        &mut self,
        device: Box<dyn VirtioDevice>,
        address: Option<PciAddress>,
    ) -> Result<PciAddress, Error> {
        Ok(self.core.board.pci.attach_virtio(device, address)?)
    }

    /// Loads what the guest starts with into its memory.
    ///
    /// # Errors
    /// It is no kernel, or does not fit; the error names the file.
    pub fn load(&mut self, boot: Boot) -> Result<(), Error> {
        self.core.boot = Some(boot);
        self.entry = Some(self.core.load()?);
        Ok(())
    }

    /// Starts the guest.
    ///
    /// # Errors
    /// Nothing was loaded, or KVM or the host refuses what processors need.
    pub fn start(self) -> Result<RunningMachine, Error> {
        let entry = self.entry.ok_or(Error::NothingToBoot)?;
        RunningMachine::start(self.core, self.processors, entry)
    }
}
