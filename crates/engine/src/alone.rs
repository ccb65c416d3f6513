//! A device that has a process of its own, for virtual machines of anybody.

use parador_config::{Checked, Diagnostic, Diagnostics};
use parador_vhost_user::server::Server;

use crate::device::{self, Model};
use crate::launch::Stdio;
use crate::make::{Made, Owner, make};
use crate::net::{Net, Tap};
use crate::plan::Check;

/// A device without a machine, decided: types instead of text. Nothing of the host has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alone {
    /// What it is called.
    pub id: String,
    /// What it will be.
    pub model: Model,
}

/// Keys that say where a machine has a device, which is not for this process to know.
static MACHINES: &[(&str, &str)] = &[
    ("addr", "the machine that uses the device gives it an address"),
    ("isolation", "it has a process of its own here already"),
];

impl Alone {
    /// Decides what the only device of `keys` will be. `None` when `diagnostics` then has errors, of
    /// here or of before.
    #[must_use]
    pub fn new(keys: &Checked, diagnostics: &mut Diagnostics) -> Option<Self> {
        keys.judge_support(diagnostics);
        let device = keys.devices().first()?;
        let mut check = Check { keys, diagnostics };
        for (name, why) in MACHINES {
            let key = format!("device.{}.{name}", device.id);
            if keys.is_set(&key) {
                check.error(&key, format!("`{name}` is for a device of a machine"), *why);
            }
        }
        let key = |name: &str| format!("device.{}.{name}", device.id);
        let model = device::model(&mut check, device)?;
        if let Model::Remote(_) = model {
            let hint = "this process is the other one: say what it is to use, such as `path` or `tap.name`";
            check.error(&key("backend"), "the device is not done in yet another process", hint);
        }
        if let Model::Net(Net { tap: Tap::Interface(_), .. }) = &model
            && !keys.is_set(&key("tap.name"))
        {
            // Nobody makes one for a process of its own.
            device::lacks::<()>(&mut check, &key, "tap.name", "tap0");
        }
        (diagnostics.errors() == 0).then(|| Self { id: device.id.clone(), model })
    }

    /// Makes the device, with what it needs of the host opened, and what serves it to front-ends.
    /// `keys` are those it was decided from.
    ///
    /// # Errors
    /// What the host lacks, and the key that asks for it.
    pub fn make(&self, keys: &Checked, mut stdio: Stdio) -> Result<Server, Diagnostic> {
        let owner = Owner { id: &self.id, machine: None };
        let Made { device, resizer: _, terminal, image: _ } = make(&self.model, owner, keys, &mut stdio)?;
        if let Some((key, name)) = terminal {
            eprintln!("{key} is at {}", name.display());
        }
        Ok(Server::new(device))
    }
}
