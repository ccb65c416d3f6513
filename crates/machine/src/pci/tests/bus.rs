//! Slots, configuration accesses and BARs.

use crate::bus::{BusDevice, Effect};
use crate::pci::testing::{ECAM, Echo, Guest, HIGH, LOW, PciDriver, Strict};
use crate::pci::{AttachError, PciAddress};

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn attach(guest: &Guest, address: Option<&str>) -> Result<PciAddress, AttachError> {
    guest.root.attach_virtio(Box::new(Echo::new(1)), address.map(at))
}

/// Where the virtio capability of a type is.
fn virtio_capability(guest: &mut Guest, address: PciAddress, kind: u8) -> u64 {
    let [mut at] = guest.config(address, 0x34);
    while at != 0 {
        let [id, next, _, found] = guest.config(address, at.into());
        if (id, found) == (9, kind) {
            return at.into();
        }
        at = next;
    }
    unreachable!("no capability of type {kind}")
}

#[test]
fn the_host_bridge_is_there_and_nothing_else() {
    let mut guest = Guest::new();
    for slot in 0..32 {
        let id = guest.config::<4>(PciAddress::new(0, slot, 0).unwrap(), 0);
        assert_eq!(id, if slot == 0 { [0x36, 0x1B, 0x08, 0x00] } else { [0xFF; 4] });
    }
    assert_eq!(guest.config::<4>(at("0"), 8), [0, 0x00, 0x00, 0x06]);
    assert_eq!(guest.config::<1>(at("0"), 0x0E), [0], "one function, no scan for others");
}

#[test]
fn a_virtio_function_says_what_it_is() {
    let mut guest = Guest::new();
    let address = guest.root.attach_virtio(Box::new(Strict::new().0), None).unwrap();
    assert_eq!(guest.config::<4>(address, 0), [0xF4, 0x1A, 0x40 + 43, 0x10]);
    assert_eq!(guest.config::<1>(address, 8), [1], "revision of a device that is not transitional");
    assert_eq!(guest.config::<1>(address, 0x3D), [0], "no INTx pin");
    let driver = PciDriver::probe(&mut guest, address);
    assert_eq!((driver.bar, driver.vectors, driver.multiplier), (LOW.start, 4, 4));
    assert!(driver.common != 0 && driver.notify != 0 && driver.isr != 0 && driver.device != 0);
    assert!(driver.pci_cfg != 0 && driver.table != 0 && driver.pending != 0);

    let notify = virtio_capability(&mut guest, address, 2);
    let length = u32::from_le_bytes(guest.config(address, notify + 12));
    assert_eq!(length, 3 * 4, "a notification address for each of three queues");

    let plain = attach(&guest, None).unwrap();
    assert_eq!(PciDriver::probe(&mut guest, plain).device, 0, "no configuration, no capability");
}

#[test]
fn devices_go_where_they_are_told_or_to_the_first_free_slot() {
    let guest = Guest::new();
    assert_eq!(attach(&guest, None).unwrap(), at("0:1.0"));
    assert_eq!(attach(&guest, Some("0:3.0")).unwrap(), at("0:3.0"));
    assert_eq!(attach(&guest, None).unwrap(), at("0:2.0"));
    assert_eq!(attach(&guest, None).unwrap(), at("0:4.0"));
    assert!(matches!(attach(&guest, Some("0:0.0")), Err(AttachError::Occupied(_))));
    assert!(matches!(attach(&guest, Some("3")), Err(AttachError::Occupied(_))));
    assert!(matches!(attach(&guest, Some("1:1.0")), Err(AttachError::NoSuchBus(_))));
    for slot in 5..32 {
        assert_eq!(attach(&guest, None).unwrap().slot(), slot);
    }
    assert!(matches!(attach(&guest, None), Err(AttachError::NoFreeSlot)));
    assert_eq!(attach(&guest, Some("0:1.7")).unwrap(), at("0:1.7"));
}

#[test]
fn a_device_that_does_not_fit_is_refused() {
    let guest = Guest::new();
    let device = Box::new(Echo::new(1025));
    assert!(matches!(
        guest.root.attach_virtio(device, None),
        Err(AttachError::TooLarge { queues: 1025, .. })
    ));
    let driver = guest.root.attach_virtio(Box::new(Echo::new(1024)), None).unwrap();
    let mut guest = guest;
    let driver = PciDriver::probe(&mut guest, driver);
    assert_eq!(driver.vectors, 1024);
    assert_eq!(driver.read::<2>(&mut guest, 0x12), [0x00, 0x04]);
}

#[test]
fn a_slot_with_several_functions_says_so() {
    let mut guest = Guest::new();
    attach(&guest, Some("5.2")).unwrap();
    attach(&guest, Some("5.0")).unwrap();
    attach(&guest, Some("6.0")).unwrap();
    assert_eq!(guest.config::<1>(at("5.0"), 0x0E), [0x80]);
    assert_eq!(guest.config::<1>(at("6.0"), 0x0E), [0]);
    attach(&guest, Some("6.1")).unwrap();
    assert_eq!(guest.config::<1>(at("6.0"), 0x0E), [0x80]);
    guest.root.reset();
    assert_eq!(guest.config::<1>(at("6.0"), 0x0E), [0x80]);
}

