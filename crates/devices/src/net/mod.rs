//! The network device (virtio 1.3 §5.1) on a TAP interface of the host.
//!
//! One or more pairs of queues, each pair on its own queue of the TAP, and a control queue. Frames go
//! between guest memory and the TAP in one system call each, with the header in front of them that
//! the kernel and virtio share: checksums and segmentation are the business of whoever does them best.

mod control;
mod frames;
pub mod tap;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parador_virtio::ids::VIRTIO_ID_NET;
use parador_virtio::{Identity, Interrupt, Lane, QueueSetup, QueueState, VirtioDevice};

use crate::config_space;
use control::Control;
use frames::{Receive, Transmit};
use tap::Tap;

/// A hardware address.
pub type Mac = [u8; 6];

/// The most pairs of queues a device has.
pub const MAX_PAIRS: usize = 64;
/// The smallest MTU a device can tell (§5.1.4.1).
pub const MIN_MTU: u16 = 68;

/// Feature bits (§5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_GUEST_TSO4: u64 = 1 << 7;
const F_GUEST_TSO6: u64 = 1 << 8;
const F_GUEST_ECN: u64 = 1 << 9;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_HOST_ECN: u64 = 1 << 13;
const F_MRG_RXBUF: u64 = 1 << 15;
const F_STATUS: u64 = 1 << 16;
const F_CTRL_VQ: u64 = 1 << 17;
const F_CTRL_RX: u64 = 1 << 18;
const F_GUEST_ANNOUNCE: u64 = 1 << 21;
const F_MQ: u64 = 1 << 22;
const F_CTRL_MAC_ADDR: u64 = 1 << 23;
const F_GUEST_USO4: u64 = 1 << 54;
const F_GUEST_USO6: u64 = 1 << 55;
const F_HOST_USO: u64 = 1 << 56;

/// What every TAP can do.
const OFFERED: u64 = F_CSUM
    | F_GUEST_CSUM
    | F_CTRL_GUEST_OFFLOADS
    | F_MAC
    | F_GUEST_TSO4
    | F_GUEST_TSO6
    | F_GUEST_ECN
    | F_HOST_TSO4
    | F_HOST_TSO6
    | F_HOST_ECN
    | F_MRG_RXBUF
    | F_STATUS
    | F_CTRL_VQ
    | F_CTRL_RX
    | F_GUEST_ANNOUNCE
    | F_CTRL_MAC_ADDR;

