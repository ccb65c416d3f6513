//! From the plan of a device to the device, with what it needs of the host opened.

#![expect(unsafe_code, reason = "takes descriptors that this process was started with")]

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;

use parador_block::{Image, RawOptions};
use parador_config::{Checked, Diagnostic, Endpoint};
use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_devices::console::{Backend, Console, ConsoleOptions, Resizer, Size};
use parador_devices::net::tap::Tap;
use parador_devices::net::{Net, NetOptions};
use parador_devices::rng::{Rng, RngOptions};
use parador_devices::vsock::{Vsock, VsockOptions};
use parador_machine::Machine;
use parador_machine::pci::PciAddress;
use parador_virtio::VirtioDevice;

use crate::device::{self, Aio, DevicePlan, Model};
use crate::launch::{Stdio, about};
use crate::plan::Plan;

/// What is left to know of devices once the machine has them.
#[derive(Default)]
pub(crate) struct Attached {
    /// Consoles on standard input and output.
    pub(crate) resizers: Vec<Resizer>,
    /// Pseudo-terminals that were made, and for which key.
    pub(crate) terminals: Vec<(String, PathBuf)>,
}

/// Makes the devices of `plan` and gives them to `machine`.
pub(crate) fn attach(
    machine: &mut Machine,
    plan: &Plan,
    keys: &Checked,
    stdio: &mut Stdio,
) -> Result<Attached, Diagnostic> {
    let mut attached = Attached::default();
    // Slots that were asked for are given before those that were not, which take what is left.
    let (asked, others): (Vec<_>, Vec<_>) = plan.devices.iter().partition(|device| device.address.is_some());
    for device in asked.into_iter().chain(others) {
        let address = device.address.and_then(|at| PciAddress::new(at.bus, at.slot, at.function));
        let made = Maker { plan, keys, device, stdio, attached: &mut attached }.make()?;
        machine.attach(made, address).map_err(|e| {
            let source: &dyn Error = &e;
            let key = if address.is_some() { "addr" } else { "model" };
            keys.about(&format!("device.{}.{key}", device.id), "the device cannot be attached").cause(source)
        })?;
    }
    Ok(attached)
}

struct Maker<'a> {
    plan: &'a Plan,
    keys: &'a Checked,
    device: &'a DevicePlan,
    stdio: &'a mut Stdio,
    attached: &'a mut Attached,
}

type Made = Result<Box<dyn VirtioDevice>, Diagnostic>;

