//! From what a device will be to the device, with what it needs of the host opened.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use parador_block::Image;
use parador_config::{Checked, Diagnostic, Endpoint};
use parador_devices::balloon::{Balloon, BalloonOptions};
use parador_devices::blk::{Blk, BlkOptions};
use parador_devices::console::{Backend, Console, ConsoleOptions, Resizer, Size};
use parador_devices::net::tap::{self, Tap};
use parador_devices::net::{Net, NetOptions};
use parador_devices::rng::{Rng, RngOptions};
use parador_devices::vsock::{Vsock, VsockOptions};
use parador_vhost_user::frontend::{self, RemoteError, RemoteOptions};
use parador_virtio::{VirtioDevice, ids};

use crate::device::{self, Model};
use crate::inherited;
use crate::launch::{Stdio, about};
use crate::net::{self, Create, Interface, InterfaceKind};
use crate::open::{image_hint, image_options};
use crate::plan::Plan;
use crate::remote::Remote;

/// A device that was made, and what is left to know of it.
pub(crate) struct Made {
    /// The device.
    pub(crate) device: Box<dyn VirtioDevice>,
    /// Of a console on standard input and output.
    pub(crate) resizer: Option<Resizer>,
    /// The pseudo-terminal that was made, and for which key.
    pub(crate) terminal: Option<(String, PathBuf)>,
    /// Of a disk.
    pub(crate) image: Option<Image>,
}

/// Whose device it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    /// What messages and keys call the device.
    pub(crate) id: &'a str,
    /// The machine, unless the device has a process of its own.
    pub(crate) machine: Option<&'a Plan>,
}

/// Makes the device that `model` says. `keys` are those it was decided from.
pub(crate) fn make(
    model: &Model,
    owner: Owner<'_>,
    keys: &Checked,
    stdio: &mut Stdio,
) -> Result<Made, Diagnostic> {
    let maker = Maker { owner, keys };
    let device = match model {
        Model::Block(block) => {
            let (device, image) = maker.block(block)?;
            return Ok(Made { device, resizer: None, terminal: None, image: Some(image) });
        }
        Model::Net(net) => maker.net(net)?,
        Model::Rng(path) => maker.rng(path.clone())?,
        Model::Console(endpoint) => return maker.console(endpoint, stdio),
        Model::Balloon(plan) => maker.balloon(plan)?,
        Model::Vsock(plan) => maker.vsock(plan)?,
        Model::Remote(plan) => maker.remote(plan)?,
    };
    Ok(Made { device, resizer: None, terminal: None, image: None })
}

struct Maker<'a> {
    owner: Owner<'a>,
    keys: &'a Checked,
}

type Device = Result<Box<dyn VirtioDevice>, Diagnostic>;

