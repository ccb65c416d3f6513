//! One processor: how it is set up, and why it stopped.

#![expect(unsafe_code, reason = "reads the page KVM shares with a processor; has a signal handler")]

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{
    CpuId, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_IN,
    KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_UNKNOWN, KVM_SYSTEM_EVENT_CRASH,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs,
    kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use parador_virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::kvm::KvmError;

/// A processor. It may move between threads; it runs on one.
pub(crate) struct Vcpu {
    index: u32,
    fd: VcpuFd,
    /// See [`Vcpu::may_try_again`].
    given_up: Cell<u64>,
}

/// Why a processor stopped. What was read or written is in [`Vcpu::data`].
#[derive(Debug)]
pub(crate) enum Exit {
    /// It reads a port: `data` is to be filled, `size` bytes at a time.
    PortRead { port: u16, size: usize },
    /// It has written `data` to a port, `size` bytes at a time.
    PortWrite { port: u16, size: usize },
    /// It reads what is not memory: `data` is to be filled.
    MemoryRead { address: u64 },
    /// It has written `data` to what is not memory.
    MemoryWrite { address: u64 },
    /// Somebody wants its attention.
    Interrupted,
    /// A fault in the handling of a fault in the handling of a fault, which resets a machine.
    TripleFault,
    /// The kernel's own word for a reset.
    Reset,
    /// The kernel's own word for power off.
    PowerOff,
    /// The kernel's own word for a guest that has crashed.
    Crashed,
    /// It cannot go on.
    Broken(Fault),
}

/// Why a processor cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the hardware refuses to enter the guest: reason {reason:#x} on host processor {cpu}")]
    Entry { reason: u64, cpu: u32 },
    #[error("KVM internal error {suberror} ({}), data {data:x?}", suberror_name(*suberror))]
    Internal { suberror: u32, data: Vec<u64> },
    #[error("the hardware stopped for a reason KVM does not know: {reason:#x}")]
    Hardware { reason: u64 },
    #[error("unknown KVM exit reason {reason}")]
    Unknown { reason: u32 },
    #[error("KVM cannot run the processor: {0}")]
    Refused(io::Error),
}

impl Fault {
    /// Whether the guest touched memory that is not there, or not for this.
    pub(crate) fn is_of_memory(&self) -> bool {
        matches!(self, Self::Refused(error) if error.raw_os_error() == Some(libc::EFAULT))
    }
}

fn suberror_name(suberror: u32) -> &'static str {
    match suberror {
        1 => "an instruction it cannot emulate",
        2 => "two exceptions at once",
        3 => "an exit while an event was being delivered",
        4 => "an unexpected exit of the hardware",
        _ => "of a new kind",
    }
}

impl Vcpu {
    pub(crate) fn new(index: u32, fd: VcpuFd) -> Self {
        Self { index, fd, given_up: Cell::new(0) }
    }

