//! Which message each interrupt number stands for, as the table that KVM wants.

use std::io;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry,
};

use crate::pci::MsiMessage;
use crate::platform::x86_64::layout::IOAPIC_PINS;

/// Where message-signalled interrupts go; index 0 is GSI [`IOAPIC_PINS`].
pub(super) struct Routes {
    messages: Vec<Route>,
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The number is nobody's.
    Free,
    /// It is somebody's, and goes nowhere yet.
    Nowhere,
    To(MsiMessage),
}

impl Routes {
    /// With room for `limit` messages.
    pub(super) fn new(limit: usize) -> Self {
        Self { messages: Vec::new(), limit }
    }

    /// Has all messages go nowhere.
    pub(super) fn forget(&mut self) {
        for route in &mut self.messages {
            if let Route::To(_) = route {
                *route = Route::Nowhere;
            }
        }
    }

    pub(super) fn allocate(&mut self) -> io::Result<u32> {
        let free = self.messages.iter().position(|route| *route == Route::Free);
        let index = free.unwrap_or(self.messages.len());
        if index >= self.limit {
            return Err(io::Error::other("KVM has no interrupt routes left"));
        }
        match self.messages.get_mut(index) {
            Some(route) => *route = Route::Nowhere,
            None => self.messages.push(Route::Nowhere),
        }
        Ok(IOAPIC_PINS + u32::try_from(index).expect("KVM has at most 4096 routes"))
    }

    /// A message the number still has is left out of the next table; nothing signals it until then.
    pub(super) fn release(&mut self, gsi: u32) {
        if let Ok(route) = self.find(gsi) {
            *route = Route::Free;
        }
    }

    /// The route of a number given out.
    pub(super) fn find(&mut self, gsi: u32) -> io::Result<&mut Route> {
        let index = gsi.checked_sub(IOAPIC_PINS).and_then(|index| usize::try_from(index).ok());
        index
            .and_then(|index| self.messages.get_mut(index))
            .filter(|route| **route != Route::Free)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The whole table, as KVM wants it: the wires as it had them itself, then the messages.
    pub(super) fn table(&self) -> io::Result<KvmIrqRouting> {
        let mut entries = Vec::with_capacity(40 + self.messages.len());
        for gsi in 0..IOAPIC_PINS {
            match gsi {
                0..8 => entries.push(wire(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)),
                8..16 => entries.push(wire(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8)),
                _ => {}
            }
            entries.push(wire(gsi, KVM_IRQCHIP_IOAPIC, gsi));
        }
        for (gsi, message) in (IOAPIC_PINS..).zip(&self.messages) {
            if let Route::To(MsiMessage { address, data }) = *message {
                let mut entry =
                    kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
                entry.u.msi.address_lo = address as u32;
                entry.u.msi.address_hi = (address >> 32) as u32;
                entry.u.msi.data = data;
                entries.push(entry);
            }
        }
        KvmIrqRouting::from_entries(&entries).map_err(|error| io::Error::other(format!("{error:?}")))
    }
}

fn wire(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entry
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "looks into a union of KVM's")]

    use super::*;

    #[test]
    fn routes_are_numbered_from_behind_the_wires_and_given_out_once() {
        let mut routes = Routes::new(2);
        assert_eq!(routes.allocate().unwrap(), IOAPIC_PINS);
        assert_eq!(routes.allocate().unwrap(), IOAPIC_PINS + 1);
        assert!(routes.allocate().is_err(), "there are only so many");
        routes.release(IOAPIC_PINS);
        assert!(routes.find(IOAPIC_PINS).is_err());
        assert_eq!(routes.allocate().unwrap(), IOAPIC_PINS);
        for gsi in [0, IOAPIC_PINS - 1, IOAPIC_PINS + 2, u32::MAX] {
            assert!(routes.find(gsi).is_err(), "{gsi} was never given out");
        }
    }

    #[test]
    fn the_table_has_every_wire_and_the_messages_there_are() {
        let mut routes = Routes::new(8);
        routes.allocate().unwrap();
        let gsi = routes.allocate().unwrap();
        *routes.find(gsi).unwrap() = Route::To(MsiMessage { address: 0x1_fee0_0000, data: 0x4041 });
        let table = routes.table().unwrap();
        let entries = table.as_slice();
        let wires = entries.iter().filter(|entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP);
        assert_eq!(wires.clone().count(), 24 + 16);
        assert!((0..IOAPIC_PINS).all(|pin| wires.clone().any(|wire| wire.gsi == pin)));
        let messages: Vec<_> = entries.iter().filter(|entry| entry.type_ == KVM_IRQ_ROUTING_MSI).collect();
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].gsi, gsi);
        // SAFETY: the entry's type says which part of the union counts.
        let msi = unsafe { messages[0].u.msi };
        assert_eq!((msi.address_hi, msi.address_lo, msi.data), (1, 0xfee0_0000, 0x4041));
    }
}
