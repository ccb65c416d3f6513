//! Devices of a machine, made and given to it.

use std::error::Error;
use std::path::PathBuf;

use parador_block::Image;
use parador_config::{Checked, Diagnostic};
use parador_devices::console::Resizer;
use parador_machine::Machine;
use parador_machine::pci::PciAddress;

use crate::launch::Stdio;
use crate::make::{Made, Owner, make};
use crate::plan::Plan;

/// What is left to know of devices once the machine has them.
#[derive(Default)]
pub(crate) struct Attached {
    /// Consoles on standard input and output.
    pub(crate) resizers: Vec<Resizer>,
    /// Pseudo-terminals that were made, and for which key.
    pub(crate) terminals: Vec<(String, PathBuf)>,
    /// Images of disks, to be closed when the machine has ended.
    pub(crate) images: Vec<Image>,
}

/// Makes the devices of `plan` and gives them to `machine`.
pub(crate) fn attach(
    machine: &mut Machine,
    plan: &Plan,
    keys: &Checked,
    stdio: &mut Stdio,
) -> Result<Attached, Diagnostic> {
    let mut attached = Attached::default();
    for planned in &plan.devices {
        if planned.isolated {
            let key = format!("device.{}.isolation", planned.id);
            let message = "`parador vmm` starts no processes for devices";
            let hint = "use `parador run`, or start `parador device` yourself and set model=vhost-user";
            return Err(keys.about(&key, message).hint(hint));
        }
        let owner = Owner { id: &planned.id, machine: Some(plan) };
        let Made { device, resizer, terminal, image } = make(&planned.model, owner, keys, stdio)?;
        attached.resizers.extend(resizer);
        attached.terminals.extend(terminal);
        attached.images.extend(image);
        let at = planned.address;
        machine.attach(device, PciAddress::new(at.bus, at.slot, at.function)).map_err(|e| {
            let source: &dyn Error = &e;
            let addr = format!("device.{}.addr", planned.id);
            let key = if keys.is_set(&addr) { addr } else { format!("device.{}.model", planned.id) };
            keys.about(&key, "the device cannot be attached").cause(source)
        })?;
    }
    Ok(attached)
}