#[test]
fn ports_and_ecam_show_the_same_registers() {
    let mut guest = Guest::new();
    let address = attach(&guest, None).unwrap();
    // As Linux probes for mechanism #1: a byte in the middle changes nothing.
    guest.port_out(0xCF8, &0x8000_0000u32.to_le_bytes());
    guest.port_out(0xCFB, &[0x01]);
    assert_eq!(guest.port_in::<4>(0xCF8), [0, 0, 0, 0x80]);
    for register in (0..=0xFC).step_by(4) {
        let selected = 0x8000_0000 | u32::from(address.devfn()) << 8 | register;
        guest.port_out(0xCF8, &selected.to_le_bytes());
        let word = guest.config::<4>(address, register.into());
        assert_eq!(guest.port_in::<4>(0xCFC), word);
        assert_eq!(guest.port_in::<2>(0xCFE), word[2..]);
        assert_eq!(guest.port_in::<1>(0xCFD), word[1..2]);
        assert_eq!(guest.port_in::<2>(0xCFF), [word[3], 0xFF], "an access ends with the register");
    }
    guest.port_out(0xCF8, &(0x8000_003Cu32 | u32::from(address.devfn()) << 8).to_le_bytes());
    guest.port_out(0xCFC, &[11]);
    assert_eq!(guest.config::<1>(address, 0x3C), [11]);
    // Another bus, and no cycle at all.
    for select in [0x8001_0000u32, 0x0000_0000] {
        guest.port_out(0xCF8, &select.to_le_bytes());
        assert_eq!(guest.port_in::<4>(0xCFC), [0xFF; 4]);
    }
}

#[test]
fn reset_control_is_in_the_middle_of_config_address() {
    let guest = Guest::new();
    let mut ports = guest.root.config_ports();
    assert_eq!(ports.write(0, &0x8000_0000u32.to_le_bytes()), Effect::None);
    // As Linux does: what kind of reset, then that it be now.
    assert_eq!(ports.write(1, &[0x02]), Effect::None);
    assert_eq!(ports.write(1, &[0x06]), Effect::Reset);
    assert_eq!(ports.write(1, &[0x06, 0x06]), Effect::None, "only a byte");
    assert_eq!(ports.write(0, &0x8000_0600u32.to_le_bytes()), Effect::None, "not as part of an address");
}

#[test]
fn there_is_no_extended_configuration_space() {
    let mut guest = Guest::new();
    attach(&guest, Some("0.1")).unwrap();
    assert_eq!(guest.config::<4>(at("0"), 0x100), [0xFF; 4]);
    assert_eq!(guest.config::<8>(at("0"), 0xFC), [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(guest.config::<8>(at("0"), 0xFFC), [0xFF; 8], "an access ends with its function");
    let mut ecam = guest.root.ecam();
    let mut data = [0; 4];
    ecam.read(ECAM.end - ECAM.start, &mut data);
    assert_eq!(data, [0xFF; 4], "there is no bus 1");
}

#[test]
fn a_bar_answers_where_the_guest_puts_it() {
    let mut guest = Guest::new();
    let address = attach(&guest, None).unwrap();
    let queues = |guest: &mut Guest, bar: u64| guest.load::<2>(bar + 0x12);
    assert_eq!(queues(&mut guest, LOW.start), [0xFF; 2], "decoding is off at power-on");
    let driver = PciDriver::probe(&mut guest, address);
    assert_eq!(queues(&mut guest, driver.bar), [1, 0]);

    let moved = LOW.end - 0x8000;
    guest.set_config(address, 0x10, &(moved as u32).to_le_bytes());
    assert_eq!(queues(&mut guest, driver.bar), [0xFF; 2]);
    assert_eq!(queues(&mut guest, moved), [1, 0]);

    for outside in [LOW.end as u32, 0, 0xFFFF_FFFF] {
        guest.set_config(address, 0x10, &outside.to_le_bytes());
        assert_eq!(queues(&mut guest, moved), [0xFF; 2]);
    }
    guest.root.reset();
    PciDriver::probe(&mut guest, address);
    assert_eq!(queues(&mut guest, driver.bar), [1, 0], "as at power-on");
}

#[test]
fn of_two_bars_in_one_place_the_first_answers() {
    let mut guest = Guest::new();
    let first = attach(&guest, None).unwrap();
    let second = guest.root.attach_virtio(Box::new(Echo::new(2)), None).unwrap();
    let driver = PciDriver::probe(&mut guest, first);
    let other = PciDriver::probe(&mut guest, second);
    assert_ne!(driver.bar, other.bar);
    guest.set_config(second, 0x10, &(driver.bar as u32).to_le_bytes());
    assert_eq!(guest.load::<2>(driver.bar + 0x12), [1, 0]);
    assert_eq!(guest.load::<2>(other.bar + 0x12), [0xFF; 2]);
    guest.set_config(second, 0x10, &(other.bar as u32).to_le_bytes());
    assert_eq!(guest.load::<2>(other.bar + 0x12), [2, 0]);
    assert_eq!(guest.load::<4>(HIGH.start), [0xFF; 4]);
}

#[test]
fn bars_fill_a_window_and_no_more() {
    use std::sync::Arc;

    use crate::pci::testing::ModelHost;
    use crate::pci::{PciRoot, Windows};

    let guest = Guest::new();
    let windows = Windows { low: 0xC000_0000..0xC001_0000, high: None };
    let host = Arc::new(ModelHost::default());
    let root = PciRoot::new(host, Arc::clone(guest.arena.memory()), windows).unwrap();
    root.attach_virtio(Box::new(Echo::new(1)), None).unwrap();
    root.attach_virtio(Box::new(Echo::new(1)), None).unwrap();
    let full = root.attach_virtio(Box::new(Echo::new(1)), None);
    assert!(matches!(full, Err(AttachError::NoRoom(0x8000))));
}
