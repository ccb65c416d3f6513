//! The control queue (virtio 1.3 §5.1.6.5): which frames the driver wants, and over how many queues.

use std::sync::Arc;

use parador_virtio::{Queue, QueueHandler, Reader, RingError};

use super::tap::{MAX_FILTER, Tap};
use super::{
    F_CTRL_GUEST_OFFLOADS, F_CTRL_MAC_ADDR, F_CTRL_RX, F_GUEST_ANNOUNCE, F_MQ, GUEST_OFFLOADS, Link, Mac,
    is_station, tap_offloads,
};

/// What the driver is told (§5.1.6.5).
const OK: u8 = 0;
const ERR: u8 = 1;

/// Commands: class and number (§5.1.6.5.1 and following).
const RX_PROMISC: (u8, u8) = (0, 0);
const RX_ALLMULTI: (u8, u8) = (0, 1);
const MAC_TABLE_SET: (u8, u8) = (1, 0);
const MAC_ADDR_SET: (u8, u8) = (1, 1);
const ANNOUNCE_ACK: (u8, u8) = (3, 0);
const MQ_VQ_PAIRS_SET: (u8, u8) = (4, 0);
const GUEST_OFFLOADS_SET: (u8, u8) = (5, 0);

const BROADCAST: Mac = [0xff; 6];
/// The most addresses kept of each of the driver's two tables, so that both fit the TAP's filter
/// with the device's own address and the broadcast.
const MAX_TABLE: usize = MAX_FILTER / 2 - 1;

/// Carries out what the driver asks for.
pub(super) struct Control {
    taps: Vec<Arc<Tap>>,
    link: Link,
    filter: Filter,
    /// How many of the TAP's queues are attached, from the first.
    attached: usize,
}

/// Which frames the driver wants (§5.1.6.5.1, §5.1.6.5.2).
#[derive(Debug, Default)]
struct Filter {
    promiscuous: bool,
    all_multicast: bool,
    unicast: Table,
    multicast: Table,
}

/// Addresses the driver listens to, as many as are kept.
#[derive(Debug, Default)]
struct Table {
    addresses: Vec<Mac>,
    /// There were more.
    overflow: bool,
}

impl Control {
    /// Made with one queue of the TAP attached, the first.
    pub(super) fn new(taps: Vec<Arc<Tap>>, link: Link) -> Self {
        Self { taps, link, filter: Filter::default(), attached: 1 }
    }

    /// Forgets what a driver asked for: one pair of queues, and every frame.
    pub(super) fn reset(&mut self) {
        self.filter = Filter::default();
        self.attach(1);
        if let Err(error) = self.taps[0].set_filter(false, &[]) {
            tracing::debug!(%error, "the TAP does not filter");
        }
    }

    fn command(&mut self, features: u64, reader: &mut Reader<'_>) -> Option<()> {
        let [class, number] = read(reader)?;
        let needs = |feature| (features & feature != 0).then_some(());
        match (class, number) {
            RX_PROMISC => {
                needs(F_CTRL_RX)?;
                self.filter.promiscuous = flag(reader)?;
                self.apply_filter();
            }
            RX_ALLMULTI => {
                needs(F_CTRL_RX)?;
                self.filter.all_multicast = flag(reader)?;
                self.apply_filter();
            }
            MAC_TABLE_SET => {
                needs(F_CTRL_RX)?;
                let (unicast, multicast) = (table(reader)?, table(reader)?);
                (self.filter.unicast, self.filter.multicast) = (unicast, multicast);
                self.apply_filter();
            }
            MAC_ADDR_SET => {
                needs(F_CTRL_MAC_ADDR)?;
                let mac = Some(read(reader)?).filter(|&mac| is_station(mac))?;
                self.link.set_mac(mac);
                self.apply_filter();
            }
            ANNOUNCE_ACK => {
                needs(F_GUEST_ANNOUNCE)?;
                self.link.announced();
            }
            MQ_VQ_PAIRS_SET => {
                needs(F_MQ)?;
                let pairs = usize::from(u16::from_le_bytes(read(reader)?));
                if !(1..=self.taps.len()).contains(&pairs) {
                    return None;
                }
                self.attach(pairs);
            }
            GUEST_OFFLOADS_SET => {
                needs(F_CTRL_GUEST_OFFLOADS)?;
                let wanted = u64::from_le_bytes(read(reader)?);
                let possible = GUEST_OFFLOADS.iter().fold(0, |all, (feature, _)| all | feature) & features;
                if wanted & !possible != 0 {
                    return None;
                }
                self.taps[0].set_offload(tap_offloads(wanted)).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Has the kernel drop what the driver does not want to see. Filtering is best effort
    /// (§5.1.6.5.1): where it is refused, frames too many arrive.
    fn apply_filter(&self) {
        let (all_multicast, addresses) = self.filter.addresses(self.link.mac());
        if let Err(error) = self.taps[0].set_filter(all_multicast, &addresses) {
            tracing::trace!(%error, "the TAP does not filter");
        }
    }

    /// Has the kernel use the first `count` queues of the TAP.
    fn attach(&mut self, count: usize) {
        for (index, tap) in self.taps.iter().enumerate() {
            let (was, is) = (index < self.attached, index < count);
            if was != is
                && let Err(error) = tap.set_attached(is)
            {
                tracing::debug!(%error, index, "a queue of the TAP cannot be switched");
            }
        }
        self.attached = count;
    }
}

impl QueueHandler for Control {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let features = queue.features();
        while let Some(chain) = queue.pop()? {
            let answer = if self.command(features, &mut chain.reader()).is_some() { OK } else { ERR };
            let mut writer = chain.writer();
            // A driver that wants no answer gets none.
            let written = writer.write(&[answer]);
            queue.push(chain, u32::try_from(written).unwrap_or(0));
        }
        Ok(())
    }
}

impl Filter {
    /// The filter for the TAP, of a device with address `mac`: all multicast frames or not, and the
    /// addresses that pass beside; with none, everything does.
    fn addresses(&self, mac: Mac) -> (bool, Vec<Mac>) {
        let Self { promiscuous, all_multicast, unicast, multicast } = self;
        if *promiscuous || unicast.overflow {
            return (false, Vec::new());
        }
        // The kernel compares those that come first exactly.
        let mut addresses = vec![mac, BROADCAST];
        addresses.extend(&unicast.addresses);
        addresses.extend(&multicast.addresses);
        (*all_multicast || multicast.overflow, addresses)
    }
}

/// Reads a table of addresses: le32 count, then as many. `None` when it is cut short.
fn table(reader: &mut Reader<'_>) -> Option<Table> {
    let count = usize::try_from(u32::from_le_bytes(read(reader)?)).ok()?;
    let length = count.checked_mul(size_of::<Mac>())?;
    let kept = count.min(MAX_TABLE);
    if length > reader.remaining() {
        return None;
    }
    let addresses = (0..kept).map(|_| read(reader)).collect::<Option<Vec<Mac>>>()?;
    reader.skip(length - kept * size_of::<Mac>());
    Some(Table { addresses, overflow: count > kept })
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    let [value] = read(reader)?;
    Some(value != 0)
}

fn read<const N: usize>(reader: &mut Reader<'_>) -> Option<[u8; N]> {
    let mut data = [0; N];
    reader.read_exact(&mut data)?;
    Some(data)
}
