//! A machine being put together, and what it takes to put it together again when the guest reboots.

use std::io;
use std::sync::Arc;

use parador_virtio::VirtioDevice;
use tracing::{debug, warn};
use vm_memory::GuestMemoryError;

use crate::board::Board;
use crate::kvm::{KvmError, Vm};
use crate::memory::{self, MemoryError};
use crate::pci::{AttachError, PciAddress};
use crate::platform::x86_64::{self as platform, BootError, Cpuid, CpuidSetup, Entry};
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

/// All of a machine but its processors. It outlives them: a guest that reboots gets new ones.
pub(crate) struct Core {
    pub(crate) shape: Shape,
    pub(crate) vm: Arc<Vm>,
    pub(crate) board: Board,
    cpuid: Cpuid,
    boot: Option<Boot>,
}

/// Why a machine cannot be put together, or does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM does not do it.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// There is no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// What it is to boot cannot be.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Its tables do not fit into its memory.
    #[error("the guest's memory has no room for its ACPI tables")]
    Tables(#[source] GuestMemoryError),
    /// A device cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// There is nothing to boot.
    #[error("the machine has nothing to boot: it was given no kernel")]
    NothingToBoot,
    /// A processor cannot run where [`Shape::affinity`] says.
    #[error(
        "processor {index} cannot run there: the host, or what this process may use of it, has no such processor"
    )]
    Affinity {
        /// Which of the guest's processors.
        index: u32,
        /// What the host said.
        source: io::Error,
    },
    /// It has ended.
    #[error("the machine has ended")]
    Ended,
    /// The host refuses something else.
    #[error("cannot {doing}")]
    Host {
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kvm(error) => error.hint(),
            Self::Memory(error) => error.hint(),
            Self::Boot(_)
            | Self::Tables(_)
            | Self::Attach(_)
            | Self::NothingToBoot
            | Self::Affinity { .. }
            | Self::Ended
            | Self::Host { .. } => None,
        }
    }

    pub(crate) fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
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

impl Core {
    /// Writes what the guest starts with into memory that is all zero.
    fn load(&self) -> Result<Entry, Error> {
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

fn create_processors(vm: &Vm, shape: &Shape) -> Result<Vec<Vcpu>, KvmError> {
    let topology = shape.topology;
    (0..topology.cpus()).map(|index| vm.create_processor(index, topology.apic_id(index))).collect()
}
