//! From an event on the host to an interrupt in the guest.

use parador_machine::{Outcome, hardware_virtualization};

use crate::code::{Code, ORIGIN};
use crate::guest::start;
use crate::life::reboot_until;

const APIC: u32 = 0xfee0_0000;
const IOAPIC: u32 = 0xfec0_0000;
const IDT: u32 = 0x30_0000;
const IDT_REGISTER: u32 = 0x30_1000;
const PAGE_DIRECTORY: u32 = 0x30_2000;
/// The entry of the fourth GiB in the table that the long-mode entry comes with.
const FOURTH_GIB: u32 = 0xa000 + 3 * 8;
const VECTOR: u32 = 0x40;
/// The I/O APIC's pin of the power button.
const PIN: u32 = 9;

/// Long-mode code (not every KVM interrupts any other) that maps the APICs, lets `handler` take the
/// power button's interrupt, prints "r" and halts.
fn wait_for_the_button(handler: &Code) -> Code {
    let handler = handler.bytes();
    // The code begins with a jump over the handler, which is therefore at ORIGIN + 5.
    let code =
        Code::long().raw(&[0xe9]).raw(&u32::try_from(handler.len()).unwrap().to_le_bytes()).raw(&handler);
    let handler = ORIGIN + 5;
    let code = code
        .poke(FOURTH_GIB, PAGE_DIRECTORY | 3)
        .poke(PAGE_DIRECTORY + (IOAPIC >> 21 & 511) * 8, IOAPIC | 0x93)
        .poke(PAGE_DIRECTORY + (APIC >> 21 & 511) * 8, APIC | 0x93)
        // A 64-bit interrupt gate, and the table it is in.
        .poke(IDT + VECTOR * 16, 0x0010 << 16 | handler & 0xffff)
        .poke(IDT + VECTOR * 16 + 4, handler & 0xffff_0000 | 0x8e00)
        .poke(IDT_REGISTER, 0xfff)
        .poke(IDT_REGISTER + 2, IDT)
        .raw(&[0x0f, 0x01, 0x1c, 0x25])
        .raw(&IDT_REGISTER.to_le_bytes()) // lidt
        .poke(APIC + 0xf0, 0x1ff)
        .poke(IOAPIC, 0x10 + 2 * PIN + 1)
        .poke(IOAPIC + 0x10, 0) // to processor 0
        .poke(IOAPIC, 0x10 + 2 * PIN)
        .poke(IOAPIC + 0x10, VECTOR) // fixed, edge, unmasked
        .print("r\n")
        .raw(&[0xfb]); // sti
    let wait = code.here();
    code.hlt().jump(0xeb, wait)
}

/// Software KVM shows interrupts to a guest that asks for them, but does not interrupt it.
fn interrupts_are_delivered() -> bool {
    let hardware = hardware_virtualization();
    if !hardware {
        eprintln!("skipped: this KVM is a software one, which interrupts no ordinary guest");
    }
    hardware
}

/// Connects the power button to the local APIC, prints "r" and waits until the interrupt is pending
/// there; interrupts are off.
fn poll_for_the_button() -> Code {
    let code = Code::new()
        .poke(APIC + 0xf0, 0x1ff)
        .poke(IOAPIC, 0x10 + 2 * PIN + 1)
        .poke(IOAPIC + 0x10, 0)
        .poke(IOAPIC, 0x10 + 2 * PIN)
        .poke(IOAPIC + 0x10, VECTOR)
        .print("r\n");
    let wait = code.here();
    code.load(APIC + 0x200 + VECTOR / 2).raw(&[0xa8, 1]).jump(0x74, wait) // the request register; test al, 1
}

#[test]
fn the_power_button_reaches_the_local_apic_in_every_life() {
    let code = poll_for_the_button().in_al(0x604).raw(&[0x04, b'0']).print_al().raw(&reboot_until(3).bytes());
    let Some(guest) = start(code) else { return };
    let mut printed = String::new();
    for _ in 0..3 {
        printed += "r\n";
        guest.expect(&printed);
        guest.machine.power_button().unwrap();
        printed += "1r";
    }
    printed.pop();
    assert_eq!(guest.end(), (Outcome::PoweredOff, printed + "!"));
}

#[test]
fn the_power_button_wakes_a_halted_guest() {
    if !interrupts_are_delivered() {
        return;
    }
    let handler = Code::long()
        .print("i")
        .in_al(0x604) // the event, which reading takes away
        .raw(&[0x04, b'0'])
        .print_al()
        .poke(APIC + 0xb0, 0) // end of interrupt
        .power_off();
    let Some(guest) = start(wait_for_the_button(&handler)) else { return };
    guest.expect("r\n");
    guest.machine.power_button().unwrap();
    assert_eq!(guest.end(), (Outcome::PoweredOff, "r\ni1".to_owned()));
}
