//! Which processors of the host a thread runs on.

#![expect(unsafe_code, reason = "asks the kernel about this thread")]

use std::io;

/// Calls `start` while this thread may run on `cpus` only: threads begin where their maker may run.
///
/// # Errors
/// What `start` says, or the kernel: none of `cpus` is there for this process.
pub(crate) fn within<T>(cpus: &[u32], start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = current()?;
    allow(&set_of(cpus)?)?;
    let started = start();
    allow(&before)?;
    started
}

fn set_of(cpus: &[u32]) -> io::Result<libc::cpu_set_t> {
    // SAFETY: all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        let cpu = usize::try_from(*cpu).map_err(io::Error::other)?;
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the set has a bit for it.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    Ok(set)
}

fn current() -> io::Result<libc::cpu_set_t> {
    // SAFETY: the call fills the set, which is as long as it is told; all zeroes is a set.
    let (result, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set), set)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(set) }
}

fn allow(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the call reads the set, which is as long as it is told.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(set: &libc::cpu_set_t) -> Vec<u32> {
        // SAFETY: the numbers are below the size of the set.
        (0..1024).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu as usize, set) }).collect()
    }

    #[test]
    fn a_thread_begins_where_it_may_run_and_its_maker_goes_on_as_before() {
        let before = cpus(&current().unwrap());
        let one = before[before.len() - 1];
        let start = || std::thread::Builder::new().spawn(|| cpus(&current().unwrap()));
        let inside = within(&[one], start).unwrap().join().unwrap();
        assert_eq!(inside, [one]);
        assert_eq!(cpus(&current().unwrap()), before);
    }

    #[test]
    fn processors_that_are_not_there_are_refused() {
        assert!(within(&[1023], || Ok(())).is_err());
        assert!(within(&[4095], || Ok(())).is_err());
    }
}