impl Maker<'_> {
    fn make(&mut self) -> Made {
        match &self.device.model {
            Model::Block(block) => self.block(block),
            Model::Net(net) => self.net(net),
            Model::Rng(path) => self.rng(path.clone()),
            Model::Console(endpoint) => self.console(endpoint),
            Model::Balloon(plan) => self.balloon(plan),
            Model::Vsock(plan) => self.vsock(plan),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("device.{}.{name}", self.device.id)
    }

    /// Says `error` about the key `name` of the device.
    fn blame(&self, name: &str, error: &dyn Error, hint: Option<String>) -> Diagnostic {
        about(self.keys, &self.key(name), error, hint)
    }

    fn rng(&self, path: Option<PathBuf>) -> Made {
        let rng = Rng::new(RngOptions { path }).map_err(|e| {
            let hint = "leave it out for the source of the host's kernel, or name one such as /dev/hwrng";
            self.blame("path", &e, Some(hint.to_owned()))
        })?;
        Ok(Box::new(rng))
    }

    fn balloon(&self, plan: &device::Balloon) -> Made {
        let device::Balloon { size, deflate_on_oom, free_page_reporting } = *plan;
        let options = BalloonOptions { target: size, deflate_on_oom, free_page_reporting };
        let balloon = Balloon::new(options)
            .map_err(|e| self.keys.about(&self.key("model"), "cannot make the balloon").cause(&e))?;
        Ok(Box::new(balloon))
    }

    fn vsock(&self, plan: &device::Vsock) -> Made {
        let options = VsockOptions { cid: plan.cid, socket: plan.socket.clone() };
        let vsock = Vsock::new(options).map_err(|e| {
            let hint = "its folder must exist, and this user may write there";
            self.blame("socket", &e, Some(hint.to_owned()))
        })?;
        Ok(Box::new(vsock))
    }

    fn block(&self, plan: &device::Block) -> Made {
        let options = RawOptions {
            read_only: plan.read_only,
            direct: plan.direct,
            aio: match plan.aio {
                Aio::IoUring => parador_block::Aio::IoUring,
                Aio::Threads => parador_block::Aio::Threads,
                Aio::Sync => parador_block::Aio::Sync,
            },
            ..RawOptions::new(&plan.path)
        };
        let image = Image::open(&options).map_err(|e| self.blame("path", &e, e.hint()))?;
        let options = BlkOptions {
            serial: plan.serial.clone(),
            queues: plan.queues,
            queue_size: plan.queue_size,
            block_sizes: plan.sector_size,
            sync: plan.sync,
            name: self.device.id.clone(),
            ..BlkOptions::new(image)
        };
        Ok(Box::new(Blk::new(options).map_err(|e| {
            use parador_devices::blk::BlkError;
            let key = match e {
                BlkError::Serial(_) => "ser",
                BlkError::Queues(_) => "queues",
                BlkError::QueueSize(_) => "queue_size",
                BlkError::BlockSizes { .. } => "sectorsize",
                _ => "path",
            };
            self.blame(key, &e, None)
        })?))
    }

    fn net(&self, plan: &device::Net) -> Made {
        let pairs = usize::from(plan.queue_pairs);
        let taps = match &plan.tap {
            device::Tap::Name(name) => Tap::open(name, pairs).map_err(|e| {
                let hint = format!(
                    "it must exist and be this user's, with as many queues: \
                     ip tuntap add {name} mode tap vnet_hdr{} user $USER",
                    if pairs > 1 { " multi_queue" } else { "" }
                );
                about(self.keys, &self.key("tap.name"), &e, Some(hint))
            })?,
            device::Tap::Descriptor(fd) => {
                let tap = take_descriptor(*fd).map_err(|e| {
                    let message = format!("descriptor {fd} cannot be taken");
                    let hint = "whoever starts this process opens it and lets it be inherited";
                    self.keys.about(&self.key("fd"), message).cause(&e).hint(hint)
                })?;
                vec![Tap::from_fd(tap).map_err(|e| self.blame("fd", &e, None))?]
            }
        };
        let mac = plan.mac.unwrap_or_else(|| derived_mac(self.plan, &self.device.id));
        let options = NetOptions { taps, mac, mtu: plan.mtu };
        Ok(Box::new(Net::new(options).map_err(|e| self.blame("model", &e, None))?))
    }

    fn console(&mut self, endpoint: &Endpoint) -> Made {
        let backend = match endpoint {
            Endpoint::None => Backend::Null,
            Endpoint::Pty => Backend::Pty,
            Endpoint::File(path) => Backend::File(path.into()),
            Endpoint::Unix(path) => Backend::Socket(path.into()),
            Endpoint::Stdio => match (self.stdio.input.take(), self.stdio.output.take()) {
                (Some(input), Some(output)) => Backend::Stdio { input, output },
                (None, Some(output)) => {
                    Backend::Stdio { input: nothing().map_err(|e| self.unopened(&e))?, output }
                }
                (_, None) => Backend::Null,
            },
        };
        let on_stdio = matches!(backend, Backend::Stdio { .. });
        let size = self
            .stdio
            .size
            .filter(|_| on_stdio)
            .map_or_else(Size::default, |(cols, rows)| Size { cols, rows });
        let console = Console::new(ConsoleOptions { backend, size })
            .map_err(|e| about(self.keys, &self.key("port.0.path"), &e, None))?;
        if on_stdio {
            self.attached.resizers.push(console.resizer());
        }
        if let Some(path) = console.pty() {
            self.attached.terminals.push((self.key("port.0.path"), path.to_owned()));
        }
        Ok(Box::new(console))
    }

    fn unopened(&self, error: &io::Error) -> Diagnostic {
        self.keys.about(&self.key("port.0.path"), "cannot connect the console").cause(error)
    }
}

/// An input that ends at once.
fn nothing() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// Takes a descriptor that this process was started with.
fn take_descriptor(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a number that is no descriptor is refused.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// An Ethernet address of the interface `id` that stays the same from one start to the next and
/// differs between machines: nothing has to be stored.
fn derived_mac(plan: &Plan, id: &str) -> [u8; 6] {
    let mut hash = Fnv::default();
    match plan.uuid {
        Some(uuid) => hash.add(&uuid),
        None => {
            // Two hosts with machines of one name share a network more often than not.
            hash.add(&std::fs::read("/etc/machine-id").unwrap_or_default());
            hash.add(plan.name.as_bytes());
        }
    }
    hash.add(&[0]);
    hash.add(id.as_bytes());
    let [.., a, b, c, d, e] = hash.0.to_be_bytes();
    // Locally administered, of one device.
    [0x02, a, b, c, d, e]
}

/// FNV-1a: of no strength, but the same in all versions.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        let file = parador_config::Source::File { name: "f", bytes: text.as_bytes() };
        let (tree, mut diagnostics) = parador_config::Tree::from_sources(&[file]);
        let keys = tree.check(&mut diagnostics);
        Plan::new(&keys, &mut diagnostics).unwrap()
    }

    #[test]
    fn addresses_stay_and_differ() {
        let plan = plan("boot.kernel=k\nuuid=12345678-9abc-4def-8123-456789abcdef\nname=a\n");
        let mac = derived_mac(&plan, "net0");
        assert_eq!(mac, [0x02, 0x9f, 0x1e, 0x24, 0xf4, 0x00], "stored nowhere, so it must not change");
        assert_ne!(mac, derived_mac(&plan, "net1"));
        let named = |name| derived_mac(&self::plan(&format!("boot.kernel=k\nname={name}\n")), "net0");
        assert_ne!(named("a"), named("b"));
        assert_eq!(named("a"), named("a"));
    }

    #[test]
    fn a_number_that_is_no_descriptor_is_refused() {
        assert_eq!(take_descriptor(60_000).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
