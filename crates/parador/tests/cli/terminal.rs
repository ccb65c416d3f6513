//! `parador run` at a terminal: raw while it runs, as it was on every way out.

#![expect(unsafe_code, reason = "pseudo-terminals are system calls")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::Place;
use crate::machine::{kvm, place, read_until, wait};
use crate::payload::Code;

/// A pseudo-terminal: our end, and the one of the process.
pub(crate) struct Terminal {
    pub(crate) ours: File,
    theirs: File,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        // SAFETY: no pointers.
        let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: a descriptor just made.
        let ours = unsafe { File::from_raw_fd(fd) };
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::unlockpt(fd) }, 0);
        let mut name = [0; 64];
        // SAFETY: the buffer and its length.
        assert_eq!(unsafe { libc::ptsname_r(fd, name.as_mut_ptr(), name.len()) }, 0);
        // SAFETY: a terminated string is there now.
        let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_str().unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
        Self { ours, theirs }
    }

    /// Whether lines are edited and Ctrl-C is a signal, as they are at a terminal nobody touched.
    pub(crate) fn is_cooked(&self) -> bool {
        // SAFETY: all zeroes is a value of this plain data.
        let mut modes: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the structure outlives the call.
        assert_eq!(unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &raw mut modes) }, 0);
        let line = libc::ICANON | libc::ECHO | libc::ISIG;
        assert!(modes.c_lflag & line == line || modes.c_lflag & line == 0, "half raw");
        modes.c_lflag & line == line
    }

    /// Starts `parador run vm.conf` with this as its terminal.
    pub(crate) fn run(&self, place: &Place) -> Child {
        self.start(&mut place.command(&["run", "vm.conf"]))
    }

    /// Starts `command` with this as its terminal, in the foreground.
    fn start(&self, command: &mut Command) -> Child {
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        command.spawn().unwrap()
    }
}

#[test]
fn keys_go_to_the_guest_and_the_terminal_comes_back() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print(">").echo_until_q().power_off(), "");
    let mut terminal = Terminal::new();
    assert!(terminal.is_cooked());
    let mut child = terminal.run(&place);
    read_until(&mut terminal.ours, ">");
    assert!(!terminal.is_cooked());
    // Ctrl-C, Ctrl-D and Ctrl-A (typed twice) are the guest's.
    terminal.ours.write_all(b"\x03\x04\x01\x01.").unwrap();
    read_until(&mut terminal.ours, "\x03\x04\x01.");
    terminal.ours.write_all(b"q").unwrap();
    assert_eq!(wait(&mut child), Some(0));
    assert!(terminal.is_cooked());
}

#[test]
fn ctrl_a_x_ends_the_machine() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print(">"), "");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&place);
    read_until(&mut terminal.ours, ">");
    terminal.ours.write_all(b"\x01?").unwrap();
    read_until(&mut terminal.ours, "end the machine at once");
    terminal.ours.write_all(b"\x01x").unwrap();
    assert_eq!(wait(&mut child), Some(5));
    assert!(terminal.is_cooked());
}

#[test]
fn the_terminal_comes_back_after_every_signal_that_can_be_caught() {
    if !kvm() {
        return;
    }
    for (signal, status) in [
        (libc::SIGINT, Some(5)),
        (libc::SIGHUP, Some(5)),
        (libc::SIGQUIT, Some(5)),
        // Mistakes of ours: no exit status, but a terminal.
        (libc::SIGSEGV, None),
        (libc::SIGABRT, None),
    ] {
        let place = place(Code::default().print(">"), "");
        let mut terminal = Terminal::new();
        let mut child = terminal.run(&place);
        read_until(&mut terminal.ours, ">");
        assert!(!terminal.is_cooked());
        // SAFETY: no pointers; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(child.id()).unwrap(), signal) }, 0);
        assert_eq!(wait(&mut child), status, "signal {signal}");
        assert!(terminal.is_cooked(), "signal {signal}");
    }
}

#[test]
fn the_terminal_comes_back_after_an_error() {
    let place = Place::new().with("vm.conf", "boot.kernel=missing\n");
    let terminal = Terminal::new();
    let mut child = terminal.run(&place);
    assert_eq!(wait(&mut child), Some(1));
    assert!(terminal.is_cooked());
}

#[test]
fn a_terminal_that_no_console_uses_keeps_its_ctrl_c() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n"), "console=pty\n");
    let mut terminal = Terminal::new();
    let mut child = terminal.run(&place);
    read_until(&mut terminal.ours, "console is at ");
    assert!(terminal.is_cooked());
    terminal.ours.write_all(b"\x03").unwrap();
    assert_eq!(wait(&mut child), Some(5));
}

#[test]
fn in_the_background_it_leaves_the_terminal_to_others() {
    if !kvm() {
        return;
    }
    let place = place(Code::default().print("up\n").power_off(), "");
    let mut terminal = Terminal::new();
    terminal.ours.write_all(b"for somebody else\n").unwrap();
    // A shell with job control: its background jobs are stopped when they read from the terminal.
    let script = format!("set -m; {} run vm.conf & wait $!; echo status $?", env!("CARGO_BIN_EXE_parador"));
    let mut shell = Command::new("bash");
    let mut child = terminal.start(shell.arg("-c").arg(script).current_dir(place.path(".")));
    read_until(&mut terminal.ours, "up");
    read_until(&mut terminal.ours, "status 0");
    assert_eq!(wait(&mut child), Some(0));
    assert!(terminal.is_cooked());
}
