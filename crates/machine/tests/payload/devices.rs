//! Ports, memory-mapped registers and model-specific registers.

use parador_machine::Outcome;

use crate::code::{Code, PVPANIC};
use crate::guest::start;

#[test]
fn a_guest_writes_to_ports_and_switches_itself_off() {
    let Some(guest) = start(Code::new().print("hello\n").power_off()) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "hello\n".to_owned()));
}

#[test]
fn a_guest_reads_ports_and_finds_all_ones_where_nothing_is() {
    let code = Code::new()
        .in_al(PVPANIC) // its capabilities: 3
        .raw(&[0x04, b'0']) // add al, '0'
        .print_al()
        .in_al(0x80)
        .raw(&[0x04, b'B' + 1]) // 0xff + 'B' + 1 is 'B'
        .print_al()
        .out(0x80, 1)
        .power_off();
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "3B".to_owned()));
}

#[test]
fn string_instructions_move_every_byte() {
    // A call over the text pushes its address: mov esp, 0x90000; call +5; "abcde"
    let code = Code::new()
        .raw(&[0xbc, 0, 0, 9, 0])
        .raw(&[0xe8, 5, 0, 0, 0])
        .raw(b"abcde")
        .raw(&[0x5e]) // pop esi
        .raw(&[0x66, 0xba, 0xf8, 0x03]) // mov dx, 0x3f8
        .mov_ecx(5)
        .raw(&[0xfc, 0xf3, 0x6e]) // cld; rep outsb
        .power_off();
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "abcde".to_owned()));
}

#[test]
fn configuration_space_reads_alike_through_ports_and_memory() {
    let code = Code::new()
        .out32(0xcf8, 0x8000_0000)
        .in_eax(0xcfc)
        .raw(&[0x89, 0xc3]) // mov ebx, eax
        .load(0xe000_0000)
        .raw(&[0x29, 0xd8]) // sub eax, ebx
        .print_eax()
        .raw(&[0x89, 0xd8]) // mov eax, ebx
        .print_eax()
        .power_off();
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.machine.wait(), Outcome::PoweredOff);
    let output = guest.output();
    assert_eq!(output[..4], [0; 4], "the host bridge is the same through both");
    assert_ne!(output[4..], [0xff; 4], "and it is there");
}

#[test]
fn memory_where_nothing_is_reads_all_ones_and_takes_writes() {
    let code = Code::new().poke(0xfd00_0000, 5).load(0xfd00_0000).print_eax().power_off();
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.machine.wait(), Outcome::PoweredOff);
    assert_eq!(guest.output(), [0xff; 4]);
}

#[test]
fn a_model_specific_register_keeps_its_value() {
    const SYSENTER_ESP: u32 = 0x175;
    let code = Code::new()
        .mov_ecx(SYSENTER_ESP)
        .mov_eax(u32::from_le_bytes(*b"msr!"))
        .mov_edx(0)
        .raw(&[0x0f, 0x30]) // wrmsr
        .mov_eax(0)
        .raw(&[0x0f, 0x32]) // rdmsr
        .print_eax()
        .power_off();
    let Some(guest) = start(code) else { return };
    assert_eq!(guest.end(), (Outcome::PoweredOff, "msr!".to_owned()));
}
