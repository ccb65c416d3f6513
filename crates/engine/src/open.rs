//! What a machine needs open of the host: said, and done, before there is a machine.

use std::fs::File;
use std::os::fd::OwnedFd;

use parador_block::zoned::image::ImageError;
use parador_block::{Error, Image, RawOptions};
use parador_config::{Checked, Diagnostic};

use crate::device::{Aio, Block, Model};
use crate::inherited;
use crate::launch::{about, machine_error, open_boot_file};
use crate::net::{Net, Tap};
use crate::plan::{HostFile, Plan};

/// Something that has to be open for a machine. A process that has the privileges can open it, for
/// another one that has none, and is told by [`Opening::key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening<'a> {
    /// The key that takes the descriptor, or descriptors, of it.
    pub key: String,
    /// What it is.
    pub what: Openable<'a>,
    /// The device that has a process of its own, which takes the descriptors; `None`: the machine's.
    pub isolated: Option<&'a str>,
}

/// What can be opened for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Openable<'a> {
    /// `/dev/kvm`.
    Kvm,
    /// The kernel or the initial RAM disk, for reading.
    Boot(&'a HostFile),
    /// A disk's image.
    Image(&'a Block),
    /// A network interface: one descriptor for each pair of its queues.
    Interface {
        /// The device it is for.
        id: &'a str,
        /// The interface.
        net: &'a Net,
    },
    /// Nothing: it is open already, at these descriptors.
    Inherited(Vec<i32>),
}

impl Plan {
    /// All that has to be open for the machine, in a fixed order.
    #[must_use]
    pub fn openings(&self) -> Vec<Opening<'_>> {
        let opening = |key: &str, fd: Option<i32>, what| {
            let what = fd.map_or(what, |fd| Openable::Inherited(vec![fd]));
            Opening { key: key.to_owned(), what, isolated: None }
        };
        let mut openings = vec![
            opening("kvm.fd", self.kvm, Openable::Kvm),
            opening("boot.kernel_fd", self.boot.kernel.fd, Openable::Boot(&self.boot.kernel)),
        ];
        openings.extend(
            self.boot.initrd.iter().map(|file| opening("boot.initrd_fd", file.fd, Openable::Boot(file))),
        );
        for device in &self.devices {
            let key = format!("device.{}.fd", device.id);
            let before = openings.len();
            match &device.model {
                Model::Block(block) => openings.push(opening(&key, block.image.fd, Openable::Image(block))),
                Model::Net(net) => openings.push(match &net.tap {
                    Tap::Interface(_) => opening(&key, None, Openable::Interface { id: &device.id, net }),
                    Tap::Descriptors(fds) => {
                        Opening { key, what: Openable::Inherited(fds.clone()), isolated: None }
                    }
                }),
                Model::Rng(_)
                | Model::Console(_)
                | Model::Vsock(_)
                | Model::Balloon(_)
                | Model::Remote(_) => {}
            }
            if device.isolated {
                openings[before..].iter_mut().for_each(|opening| opening.isolated = Some(&device.id));
            }
        }
        openings
    }
}

impl Opening<'_> {
    /// How many descriptors it gives.
    #[must_use]
    pub fn count(&self) -> usize {
        match &self.what {
            Openable::Kvm | Openable::Boot(_) | Openable::Image(_) => 1,
            Openable::Interface { net, .. } => usize::from(net.queue_pairs),
            Openable::Inherited(fds) => fds.len(),
        }
    }

    /// Opens it; [`Openable::Interface`] is for whoever makes interfaces, and gives nothing here.
    ///
    /// # Errors
    /// What the host lacks, and the key that asks for it.
    pub fn open(&self, keys: &Checked) -> Result<Vec<OwnedFd>, Diagnostic> {
        Ok(match &self.what {
            Openable::Kvm => {
                vec![parador_machine::open_kvm().map_err(|e| machine_error(keys, &e.into()))?]
            }
            Openable::Boot(file) => {
                vec![open_boot_file(keys, self.key.trim_end_matches("_fd"), file)?.file.into()]
            }
            Openable::Image(block) => vec![open_image(keys, &self.key, block)?.into()],
            Openable::Interface { .. } => Vec::new(),
            Openable::Inherited(fds) => {
                fds.iter().map(|fd| inherited::take(keys, &self.key, *fd)).collect::<Result<_, _>>()?
            }
        })
    }

    /// Whether somebody else has it: an image that is in use, as far as one can see without taking it.
    ///
    /// # Errors
    /// As [`Opening::open`].
    pub fn is_taken(&self, keys: &Checked) -> Result<bool, Diagnostic> {
        let Openable::Image(block) = &self.what else { return Ok(false) };
        let file = open_image(keys, &self.key, block)?;
        Ok(Image::is_locked(&file, block.read_only).unwrap_or(false))
    }
}

/// How the image of `block` is opened.
pub(crate) fn image_options(block: &Block) -> RawOptions {
    RawOptions {
        read_only: block.read_only,
        direct: block.direct,
        aio: match block.aio {
            Aio::IoUring => parador_block::Aio::IoUring,
            Aio::Threads => parador_block::Aio::Threads,
            Aio::Sync => parador_block::Aio::Sync,
        },
        power_cut: block.zones.as_ref().is_some_and(|zones| zones.power_cut),
        ..RawOptions::new(&block.image.path)
    }
}

fn open_image(keys: &Checked, fd_key: &str, block: &Block) -> Result<File, Diagnostic> {
    let path_key = format!("{}.path", fd_key.trim_end_matches(".fd"));
    Image::open_file(&image_options(block)).map_err(|e| about(keys, &path_key, &e, image_hint(block, &e)))
}

/// What to do about an image of `block` that does not open.
pub(crate) fn image_hint(block: &Block, error: &Error) -> Option<String> {
    let Some(zones) = &block.zones else { return error.hint() };
    match error {
        Error::Missing { .. } if zones.of_host => Some("name a block device of this host".to_owned()),
        Error::Missing { path } => Some(format!("make one with `{}`", zones.command(path))),
        Error::Zoned { source: ImageError::NotAnImage, .. } => Some(
            "leave `zoned` out for a raw disk, say `passthrough` for a block device with zones; \
             `parador image create --zoned` makes an image"
                .to_owned(),
        ),
        _ => error.hint(),
    }
}