    /// Its number, from 0.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Frequency of its time-stamp counter in kHz, where the host knows it.
    pub(crate) fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz != 0)
    }

    /// Gives it the leaves of `cpuid`, then `msrs`; says which of these the host refuses.
    pub(crate) fn set_up(
        &self,
        cpuid: &[kvm_cpuid_entry2],
        msrs: &[kvm_msr_entry],
    ) -> Result<Vec<u32>, KvmError> {
        let cpuid = CpuId::from_entries(cpuid).map_err(|error| KvmError::Call {
            doing: "hold so many CPUID leaves",
            source: io::Error::other(format!("{error:?}")),
        })?;
        self.fd.set_cpuid2(&cpuid).map_err(KvmError::call("take CPUID leaves"))?;
        self.set_msrs(msrs)
    }

    /// KVM sets registers in order and stops at the first it refuses: go on behind that.
    fn set_msrs(&self, mut msrs: &[kvm_msr_entry]) -> Result<Vec<u32>, KvmError> {
        let mut refused = Vec::new();
        while !msrs.is_empty() {
            let list = Msrs::from_entries(msrs).map_err(|error| KvmError::Call {
                doing: "hold so many MSRs",
                source: io::Error::other(format!("{error:?}")),
            })?;
            let set = self.fd.set_msrs(&list).map_err(KvmError::call("take MSRs"))?;
            let Some((first, rest)) = msrs.get(set..).and_then(<[_]>::split_first) else { break };
            refused.push(first.index);
            msrs = rest;
        }
        Ok(refused)
    }

    /// Sets the general registers, and the special ones as `change` makes them of those it has.
    pub(crate) fn set_registers(
        &self,
        general: &kvm_regs,
        change: impl FnOnce(&mut kvm_sregs),
    ) -> Result<(), KvmError> {
        let mut special = self.fd.get_sregs().map_err(KvmError::call("show special registers"))?;
        change(&mut special);
        self.fd.set_sregs(&special).map_err(KvmError::call("take special registers"))?;
        self.fd.set_regs(general).map_err(KvmError::call("take registers"))
    }

    /// Whether memory was taken from the guest since this was asked last: what kept the processor from
    /// going on may be gone. `given_up` says how often it was, in all.
    pub(crate) fn may_try_again(&self, given_up: u64) -> bool {
        self.given_up.replace(given_up) != given_up
    }

    /// Tells the guest's clock that time has passed while it did not run. A guest without such a
    /// clock needs no telling.
    pub(crate) fn was_paused(&self) {
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Lets [`kick`] reach the processor on the calling thread, where it is going to run.
    pub(crate) fn settle(&mut self) {
        let flag = &raw mut self.fd.get_kvm_run().immediate_exit;
        IMMEDIATE_EXIT.set(flag.cast());
    }

    /// Undoes [`Vcpu::settle`]; the processor may be dropped then.
    pub(crate) fn unsettle(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null());
    }

    /// Runs until there is something to do for it.
    pub(crate) fn run(&mut self) -> Exit {
        if let Err(error) = self.fd.run() {
            return match error.errno() {
                libc::EINTR | libc::EAGAIN => {
                    // Whoever looks at the gate after this has seen the kick.
                    self.fd.set_kvm_immediate_exit(0);
                    Exit::Interrupted
                }
                _ => Exit::Broken(Fault::Refused(error.into())),
            };
        }
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason, which the kernel has just set, says which part of the union counts.
        unsafe {
            match run.exit_reason {
                KVM_EXIT_IO => {
                    let io = run.__bindgen_anon_1.io;
                    let size = usize::from(io.size).max(1);
                    if u32::from(io.direction) == KVM_EXIT_IO_IN {
                        Exit::PortRead { port: io.port, size }
                    } else {
                        Exit::PortWrite { port: io.port, size }
                    }
                }
                KVM_EXIT_MMIO => {
                    let mmio = run.__bindgen_anon_1.mmio;
                    let address = mmio.phys_addr;
                    if mmio.is_write == 0 {
                        Exit::MemoryRead { address }
                    } else {
                        Exit::MemoryWrite { address }
                    }
                }
                KVM_EXIT_INTR => Exit::Interrupted,
                KVM_EXIT_SHUTDOWN => Exit::TripleFault,
                KVM_EXIT_SYSTEM_EVENT => match run.__bindgen_anon_1.system_event.type_ {
                    KVM_SYSTEM_EVENT_SHUTDOWN => Exit::PowerOff,
                    KVM_SYSTEM_EVENT_RESET => Exit::Reset,
                    KVM_SYSTEM_EVENT_CRASH => Exit::Crashed,
                    _ => Exit::Broken(Fault::Unknown { reason: run.exit_reason }),
                },
                KVM_EXIT_FAIL_ENTRY => {
                    let entry = run.__bindgen_anon_1.fail_entry;
                    Exit::Broken(Fault::Entry { reason: entry.hardware_entry_failure_reason, cpu: entry.cpu })
                }
                KVM_EXIT_INTERNAL_ERROR => {
                    let internal = run.__bindgen_anon_1.internal;
                    let count = (internal.ndata as usize).min(internal.data.len());
                    let data = internal.data[..count].to_vec();
                    Exit::Broken(Fault::Internal { suberror: internal.suberror, data })
                }
                KVM_EXIT_UNKNOWN => {
                    Exit::Broken(Fault::Hardware { reason: run.__bindgen_anon_1.hw.hardware_exit_reason })
                }
                reason => Exit::Broken(Fault::Unknown { reason }),
            }
        }
    }

    /// What the last exit read or wrote; empty for an exit that did neither. A read takes effect when
    /// the processor runs on.
    pub(crate) fn data(&mut self) -> &mut [u8] {
        let run: *mut kvm_bindings::kvm_run = self.fd.get_kvm_run();
        // SAFETY: the exit reason says which part of the union counts. The kernel puts the data of
        // ports `data_offset` bytes into the shared pages, which are mapped as long as the processor
        // lives, and does not touch it before the next run, which needs the borrow to have ended.
        unsafe {
            match (*run).exit_reason {
                KVM_EXIT_IO => {
                    let io = (*run).__bindgen_anon_1.io;
                    let len = usize::from(io.size) * io.count as usize;
                    std::slice::from_raw_parts_mut(run.cast::<u8>().add(io.data_offset as usize), len)
                }
                KVM_EXIT_MMIO => {
                    let mmio = &mut (*run).__bindgen_anon_1.mmio;
                    let len = (mmio.len as usize).min(mmio.data.len());
                    &mut mmio.data[..len]
                }
                _ => &mut [],
            }
        }
    }

    /// All there is to know about a processor that cannot go on, over several lines.
    pub(crate) fn describe(&self, fault: &Fault, memory: &GuestMemory) -> String {
        let mut text = format!("processor {}: {fault}", self.index);
        if let Ok(kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rsp,
            rbp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip,
            rflags,
        }) = self.fd.get_regs()
        {
            let _ = write!(
                text,
                "\n  rip {rip:016x} rflags {rflags:08x}\
                 \n  rax {rax:016x} rbx {rbx:016x} rcx {rcx:016x} rdx {rdx:016x}\
                 \n  rsi {rsi:016x} rdi {rdi:016x} rsp {rsp:016x} rbp {rbp:016x}\
                 \n  r8  {r8:016x} r9  {r9:016x} r10 {r10:016x} r11 {r11:016x}\
                 \n  r12 {r12:016x} r13 {r13:016x} r14 {r14:016x} r15 {r15:016x}"
            );
            self.describe_code(rip, memory, &mut text);
        }
        text
    }

    fn describe_code(&self, rip: u64, memory: &GuestMemory, text: &mut String) {
        let Ok(special) = self.fd.get_sregs() else { return };
        let kvm_sregs { cs, ss, ds, gdt, idt, cr0, cr2, cr3, cr4, efer, .. } = special;
        let _ = write!(
            text,
            "\n  cr0 {cr0:08x} cr2 {cr2:016x} cr3 {cr3:016x} cr4 {cr4:08x} efer {efer:08x}\
             \n  cs {:04x} base {:x} ss {:04x} base {:x} ds {:04x} base {:x} gdt {:x}+{:x} idt {:x}+{:x}",
            cs.selector,
            cs.base,
            ss.selector,
            ss.base,
            ds.selector,
            ds.base,
            gdt.base,
            gdt.limit,
            idt.base,
            idt.limit
        );
        let long_mode = cs.l != 0;
        let linear = if long_mode { rip } else { cs.base.wrapping_add(rip) & 0xffff_ffff };
        let mut code = [0; 16];
        let read = self
            .fd
            .translate_gva(linear)
            .ok()
            .filter(|found| found.valid != 0)
            .and_then(|found| memory.read(&mut code, GuestAddress(found.physical_address)).ok());
        match read {
            Some(count) => {
                let _ = write!(text, "\n  code at rip {:02x?}", &code[..count]);
            }
            None => text.push_str("\n  rip is not in memory"),
        }
    }
}

thread_local! {
    /// The flag, in the page shared with KVM, that makes the processor of this thread leave the guest.
    static IMMEDIATE_EXIT: Cell<*const AtomicU8> = const { Cell::new(ptr::null()) };
}

/// The signal of [`kick`].
pub(crate) fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Makes [`kick_signal`] work in this process. Every processor shares it.
pub(crate) fn enable_kicks() -> io::Result<()> {
    register_signal_handler(kick_signal(), on_kick).map_err(Into::into)
}

/// The signal alone ends a run in progress; the flag ends one that is about to begin.
extern "C" fn on_kick(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `settle` made it point into the shared page of this thread's processor, which
        // lives until `unsettle`. A byte of it is written here and by the same thread only.
        unsafe { (*flag).store(1, Ordering::Relaxed) };
    }
}
