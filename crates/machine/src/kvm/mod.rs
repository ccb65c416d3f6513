//! KVM: the one place, with [`crate::vcpu`], where its calls are made.

#![expect(unsafe_code, reason = "gives guest memory and descriptors to KVM")]

mod closing;
mod routes;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{Builder, JoinHandle};

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use parador_virtio::GuestMemory;
use tracing::warn;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use self::closing::Closing;
use self::routes::{Route, Routes};
use crate::pci::{Host, HostMemory, MsiMessage};
use crate::platform::x86_64::layout::{IDENTITY_MAP, IOAPIC_PINS, TSS};
use crate::vcpu::Vcpu;

/// Why KVM cannot run the machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No `/dev/kvm`.
    #[error("there is no /dev/kvm")]
    Absent,
    /// `/dev/kvm` is there, but not for this user.
    #[error("/dev/kvm may not be opened by this user")]
    NoPermission,
    /// `/dev/kvm` does not open for another reason.
    #[error("/dev/kvm does not open")]
    Open(#[source] io::Error),
    /// The kernel speaks another version of the interface.
    #[error("/dev/kvm has interface version {found}, not {KVM_API_VERSION}")]
    Version {
        /// What it speaks.
        found: i32,
    },
    /// The kernel lacks something every kernel since 4.20 has.
    #[error("KVM lacks {capability}")]
    Lacks {
        /// Name of the capability.
        capability: &'static str,
    },
    /// More processors than the kernel runs.
    #[error("{asked} processors are more than the {limit} that KVM runs here")]
    TooManyProcessors {
        /// How many were asked for.
        asked: u32,
        /// How many there can be.
        limit: u32,
    },
    /// A call failed.
    #[error("KVM does not {doing}")]
    Call {
        /// What was asked of it.
        doing: &'static str,
        /// What it answered.
        #[source]
        source: io::Error,
    },
}

impl KvmError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Absent if hardware_virtualization() => {
                "load the module: modprobe kvm_intel, or kvm_amd; in a container, pass the device in"
            }
            Self::Absent => {
                "this processor shows no virtualization extensions (vmx, svm): switch them on in the \
                 firmware, or, in a virtual machine, ask for nested virtualization"
            }
            Self::NoPermission => {
                "join the group that owns it (usermod -aG kvm USER), then log in again: a session keeps \
                 the groups it began with"
            }
            Self::TooManyProcessors { .. } => "give the guest fewer processors",
            Self::Version { .. } | Self::Lacks { .. } => "this needs a Linux kernel of version 5.10 or later",
            Self::Open(_) | Self::Call { .. } => return None,
        };
        Some(hint.to_owned())
    }

    pub(crate) fn call(doing: &'static str) -> impl FnOnce(errno::Error) -> Self {
        move |error| Self::Call { doing, source: error.into() }
    }
}

/// Whether this processor has virtualization extensions. Without them a `/dev/kvm` that opens is a
/// software one: it runs small programs, but no ordinary kernel gets through its boot.
#[must_use]
pub fn hardware_virtualization() -> bool {
    // The first page is enough: it holds the first processor's flags. All of the file is slow to
    // make on a large host.
    let mut page = Vec::new();
    let read = File::open("/proc/cpuinfo").and_then(|file| file.take(4096).read_to_end(&mut page));
    let text = String::from_utf8_lossy(&page);
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    // What cannot be read is not held against the host.
    read.is_err() || flags.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}

/// A virtual machine in the kernel: memory, interrupt controllers, and who is connected to them.
///
/// Every method may be called from any thread. Lock order: `routes`, `lines` or `shown`, then `fd`; each is
/// held for a system call and nothing else.
pub struct Vm {
    kvm: Arc<Kvm>,
    cpuid: Mutex<Option<JoinHandle<Result<CpuId, KvmError>>>>,
    memory: Arc<GuestMemory>,
    routes: Mutex<Routes>,
    lines: Mutex<Vec<(u32, EventFd)>>,
    /// Memory beside the guest's own, in the slots that follow it, and where the guest sees it.
    shown: Mutex<Vec<Option<Shown>>>,
    /// Replaced when the guest reboots; none while it is between two lives.
    fd: RwLock<Option<VmFd>>,
    closing: OnceLock<Closing>,
}