/// Features that say which unfinished frames the driver takes, and what the TAP calls each.
const GUEST_OFFLOADS: [(u64, libc::c_uint); 6] = [
    (F_GUEST_CSUM, libc::TUN_F_CSUM),
    (F_GUEST_TSO4, libc::TUN_F_TSO4),
    (F_GUEST_TSO6, libc::TUN_F_TSO6),
    (F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (F_GUEST_USO4, libc::TUN_F_USO4),
    (F_GUEST_USO6, libc::TUN_F_USO6),
];

/// mac: 6 bytes; status, max_virtqueue_pairs, mtu: le16 (§5.1.4).
const CONFIG_LEN: usize = 12;
const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;

const DATA_QUEUE_SIZE: u16 = 256;
const CONTROL_QUEUE_SIZE: u16 = 64;

/// How a network device is to be.
#[derive(Debug)]
pub struct NetOptions {
    /// The queues of one TAP interface, one for each pair of queues the driver can use.
    pub taps: Vec<Tap>,
    /// The device's address: not zero, not a multicast address.
    pub mac: Mac,
    /// The MTU that the driver is told to use, [`MIN_MTU`] or more; `None` leaves it the choice.
    pub mtu: Option<u16>,
}

/// A network device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No TAP, or too many queues of it.
    #[error("a network device takes 1 to {MAX_PAIRS} queues of a TAP, not {0}")]
    Pairs(usize),
    /// Several descriptors that are not queues of one interface.
    #[error("{0} and {1} are not queues of one multi-queue TAP interface")]
    DifferentTaps(String, String),
    /// An address that cannot be a device's own.
    #[error("{0:02x?} is not the address of a single device")]
    Mac(Mac),
    /// An MTU that virtio cannot tell.
    #[error("an MTU of {0} is less than {MIN_MTU}")]
    Mtu(u16),
    /// The kernel refuses something.
    #[error("cannot use TAP interface {0}")]
    Tap(String, #[source] io::Error),
}

/// A network device.
pub struct Net {
    identity: Identity,
    mtu: u16,
    taps: Vec<Arc<Tap>>,
    link: Link,
    receive: Vec<Lane<Receive>>,
    transmit: Vec<Lane<Transmit>>,
    control: Lane<Control>,
    /// The features the TAP and the order of queues were last set up for.
    features: Option<u64>,
}

impl Net {
    /// Makes a device of a TAP's queues.
    ///
    /// # Errors
    /// See [`NetError`].
    pub fn new(options: NetOptions) -> Result<Self, NetError> {
        let NetOptions { taps, mac, mtu } = options;
        check(&taps, mac, mtu)?;
        let name = taps[0].name().to_owned();
        let refused = |error| NetError::Tap(name.clone(), error);

        let mut features = OFFERED;
        features |= if mtu.is_some() { F_MTU } else { 0 };
        features |= if taps.len() > 1 { F_MQ } else { 0 };
        features |= if segments_udp(&taps[0]) { F_GUEST_USO4 | F_GUEST_USO6 | F_HOST_USO } else { 0 };
        taps[0].set_offload(0).map_err(refused)?;

        let taps: Vec<Arc<Tap>> = taps.into_iter().map(Arc::new).collect();
        let mut receive = Vec::with_capacity(taps.len());
        for tap in &taps {
            receive.push(Lane::new(Receive::new(Arc::clone(tap)).map_err(refused)?));
        }
        // The kernel spreads frames over all queues that are attached, used by the driver or not.
        for tap in &taps[1..] {
            tap.set_attached(false).map_err(refused)?;
        }
        let link = Link::new(mac);
        let mut queue_sizes = vec![DATA_QUEUE_SIZE; 2 * taps.len()];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        Ok(Self {
            identity: Identity {
                kind: VIRTIO_ID_NET,
                features,
                required: 0,
                queue_sizes: queue_sizes.into(),
                config_len: CONFIG_LEN,
                ..Identity::default()
            },
            mtu: mtu.unwrap_or(0),
            link: link.clone(),
            receive,
            transmit: taps.iter().map(|tap| Lane::new(Transmit::new(Arc::clone(tap)))).collect(),
            control: Lane::new(Control::new(taps.clone(), link)),
            taps,
            features: None,
        })
    }

    /// A handle to the cable: it may be pulled and plugged from any thread, at any time.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    fn role(&self, index: u16, features: u64) -> Option<Role> {
        let index = usize::from(index);
        // Without MQ there is one pair, and the control queue follows it (§5.1.2).
        let pairs = if features & F_MQ != 0 { self.taps.len() } else { 1 };
        match (index / 2, index % 2) {
            (pair, 0) if pair < pairs => Some(Role::Receive(pair)),
            (pair, 1) if pair < pairs => Some(Role::Transmit(pair)),
            (pair, 0) if pair == pairs => Some(Role::Control),
            _ => None,
        }
    }
}

/// What a queue is for.
enum Role {
    Receive(usize),
    Transmit(usize),
    Control,
}

impl VirtioDevice for Net {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut space = [0; CONFIG_LEN];
        let pairs = u16::try_from(self.taps.len()).expect("at most MAX_PAIRS");
        space[0..6].copy_from_slice(&self.link.mac());
        space[6..8].copy_from_slice(&self.link.status().to_le_bytes());
        space[8..10].copy_from_slice(&pairs.to_le_bytes());
        space[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        config_space::read(&space, offset, data);
    }

    fn on_config_change(&mut self, interrupt: Interrupt) {
        self.link.lock().changed = interrupt;
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        let features = setup.features;
        let role = self.role(setup.index, features).ok_or(io::ErrorKind::InvalidInput)?;
        if self.features != Some(features) {
            self.taps[0].set_offload(tap_offloads(features))?;
            self.features = Some(features);
        }
        match role {
            Role::Receive(pair) => self.receive[pair].start(&format!("net-rx{pair}"), setup),
            Role::Transmit(pair) => self.transmit[pair].start(&format!("net-tx{pair}"), setup),
            Role::Control => self.control.start("net-ctl", setup),
        }
    }

