//! Reboot, pause and the processors that come later.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use parador_machine::{Outcome, Shape, Topology};

use crate::code::{CLOCK, Code, KEYBOARD};
use crate::guest::{shape, start, start_in};

/// Memory of the clock's battery, which no reset clears: what a guest has to count its lives with.
const BATTERY: u8 = 0x40;

/// Counts its lives, and switches itself off in the last.
pub(crate) fn reboot_until(last: u8) -> Code {
    let code = Code::new()
        .out(CLOCK, BATTERY)
        .in_al(CLOCK + 1)
        .raw(&[0xfe, 0xc0]) // inc al
        .out_al(CLOCK + 1)
        .raw(&[0x3c, last]); // cmp al, last
    let reset = Code::new().print("r").out(KEYBOARD, 0xfe).spin();
    let reset_len = u8::try_from(reset.bytes().len()).unwrap();
    code.raw(&[0x74, reset_len]).raw(&reset.bytes()).print("!").power_off()
}

#[test]
fn a_guest_reboots_as_often_as_it_likes_and_leaves_nothing_behind() {
    fn used() -> (usize, usize) {
        (fs::read_dir("/proc/self/fd").unwrap().count(), fs::read_dir("/proc/self/task").unwrap().count())
    }
    let Some(guest) = start(reboot_until(3)) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "rr!".to_owned()));
    let before = used();
    let guest = start(reboot_until(40)).unwrap();
    assert_eq!(guest.end(), (Outcome::PoweredOff, "r".repeat(39) + "!"));
    // A thread that was waited for is in /proc for a moment longer, now as then.
    let more = |(fds, threads): (usize, usize)| fds > before.0 || threads > before.1;
    let end = Instant::now() + Duration::from_secs(10);
    while more(used()) {
        assert!(Instant::now() < end, "{:?} after {before:?}", used());
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn memory_is_new_after_a_reboot() {
    const CELL: u32 = 0x30_0000;
    let code = Code::new().load(CELL).print_eax().poke(CELL, 0x6161_6161).raw(&reboot_until(2).bytes());
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "\0\0\0\0r\0\0\0\0!".to_owned()));
}

#[test]
fn a_paused_guest_stands_still_and_goes_on() {
    // mov ecx, 2000; loop: dec ecx; jnz loop; print "."; and again
    let code = Code::new();
    let start_of_turn = code.here();
    let code = code.mov_ecx(2000);
    let delay = code.here();
    let code = code.raw(&[0x49]).jump(0x75, delay).print(".\n").jump(0xeb, start_of_turn);
    let Some(guest) = start(code) else { return };
    guest.expect(".");
    guest.machine.pause().unwrap();
    guest.machine.pause().unwrap();
    let paused = guest.output().len();
    sleep(Duration::from_millis(50));
    assert_eq!(guest.output().len(), paused);
    guest.machine.resume().unwrap();
    guest.machine.resume().unwrap();
    guest.expect(&".\n".repeat(paused / 2 + 2));
    guest.machine.stop();
    assert_eq!(guest.end().0, Outcome::Stopped);
}

#[test]
fn a_paused_machine_can_be_stopped() {
    let Some(guest) = start(Code::new().print("x\n").spin()) else { return };
    guest.expect("x");
    guest.machine.pause().unwrap();
    guest.machine.stop();
    assert_eq!(guest.end().0, Outcome::Stopped);
}

/// Wakes all other processors with INIT and SIPI; each prints its APIC identifier as a letter and
/// counts itself. Goes on when there are `count`.
fn wake_others(count: u8) -> Code {
    const TRAMPOLINE: u32 = 0x8000;
    const COUNTER: u32 = 0x9000;
    const ICR: u32 = 0xfee0_0300;
    // Real mode at 0x0800:0000: lock inc byte [cs:0x1000]; print 'a'; cli; hlt; jmp $
    let ap = [
        0xf0, 0x2e, 0xfe, 0x06, 0x00, 0x10, 0xba, 0xf8, 0x03, 0xb0, b'a', 0xee, 0xfa, 0xf4, 0xeb, 0xfd, 0x90,
        0x90, 0x90, 0x90,
    ];
    let mut code = Code::new().poke(0xfee0_00f0, 0x1ff); // the local APIC is on
    for (at, word) in (TRAMPOLINE..).step_by(4).zip(ap.chunks(4)) {
        code = code.poke(at, u32::from_le_bytes(word.try_into().unwrap()));
    }
    code = code.poke(COUNTER, 0).poke(ICR, 0x000c_4500).poke(ICR, 0x000c_4600 | TRAMPOLINE >> 12);
    let wait = code.here();
    code.load(COUNTER).raw(&[0x3c, count]).jump(0x75, wait)
}

#[test]
fn other_processors_start_when_they_are_woken() {
    for count in [2, 4, 32_u8] {
        let topology = Topology::new(1, u32::from(count), 1).unwrap();
        let code = wake_others(count - 1).print("!").power_off();
        let Some(guest) = start_in(Shape { topology, ..shape() }, code) else { return };
        let (outcome, output) = guest.end();
        assert_eq!(outcome, Outcome::PoweredOff);
        // The last to count itself may not have printed yet.
        assert!(output.contains('!') && output.len() <= usize::from(count), "{output}");
    }
}

#[test]
fn processors_that_halt_or_spin_do_not_keep_a_guest_from_rebooting() {
    // All but the first halt, or are still on their way, when the first resets.
    let topology = Topology::new(1, 4, 1).unwrap();
    let code = wake_others(3).raw(&reboot_until(5).bytes());
    let Some(guest) = start_in(Shape { topology, ..shape() }, code) else { return };
    let (outcome, output) = guest.end();
    assert_eq!(outcome, Outcome::PoweredOff);
    assert_eq!(output.matches('r').count(), 4);
}
