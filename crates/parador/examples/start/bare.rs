//! The least that a guest's first instruction takes: the calls of KVM for a machine like ours, and
//! nothing else.

#![expect(unsafe_code, reason = "the bare calls of KVM")]

use std::fs::File;
use std::io::{Error, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

use kvm_bindings::{kvm_regs, kvm_run, kvm_segment, kvm_sregs, kvm_userspace_memory_region};

const MEMORY: usize = 256 << 20;
/// Where the code lies.
const START: usize = 0x10_0000;
/// mov dx, 0x3f8; mov al, 10; out dx, al
const CODE: [u8; 7] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'\n', 0xee];

// Numbers of requests, as <linux/kvm.h> makes them of direction, size, type and number.
const CREATE_VM: u64 = 0xae01;
const VCPU_MMAP_SIZE: u64 = 0xae04;
const CREATE_VCPU: u64 = 0xae41;
const SET_TSS_ADDR: u64 = 0xae47;
const CREATE_IRQCHIP: u64 = 0xae60;
const RUN: u64 = 0xae80;
const SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const SET_REGS: u64 = 0x4090_ae82;
const GET_SREGS: u64 = 0x8138_ae83;
const SET_SREGS: u64 = 0x4138_ae84;

/// Makes a machine of one processor with interrupt controllers, runs it up to its first exit, and says
/// on standard output that it was there.
pub(crate) fn run() -> Result<()> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let vm = made(call(&kvm, CREATE_VM, 0)?);
    call(&vm, SET_TSS_ADDR, 0xfffb_d000)?;
    let memory = map(MEMORY, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1)?;
    // SAFETY: the mapping is new, and longer than that.
    unsafe { ptr::copy_nonoverlapping(CODE.as_ptr(), memory.add(START), CODE.len()) };
    let slot = kvm_userspace_memory_region {
        memory_size: MEMORY as u64,
        userspace_addr: memory as u64,
        ..Default::default()
    };
    call(&vm, SET_USER_MEMORY_REGION, &raw const slot as u64)?;
    call(&vm, CREATE_IRQCHIP, 0)?;
    let vcpu = made(call(&vm, CREATE_VCPU, 0)?);
    let size = usize::try_from(call(&kvm, VCPU_MMAP_SIZE, 0)?).unwrap_or(0);
    let shared = map(size, libc::MAP_SHARED, vcpu.as_raw_fd())?.cast::<kvm_run>();
    let mut special = kvm_sregs::default();
    call(&vcpu, GET_SREGS, &raw mut special as u64)?;
    let data = kvm_segment { limit: u32::MAX, type_: 3, present: 1, db: 1, s: 1, g: 1, ..Default::default() };
    (special.ds, special.es, special.ss) = (data, data, data);
    special.cs = kvm_segment { selector: 8, type_: 11, ..data };
    special.cr0 = 0x11; // protected mode, without paging
    call(&vcpu, SET_SREGS, &raw const special as u64)?;
    let general = kvm_regs { rip: START as u64, rflags: 2, ..Default::default() };
    call(&vcpu, SET_REGS, &raw const general as u64)?;
    call(&vcpu, RUN, 0)?;
    // SAFETY: the kernel keeps a `kvm_run` there for as long as the processor.
    let reason = unsafe { (*shared).exit_reason };
    if reason != kvm_bindings::KVM_EXIT_IO {
        return Err(Error::other(format!("exit {reason} before the first instruction")));
    }
    std::io::stdout().write_all(b"\n")
}

fn call(file: &File, request: u64, argument: u64) -> Result<i32> {
    // SAFETY: `run` gives each request the argument it takes, which lives during the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// The owner of a descriptor that a request made.
fn made(fd: i32) -> File {
    // SAFETY: it is new, and nobody else's.
    unsafe { File::from_raw_fd(fd) }
}

fn map(size: usize, flags: i32, fd: i32) -> Result<*mut u8> {
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapping =
        unsafe { libc::mmap(ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
    if mapping == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(mapping.cast()) }
}