    fn stop_queue(&mut self, index: u16) -> Option<QueueState> {
        match self.role(index, self.features?)? {
            Role::Receive(pair) => self.receive[pair].stop(),
            Role::Transmit(pair) => self.transmit[pair].stop(),
            Role::Control => self.control.stop(),
        }
    }

    fn reset(&mut self) {
        let Self { identity: _, mtu: _, taps, link, receive: _, transmit: _, control, features } = self;
        *features = None;
        link.reset();
        if let Some(control) = control.handler() {
            control.reset();
        }
        if let Err(error) = taps[0].set_offload(0) {
            tracing::warn!(%error, tap = taps[0].name(), "offloads stay on over a reset");
        }
    }
}

/// The cable of a network device, and what the driver is told of it. Clones are the same cable.
#[derive(Clone)]
pub struct Link(Arc<Mutex<LinkState>>);

struct LinkState {
    /// The address at the start and the one the driver has chosen since.
    own_mac: Mac,
    mac: Mac,
    up: bool,
    /// The driver is asked to tell the network where it is.
    announce: bool,
    changed: Interrupt,
}

impl Link {
    fn new(mac: Mac) -> Self {
        let changed = Interrupt::nobody();
        Self(Arc::new(Mutex::new(LinkState { own_mac: mac, mac, up: true, announce: false, changed })))
    }

    /// Plugs or pulls the cable. The driver is told; frames that move anyway are not held up.
    pub fn set_up(&self, up: bool) {
        self.change(|state| state.up = up);
    }

    /// Has the driver announce itself to the network, as after a move to another host (§5.1.6.5.4).
    pub fn announce(&self) {
        self.change(|state| state.announce = true);
    }

    fn change(&self, change: impl FnOnce(&mut LinkState)) {
        let mut state = self.lock();
        let before = (state.up, state.announce);
        change(&mut state);
        if before != (state.up, state.announce) {
            let changed = state.changed.clone();
            drop(state);
            changed.signal();
        }
    }

    fn announced(&self) {
        self.lock().announce = false;
    }

    fn status(&self) -> u16 {
        let state = self.lock();
        let up = if state.up { STATUS_LINK_UP } else { 0 };
        let announce = if state.announce { STATUS_ANNOUNCE } else { 0 };
        up | announce
    }

    fn mac(&self) -> Mac {
        self.lock().mac
    }

    fn set_mac(&self, mac: Mac) {
        self.lock().mac = mac;
    }

    fn reset(&self) {
        let mut state = self.lock();
        state.mac = state.own_mac;
        state.announce = false;
    }

    /// Never held across a call out of this file.
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(taps: &[Tap], mac: Mac, mtu: Option<u16>) -> Result<(), NetError> {
    let [first, rest @ ..] = taps else { return Err(NetError::Pairs(0)) };
    if taps.len() > MAX_PAIRS {
        return Err(NetError::Pairs(taps.len()));
    }
    let other = rest.iter().find(|tap| tap.name() != first.name() || !tap.is_multi_queue());
    if let Some(other) = other {
        return Err(NetError::DifferentTaps(first.name().to_owned(), other.name().to_owned()));
    }
    if !is_station(mac) {
        return Err(NetError::Mac(mac));
    }
    match mtu {
        Some(mtu) if mtu < MIN_MTU => Err(NetError::Mtu(mtu)),
        Some(_) | None => Ok(()),
    }
}

/// Whether an address can be that of one device: not zero, no multicast bit.
fn is_station(mac: Mac) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Which unfinished frames the TAP may hand out to a driver that accepted `features`.
fn tap_offloads(features: u64) -> libc::c_uint {
    let wanted = GUEST_OFFLOADS.iter().filter(|(feature, _)| features & feature != 0);
    let flags = wanted.fold(0, |flags, (_, flag)| flags | flag);
    // Whoever does not finish checksums does not finish segments either (§5.1.3.1).
    if flags & libc::TUN_F_CSUM == 0 { 0 } else { flags }
}

/// Whether the host's kernel can leave UDP segmentation to others (Linux 6.2).
fn segments_udp(tap: &Tap) -> bool {
    tap.set_offload(libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok()
}
