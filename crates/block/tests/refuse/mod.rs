//! A host that refuses system calls.
#![expect(unsafe_code, reason = "hands the kernel a filter")]

use std::io;

/// Makes the system call `number` fail with `error` on this thread and those it starts.
pub(crate) fn refuse(number: libc::c_long, error: i32) -> io::Result<()> {
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(number).unwrap();
    let mut program = [
        statement(0x20, 0, 0, 0),      // load the system call's number
        statement(0x15, 0, 1, number), // is it that one?
        statement(0x06, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        statement(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the call.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