/// Memory that the guest sees, and at which address.
type Shown = (u64, Arc<HostMemory>);

impl Vm {
    /// Takes an open `/dev/kvm`, or opens it, and makes a machine with `memory` and in-kernel interrupt
    /// controllers, but no processors yet.
    ///
    /// # Errors
    /// KVM is not there, is another one than we know, or refuses; [`KvmError::hint`] says what to do.
    pub fn new(memory: Arc<GuestMemory>, opened: Option<OwnedFd>) -> Result<Self, KvmError> {
        let device = opened.map_or_else(|| open(DEVICE), Ok)?;
        let kvm = Arc::new(check(device)?);
        // In a virtual machine this takes longer than all the rest: each leaf is an exit to its host.
        let asked = Arc::clone(&kvm);
        let ask = Builder::new().name("cpuid".to_owned()).stack_size(CPUID_STACK_BYTES);
        let cpuid = ask.spawn(move || supported_cpuid(&asked)).ok();
        let limit = usize::try_from(kvm.check_extension_int(Cap::IrqRouting)).unwrap_or(0);
        let messages = limit.saturating_sub(IOAPIC_PINS as usize);
        let fd = create(&kvm, &memory)?;
        Ok(Self {
            kvm,
            cpuid: Mutex::new(cpuid),
            memory,
            routes: Mutex::new(Routes::new(messages)),
            lines: Mutex::new(Vec::new()),
            shown: Mutex::new(Vec::new()),
            fd: RwLock::new(Some(fd)),
            closing: OnceLock::new(),
        })
    }

    /// Makes the machine anew, as after power-on, over the same memory. Interrupt lines stay
    /// connected; message routes stay allocated and go nowhere; ioeventfds and message irqfds are
    /// gone. All processors of the old one have been dropped.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn renew(&self) -> Result<(), KvmError> {
        lock(&self.routes).forget();
        lock(&self.shown).clear(); // with the old machine
        let lines = lock(&self.lines);
        let mut slot = self.fd.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None; // Closed before the next is made, so that there are never two.
        let fd = create(&self.kvm, &self.memory)?;
        for (gsi, event) in lines.iter() {
            fd.register_irqfd(event, *gsi).map_err(KvmError::call("connect an interrupt line"))?;
        }
        *slot = Some(fd);
        Ok(())
    }

    /// Has the kernel close this machine, which has ended, when the process has: nobody waits for it then.
    ///
    /// # Errors
    /// The host has no io_uring for this process, which waits as it ends.
    pub(crate) fn close_after_process(&self) -> io::Result<()> {
        let slot = self.fd.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = slot.as_ref() {
            let _ = self.closing.set(Closing::of(fd)?);
        }
        Ok(())
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// How many processors there can be.
    #[must_use]
    pub fn processor_limit(&self) -> u32 {
        u32::try_from(self.kvm.get_max_vcpus()).unwrap_or(u32::MAX)
    }

    /// The CPUID leaves KVM can show a guest on this host.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        let asked = lock(&self.cpuid).take();
        asked.and_then(|thread| thread.join().ok()).unwrap_or_else(|| supported_cpuid(&self.kvm))
    }

    /// An event that interrupts the guest at pin `gsi` of the I/O APIC (and of the PICs below 16),
    /// as an edge. It stays connected through reboots.
    ///
    /// # Errors
    /// The host has no descriptor to spare, or KVM refuses.
    pub fn interrupt_line(&self, gsi: u32) -> Result<EventFd, KvmError> {
        let doing = "connect an interrupt line";
        let call = |source| KvmError::Call { doing, source };
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(call)?;
        let ours = event.try_clone().map_err(call)?;
        self.with(|fd| fd.register_irqfd(&event, gsi)).map_err(call)?;
        lock(&self.lines).push((gsi, event));
        Ok(ours)
    }

    /// Whether the guest's local APICs have a timer that counts as the time-stamp counter does.
    #[must_use]
    pub fn has_tsc_deadline(&self) -> bool {
        self.kvm.check_extension(Cap::TscDeadlineTimer)
    }

    /// Makes processor `index`, which has APIC identifier `id`, in the state KVM gives it.
    ///
    /// # Errors
    /// KVM refuses.
    pub(crate) fn create_processor(&self, index: u32, id: u32) -> Result<Vcpu, KvmError> {
        let created = self.with(|fd| fd.create_vcpu(u64::from(id)));
        Ok(Vcpu::new(index, created.map_err(|source| KvmError::Call { doing: "make a processor", source })?))
    }

    /// Has the slot of entry `index` of `shown` be `memory` at `address`, or none at all.
    fn set_slot(&self, index: usize, address: u64, memory: Option<&Arc<HostMemory>>) -> io::Result<()> {
        let slot = self.memory.num_regions() + index;
        let slot = kvm_userspace_memory_region {
            slot: u32::try_from(slot).map_err(io::Error::other)?,
            guest_phys_addr: address,
            memory_size: memory.map_or(0, |memory| memory.len()),
            userspace_addr: memory.map_or(0, |memory| memory.as_ptr() as u64),
            flags: 0,
        };
        // SAFETY: whoever calls keeps the memory in `shown` until the slot is gone, and the guest's own
        // memory, with which it could overlap, is outside all windows for BARs; KVM refuses if not.
        self.with(|fd| unsafe { fd.set_user_memory_region(slot) })
    }

    fn with<T>(&self, call: impl FnOnce(&VmFd) -> errno::Result<T>) -> io::Result<T> {
        let slot: RwLockReadGuard<'_, Option<VmFd>> = self.fd.read().unwrap_or_else(PoisonError::into_inner);
        let fd = slot.as_ref().ok_or_else(|| io::Error::other("the machine is being reset"))?;
        call(fd).map_err(Into::into)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const DEVICE: &str = "/dev/kvm";

/// Opens `/dev/kvm`, for a machine that is made by another process.
///
/// # Errors
/// It is not there, or does not open for this user; [`KvmError::hint`] says what to do.
pub fn open_kvm() -> Result<OwnedFd, KvmError> {
    open(DEVICE)
}

fn open(path: &str) -> Result<OwnedFd, KvmError> {
    let file = File::options().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => KvmError::Absent,
        Some(libc::EACCES | libc::EPERM) => KvmError::NoPermission,
        _ => KvmError::Open(error),
    })
}

