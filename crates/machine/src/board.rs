//! What is on the board besides processors: the buses, PCI, and the few devices every machine has.

use std::sync::{Arc, Mutex, PoisonError};

use parador_virtio::GuestMemory;
use vm_memory::{GuestMemoryBackend, GuestMemoryError};

use crate::bus::{Bus, BusDevice, BusError};
use crate::error::Error;
use crate::kvm::Vm;
use crate::legacy::{self, KeyboardReset, Power, PowerButton, Pvpanic, Rtc};
use crate::pci::{PciRoot, Windows};
use crate::platform::x86_64::acpi::{self, AcpiSetup};
use crate::platform::x86_64::layout::{
    COM1_GSI, COM1_PORT, COM1_PORTS, ECAM_SIZE, ECAM_START, GED_GSI, I8042_PORT, MMIO32_END, MMIO32_START,
    PCI_CONFIG_ADDRESS_PORT, POWER_PORT, POWER_PORTS, PVPANIC_PORT, RTC_PORT, RTC_PORTS, mmio64_window,
};
use crate::platform::x86_64::reset;
use crate::serial::SerialThread;
use crate::shape::{SerialLine, Shape};

/// The address spaces that processors reach.
pub(crate) struct Buses {
    /// I/O ports.
    pub(crate) ports: Bus,
    /// Guest-physical addresses that are not memory.
    pub(crate) memory: Bus,
}

/// Buses, and what is on them.
pub(crate) struct Board {
    pub(crate) buses: Arc<Buses>,
    pub(crate) pci: PciRoot,
    pub(crate) power_button: PowerButton,
    pub(crate) serial: Option<SerialThread>,
    windows: Windows,
    /// Devices to be reset with the machine; those with nothing to reset are on the buses only.
    power: Arc<Mutex<Power>>,
}

impl Board {
    /// A board for `vm`, on a processor that addresses `physical_bits` bits.
    ///
    /// # Errors
    /// The host has no descriptors left, or KVM does not connect an interrupt line.
    pub(crate) fn new(vm: &Arc<Vm>, serial: Option<SerialLine>, physical_bits: u8) -> Result<Self, Error> {
        let memory = vm.memory();
        let ram_end = memory.last_addr().0 + 1;
        let windows = Windows { low: MMIO32_START..MMIO32_END, high: mmio64_window(ram_end, physical_bits) };
        let pci = PciRoot::new(Arc::clone(vm) as _, Arc::clone(memory), windows.clone())?;
        let power = Power::new(vm.interrupt_line(GED_GSI)?);
        let power_button = power.button();
        let power = Arc::new(Mutex::new(power));
        let buses = Buses { ports: Bus::new("ports"), memory: Bus::new("memory") };
        let serial = match serial {
            Some(line) => Some(add_serial(vm, &buses, line)?),
            None => None,
        };
        let board = Self { buses: Arc::new(buses), pci, power_button, serial, windows, power };
        board.place().expect("the layout's ranges do not overlap");
        Ok(board)
    }

    /// Puts everything where [`crate::platform`] says it is.
    fn place(&self) -> Result<(), BusError> {
        let Buses { ports, memory } = &*self.buses;
        ports.insert(u64::from(POWER_PORT), u64::from(POWER_PORTS), Arc::clone(&self.power) as _)?;
        ports.insert(u64::from(PVPANIC_PORT), 1, shared(Pvpanic))?;
        ports.insert(u64::from(I8042_PORT), 1, shared(KeyboardReset))?;
        ports.insert(u64::from(RTC_PORT), u64::from(RTC_PORTS), shared(Rtc::new()))?;
        ports.insert(u64::from(PCI_CONFIG_ADDRESS_PORT), 8, shared(self.pci.config_ports()))?;
        memory.insert(ECAM_START, ECAM_SIZE, shared(self.pci.ecam()))?;
        for window in [Some(&self.windows.low), self.windows.high.as_ref()].into_iter().flatten() {
            let device = shared(self.pci.window(window.start));
            memory.insert(window.start, window.end - window.start, device)?;
        }
        Ok(())
    }

    /// Writes the ACPI tables that describe the board, and the processors and nodes of `shape`.
    pub(crate) fn write_tables(&self, shape: &Shape, memory: &GuestMemory) -> Result<(), GuestMemoryError> {
        let setup = AcpiSetup {
            topology: shape.topology,
            mmio64: self.windows.high.clone(),
            serial: self.serial.is_some(),
            rtc: true,
            pvpanic: true,
            nodes: &shape.numa(),
        };
        acpi::write(&setup, memory)?;
        reset::write_vector(memory)
    }

    /// Brings everything back to power-on. The queues of all devices have been stopped.
    pub(crate) fn reset(&self) {
        // The serial port keeps what it has not delivered; the clock runs on, as on a battery.
        let Self { buses: _, pci, power_button: _, serial: _, windows: _, power } = self;
        pci.reset();
        power.lock().unwrap_or_else(PoisonError::into_inner).reset();
    }
}

fn add_serial(vm: &Vm, buses: &Buses, line: SerialLine) -> Result<SerialThread, Error> {
    let host = || Error::host("connect the serial port");
    let SerialLine { output, input } = line;
    let (device, port) = legacy::Serial::new(vm.interrupt_line(COM1_GSI)?, output).map_err(host())?;
    let device = Arc::new(Mutex::new(device));
    buses
        .ports
        .insert(u64::from(COM1_PORT), u64::from(COM1_PORTS), Arc::clone(&device) as _)
        .expect("the first device of all");
    SerialThread::new(port, input).map_err(host())
}

fn shared(device: impl BusDevice + 'static) -> crate::bus::SharedDevice {
    Arc::new(Mutex::new(device))
}
