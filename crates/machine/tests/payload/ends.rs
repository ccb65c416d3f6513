//! Every way a machine ends.

use parador_machine::{OnPanic, OnReset, Outcome, Shape, Topology};

use crate::code::{Code, KEYBOARD, PVPANIC};
use crate::guest::{shape, start, start_in};

fn stops_on_reset() -> Shape {
    Shape { on_reset: OnReset::Stop, ..shape() }
}

/// An exception with no interrupt table: a triple fault.
fn triple_fault(code: Code) -> Code {
    code.raw(&[0x0f, 0x0b]).spin() // ud2
}

#[test]
fn the_keyboard_controller_resets() {
    let code = Code::new().print("1").out(KEYBOARD, 0xfe).spin();
    let Some(guest) = start_in(stops_on_reset(), code) else { return };
    assert_eq!(guest.end(), (Outcome::Reset, "1".to_owned()));
}

#[test]
fn a_triple_fault_resets() {
    let Some(guest) = start_in(stops_on_reset(), triple_fault(Code::new().print("1"))) else { return };
    assert_eq!(guest.end(), (Outcome::Reset, "1".to_owned()));
}

#[test]
fn a_jump_to_the_firmwares_reset_vector_resets() {
    // Only a processor that has just been woken is in real mode.
    const TRAMPOLINE: u32 = 0x8000;
    let code = Code::new()
        .poke(TRAMPOLINE, 0xff00_00ea) // jmp 0xffff:0
        .poke(TRAMPOLINE + 4, 0xff)
        .poke(0xfee0_00f0, 0x1ff)
        .poke(0xfee0_0300, 0x000c_4500)
        .poke(0xfee0_0300, 0x000c_4600 | TRAMPOLINE >> 12)
        .spin();
    let topology = Topology::new(1, 2, 1).unwrap();
    let Some(guest) = start_in(Shape { topology, ..stops_on_reset() }, code) else { return };
    assert_eq!(guest.end().0, Outcome::Reset);
}

#[test]
fn a_panic_ends_the_machine_or_does_not_as_asked() {
    let code = Code::new().out(PVPANIC, 1).print("on").power_off();
    let Some(guest) = start(code.clone()) else { return };
    assert_eq!(guest.end(), (Outcome::Panicked, String::new()));
    let shape = Shape { on_panic: OnPanic::Continue, ..shape() };
    let Some(guest) = start_in(shape, code) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "on".to_owned()));
}

#[test]
fn a_guest_that_never_leaves_is_stopped_from_outside() {
    let Some(guest) = start(Code::new().print("x").spin()) else { return };
    guest.expect("x");
    guest.machine.stop();
    assert_eq!(guest.machine.wait(), Outcome::Stopped);
    assert_eq!(guest.machine.wait(), Outcome::Stopped, "and stays so");
    assert!(guest.machine.pause().is_err());
    assert!(guest.machine.resume().is_err());
}

#[test]
fn a_processor_runs_where_it_was_told_to() {
    let allowed = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.unwrap_or_default().to_owned()
    };
    let all = allowed(&std::fs::read_to_string("/proc/self/status").unwrap());
    let last = all.rsplit([',', '-']).next().unwrap().to_owned();
    let affinity = [(0, vec![last.parse().unwrap()])].into();
    let Some(guest) = start_in(Shape { affinity, ..shape() }, Code::new().print("x").spin()) else { return };
    guest.expect("x");
    let pinned = std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
        let read =
            |name| std::fs::read_to_string(task.as_ref().unwrap().path().join(name)).unwrap_or_default();
        read("comm") == "vcpu0\n" && allowed(&read("status")) == last
    });
    guest.machine.stop();
    assert_eq!(guest.machine.wait(), Outcome::Stopped);
    assert!(pinned, "it may run on {all}");
}

#[test]
fn a_guest_that_halts_for_ever_is_stopped_from_outside() {
    let Some(guest) = start(Code::new().print("x").hlt().spin()) else { return };
    guest.expect("x");
    guest.machine.stop();
    assert_eq!(guest.machine.wait(), Outcome::Stopped);
}

#[test]
fn a_processor_that_cannot_go_on_ends_the_machine_with_a_report() {
    // Jump to where there is no memory: there is no instruction to run or to emulate.
    let code = Code::new().raw(&[0xb8]).raw(&0xd000_0000_u32.to_le_bytes()).raw(&[0xff, 0xe0]);
    let Some(guest) = start_in(stops_on_reset(), code) else { return };
    let outcome = guest.machine.wait();
    let Outcome::Failed(report) = outcome else {
        unreachable!("{outcome:?}");
    };
    let report = report.to_string();
    for part in
        ["processor 0: ", "rip 00000000d0000000", "rax 00000000d0000000", "cr0 ", "rip is not in memory"]
    {
        assert!(report.contains(part), "no {part:?} in {report}");
    }
}