impl Maker<'_> {
    fn key(&self, name: &str) -> String {
        format!("device.{}.{name}", self.owner.id)
    }

    /// Says `error` about the key `name` of the device.
    fn blame(&self, name: &str, error: &dyn Error, hint: Option<String>) -> Diagnostic {
        about(self.keys, &self.key(name), error, hint)
    }

    fn rng(&self, path: Option<PathBuf>) -> Device {
        let rng = Rng::new(RngOptions { path }).map_err(|e| {
            let hint = "leave it out for the source of the host's kernel, or name one such as /dev/hwrng";
            self.blame("path", &e, Some(hint.to_owned()))
        })?;
        Ok(Box::new(rng))
    }

    fn balloon(&self, plan: &device::Balloon) -> Device {
        let device::Balloon { size, deflate_on_oom, free_page_reporting } = *plan;
        let options = BalloonOptions { target: size, deflate_on_oom, free_page_reporting };
        let balloon = Balloon::new(options)
            .map_err(|e| self.keys.about(&self.key("model"), "cannot make the balloon").cause(&e))?;
        Ok(Box::new(balloon))
    }

    fn vsock(&self, plan: &device::Vsock) -> Device {
        let options = VsockOptions { cid: plan.cid, socket: plan.socket.clone() };
        let vsock = Vsock::new(options).map_err(|e| {
            let hint = "its folder must exist, and this user may write there";
            self.blame("socket", &e, Some(hint.to_owned()))
        })?;
        Ok(Box::new(vsock))
    }

    /// Connects to the process that does the device's work, as soon as there is one.
    fn remote(&self, plan: &Remote) -> Device {
        if plan.folder.is_some() {
            let hint = "use `parador run`; or start virtiofsd yourself, and set `socket` instead of `path`";
            let message = "`parador vmm` starts no virtiofsd";
            return Err(self.keys.about(&self.key("path"), message).hint(hint));
        }
        let machine_id = std::fs::read("/etc/machine-id").unwrap_or_default();
        let Owner { id, machine } = self.owner;
        let is_net = plan.kind == ids::VIRTIO_ID_NET && self.keys.is_set(&self.key("backend"));
        let spare_mac = machine.filter(|_| is_net).map(|machine| net::spare_mac(machine, id, &machine_id));
        let options = RemoteOptions {
            kind: plan.kind,
            path: plan.socket.clone(),
            name: id.to_owned(),
            queue_sizes: plan.queue_sizes.as_deref().map(Into::into),
            queues: plan.queues,
            config_len: plan.config_len,
            mac: plan.mac,
            spare_mac,
            tag: plan.tag.clone(),
            ..RemoteOptions::default()
        };
        let remote = frontend::Remote::connect(options).map_err(|e| {
            let key = match e {
                RemoteError::Kind(_) => "virtio_type",
                RemoteError::TooFewQueues { .. } | RemoteError::Queues { .. } if plan.queues.is_some() => {
                    "queues"
                }
                _ => "socket",
            };
            self.blame(key, &e, None)
        })?;
        Ok(Box::new(remote))
    }

    fn block(&self, plan: &device::Block) -> Result<(Box<dyn VirtioDevice>, Image), Diagnostic> {
        let image = self.image(plan)?;
        let options = BlkOptions {
            serial: plan.serial.clone(),
            queues: plan.queues,
            queue_size: plan.queue_size,
            block_sizes: plan.sector_size,
            sync: plan.sync,
            name: self.owner.id.to_owned(),
            ..BlkOptions::new(image.clone())
        };
        let blk = Blk::new(options).map_err(|e| {
            use parador_devices::blk::BlkError;
            let key = match e {
                BlkError::Serial(_) => "ser",
                BlkError::Queues(_) => "queues",
                BlkError::QueueSize(_) => "queue_size",
                BlkError::BlockSizes { .. } | BlkError::ZonedBlockSizes { .. } => "sectorsize",
                _ => "path",
            };
            self.blame(key, &e, None)
        })?;
        Ok((Box::new(blk), image))
    }

    /// Opens the image of a disk, and holds its zones against those that were asked for.
    fn image(&self, plan: &device::Block) -> Result<Image, Diagnostic> {
        let options = image_options(plan);
        let wrong = |e: parador_block::Error| self.blame("path", &e, image_hint(plan, &e));
        let file = match plan.image.fd {
            Some(fd) => inherited::take(self.keys, &self.key("fd"), fd)?.into(),
            None => Image::open_file(&options).map_err(wrong)?,
        };
        let Some(zones) = &plan.zones else { return Image::from_file(file, &options).map_err(wrong) };
        if zones.of_host {
            return Image::from_file_zoned_device(file, &options).map_err(wrong);
        }
        let image = Image::from_file_zoned(file, &options).map_err(wrong)?;
        let differ = image.zoned().and_then(|zoned| zones.differ(zoned.geometry()));
        match differ {
            None => Ok(image),
            Some((name, asked, has)) => {
                let message = format!("`{}` is {asked}, but the image has {has}", self.key(name));
                let hint =
                    format!("leave it out, or make another image: `{}`", zones.command(&plan.image.path));
                Err(self.keys.about(&self.key(name), message).hint(hint))
            }
        }
    }

    fn net(&self, plan: &net::Net) -> Device {
        let taps = match &plan.tap {
            net::Tap::Interface(interface) => self.interface(interface, plan.queue_pairs)?,
            net::Tap::Descriptors(fds) => {
                let tap = |fd: &i32| {
                    let tap = inherited::take(self.keys, &self.key("fd"), *fd)?;
                    Tap::from_fd(tap).map_err(|e| self.blame("fd", &e, None))
                };
                fds.iter().map(tap).collect::<Result<_, _>>()?
            }
        };
        let machine_id = std::fs::read("/etc/machine-id").unwrap_or_default();
        let Owner { id, machine } = self.owner;
        let mac = match machine {
            Some(machine) => net::mac(machine, id, plan, &machine_id),
            None => net::mac_alone(plan, &machine_id),
        };
        let options = NetOptions { taps, mac, mtu: plan.mtu };
        Ok(Box::new(Net::new(options).map_err(|e| self.blame("model", &e, None))?))
    }

    /// Opens an interface that is there. To make one takes privileges, which are the runner's.
    fn interface(&self, interface: &Interface, pairs: u16) -> Result<Vec<Tap>, Diagnostic> {
        let Interface { name, create, kind } = interface;
        let made_by_runner = match kind {
            InterfaceKind::Tap { bridge: None, owner: None } if *create != Create::Always => {
                !tap::exists(name)
            }
            InterfaceKind::Tap { .. } | InterfaceKind::Macvtap { .. } => true,
        };
        let multi_queue = if pairs > 1 { " multi_queue" } else { "" };
        let by_hand = format!("ip tuntap add {name} mode tap vnet_hdr{multi_queue} user $USER");
        if made_by_runner {
            let named = self.key("tap.name");
            let key = if self.keys.is_set(&named) { named } else { self.key("model") };
            let hint = format!("`parador run` makes and joins interfaces; or make it yourself: {by_hand}");
            let message = format!("there is no interface {name} for `parador vmm` to open");
            return Err(self.keys.about(&key, message).hint(hint));
        }
        Tap::open(name, usize::from(pairs)).map_err(|e| {
            let hint = format!("it must be this user's, with as many queues: {by_hand}");
            self.blame("tap.name", &e, Some(hint))
        })
    }

    fn console(&self, endpoint: &Endpoint, stdio: &mut Stdio) -> Result<Made, Diagnostic> {
        let backend = match endpoint {
            Endpoint::None => Backend::Null,
            Endpoint::Pty => Backend::Pty,
            Endpoint::File(path) => Backend::File(path.into()),
            Endpoint::Unix(path) => Backend::Socket(path.into()),
            Endpoint::Stdio => match (stdio.input.take(), stdio.output.take()) {
                (Some(input), Some(output)) => Backend::Stdio { input, output },
                (None, Some(output)) => {
                    Backend::Stdio { input: nothing().map_err(|e| self.unopened(&e))?, output }
                }
                (_, None) => Backend::Null,
            },
        };
        let on_stdio = matches!(backend, Backend::Stdio { .. });
        let size =
            stdio.size.filter(|_| on_stdio).map_or_else(Size::default, |(cols, rows)| Size { cols, rows });
        let console = Console::new(ConsoleOptions { backend, size })
            .map_err(|e| about(self.keys, &self.key("port.0.path"), &e, None))?;
        let resizer = on_stdio.then(|| console.resizer());
        let terminal = console.pty().map(|path| (self.key("port.0.path"), path.to_owned()));
        Ok(Made { device: Box::new(console), resizer, terminal, image: None })
    }

    fn unopened(&self, error: &io::Error) -> Diagnostic {
        self.keys.about(&self.key("port.0.path"), "cannot connect the console").cause(error)
    }
}

/// An input that ends at once.
fn nothing() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_is_told_of_a_balloon_is_so() {
        for free_page_reporting in [false, true] {
            let plan = device::Balloon { size: 0, deflate_on_oom: true, free_page_reporting };
            let options = BalloonOptions { target: 0, deflate_on_oom: true, free_page_reporting };
            let made = Balloon::new(options).unwrap();
            assert_eq!(*plan.queue_sizes(), *made.identity().queue_sizes);
            assert_eq!(device::BALLOON_CONFIG, made.identity().config_len);
        }
    }
}