/// A KVM which can do what we need.
fn check(device: OwnedFd) -> Result<Kvm, KvmError> {
    // SAFETY: the descriptor is ours to give away; one that is not KVM's fails the first call.
    let kvm = unsafe { Kvm::from_raw_fd(device.into_raw_fd()) };
    let found = kvm.get_api_version();
    if u32::try_from(found) != Ok(KVM_API_VERSION) {
        return Err(KvmError::Version { found });
    }
    for (cap, capability) in [
        (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
        (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
        (Cap::Irqfd, "KVM_CAP_IRQFD"),
        (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
        (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    ] {
        if !kvm.check_extension(cap) {
            return Err(KvmError::Lacks { capability });
        }
    }
    Ok(kvm)
}

const CPUID_STACK_BYTES: usize = 64 << 10;

fn supported_cpuid(kvm: &Kvm) -> Result<CpuId, KvmError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(KvmError::call("say which CPUID leaves it supports"))
}

/// The order matters: with the interrupt controllers made first, each memory slot costs the host a
/// grace period of 7 ms.
fn create(kvm: &Kvm, memory: &GuestMemory) -> Result<VmFd, KvmError> {
    let fd = kvm.create_vm().map_err(KvmError::call("make a machine"))?;
    fd.set_identity_map_address(IDENTITY_MAP).map_err(KvmError::call("take the identity map's address"))?;
    fd.set_tss_address(TSS as usize).map_err(KvmError::call("take the task state segment's address"))?;
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the region is a mapping that lives as long as `memory`, which `Vm` keeps for longer
        // than the machine, and the regions of one guest memory do not overlap.
        unsafe { fd.set_user_memory_region(slot) }.map_err(KvmError::call("take guest memory"))?;
    }
    fd.create_irq_chip().map_err(KvmError::call("make interrupt controllers"))?;
    // No 8254 timer: a kernel that finds ACPI's reduced hardware or KVM's clock does not look for one,
    // and it would cost a kernel thread at the start and a grace period at the end.
    Ok(fd)
}

impl Host for Vm {
    fn set_ioeventfd(&self, address: u64, kick: &EventFd, on: bool) -> io::Result<()> {
        let at = IoEventAddress::Mmio(address);
        self.with(|fd| {
            if on {
                fd.register_ioevent(kick, &at, NoDatamatch)
            } else {
                fd.unregister_ioevent(kick, &at, NoDatamatch)
            }
        })
    }

    fn allocate_gsi(&self) -> io::Result<u32> {
        lock(&self.routes).allocate()
    }

    fn release_gsi(&self, gsi: u32) {
        lock(&self.routes).release(gsi);
    }

    fn route_msi(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        let mut routes = lock(&self.routes);
        let route = routes.find(gsi)?;
        let wanted = message.map_or(Route::Nowhere, Route::To);
        if *route == wanted {
            return Ok(());
        }
        *route = wanted;
        let table = routes.table()?;
        self.with(|fd| fd.set_gsi_routing(&table))
    }

    fn set_irqfd(&self, gsi: u32, fd: &EventFd, on: bool) -> io::Result<()> {
        self.with(|vm| if on { vm.register_irqfd(fd, gsi) } else { vm.unregister_irqfd(fd, gsi) })
    }

    fn show_memory(&self, address: u64, memory: &Arc<HostMemory>) -> io::Result<()> {
        let mut shown = lock(&self.shown);
        let free = shown.iter().position(Option::is_none).unwrap_or(shown.len());
        self.set_slot(free, address, Some(memory))?;
        let entry = Some((address, Arc::clone(memory)));
        match shown.get_mut(free) {
            Some(slot) => *slot = entry,
            None => shown.push(entry),
        }
        Ok(())
    }

    fn hide_memory(&self, address: u64) {
        let mut shown = lock(&self.shown);
        let is_there = |slot: &Option<Shown>| matches!(slot, Some((at, _)) if *at == address);
        let Some(index) = shown.iter().position(is_there) else { return };
        match self.set_slot(index, address, None) {
            Ok(()) => shown[index] = None,
            // The guest may see it still, so it stays ours.
            Err(error) => warn!(address, %error, "cannot take memory from a guest"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryShape;

    #[test]
    fn what_is_not_kvm_is_told_apart_and_comes_with_advice() {
        let absent = open("/dev/no-such-device").unwrap_err();
        assert!(matches!(absent, KvmError::Absent), "{absent}");
        let other = open("/dev/null").and_then(check).err().unwrap();
        assert!(matches!(other, KvmError::Version { found: -1 }), "{other}");
        for error in
            [absent, KvmError::NoPermission, other, KvmError::TooManyProcessors { asked: 9, limit: 8 }]
        {
            assert!(error.hint().is_some(), "{error}");
        }
        assert!(KvmError::NoPermission.hint().unwrap().contains("log in again"));
    }

    #[test]
    fn a_renewed_machine_keeps_its_lines_and_forgets_where_messages_went() {
        let Ok(vm) = Vm::new(MemoryShape::new(2 << 20).build().unwrap(), None) else {
            eprintln!("skipped: there is no KVM");
            return;
        };
        let line = vm.interrupt_line(5).unwrap();
        let gsi = vm.allocate_gsi().unwrap();
        let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
        vm.route_msi(gsi, Some(message)).unwrap();
        vm.set_irqfd(gsi, &event, true).unwrap();
        vm.set_ioeventfd(0xc000_0000, &event, true).unwrap();
        assert!(vm.set_ioeventfd(0xc000_0000, &event, true).is_err(), "there is one already");
        vm.renew().unwrap();
        vm.set_ioeventfd(0xc000_0000, &event, true).unwrap();
        vm.route_msi(gsi, Some(message)).unwrap();
        vm.set_irqfd(gsi, &event, true).unwrap();
        let doubled = vm.with(|fd| fd.register_irqfd(&line, 5));
        assert!(doubled.is_err(), "the line is connected: KVM takes an event once");
    }
}
