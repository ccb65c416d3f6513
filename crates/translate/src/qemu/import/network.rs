//! Networks: `-netdev`, and the older `-nic` and `-net`; and `-virtfs`, which is made alike.

use super::super::bag::Bag;
use super::super::options::Opt;
use super::{Front, Import};

impl Import {
    /// `-nic TYPE,model=MODEL,…`: a device and what it is connected to, in one.
    pub(super) fn nic(&mut self, index: usize, option: Opt) {
        let Some(bag) = self.bag(&option.value, "type") else { return };
        self.network(index, bag, None, option);
    }

    /// `-net nic` and `-net TYPE`, two options for what `-nic` says in one.
    pub(super) fn net(&mut self, index: usize, option: Opt) {
        let Some(bag) = self.bag(&option.value, "type") else { return };
        let nic = bag.peek("type").as_deref() == Some("nic");
        let list = if nic { &mut self.whole.nics } else { &mut self.whole.peers };
        list.push((Front { index, bag, words: option.words.clone() }, option));
    }

    /// Connects the one `-net nic` with the one `-net` of another type; of several, all would be on
    /// one hub, and they are kept.
    pub(super) fn pair_legacy_networks(&mut self) {
        let mut nics = std::mem::take(&mut self.whole.nics);
        let mut peers = std::mem::take(&mut self.whole.peers);
        if nics.len() == 1 && peers.len() == 1 {
            let ((nic, _), (peer, mut option)) = (nics.remove(0), peers.remove(0));
            option.words.splice(0..0, nic.words);
            self.network(peer.index, peer.bag, Some(nic.bag), option);
            return;
        }
        for (front, _) in nics.into_iter().chain(peers) {
            self.keep(front.index, front.words);
        }
    }

    fn network(&mut self, index: usize, mut back: Bag, nic: Option<Bag>, option: Opt) {
        let mut nic = nic.unwrap_or_else(|| Bag::new(back.origin.clone()));
        let mut front = Bag::new(nic.origin.clone());
        let mut either = |property: &str| nic.take(property).or_else(|| back.take(property));
        let model = either("model").unwrap_or_else(|| "e1000e".to_owned());
        let driver = if model == "virtio" { "virtio-net-pci" } else { &model };
        front.put("driver", driver);
        let id = either("id");
        for (theirs, property) in [("mac", "mac"), ("macaddr", "mac"), ("addr", "addr")] {
            if let Some(value) = either(theirs) {
                front.put(property, value.as_str());
            }
        }
        nic.take("type");
        nic.take("netdev");
        nic.pour(&mut front, "");
        let name = format!("#{index}");
        front.put("netdev", name.as_str());
        if let Some(id) = id {
            front.put("id", id.as_str());
        }
        self.part(index, "netdev", "id", back.with("id", name.as_str()), option.words.clone());
        self.front(index, front, option.words);
    }

    /// `-virtfs TYPE,…,mount_tag=TAG`: a folder and its device, in one.
    pub(super) fn virtfs(&mut self, index: usize, option: Opt) {
        let Some(mut back) = self.bag(&option.value, "fsdriver") else { return };
        let name = format!("#{index}");
        let mut front =
            Bag::new(back.origin.clone()).with("driver", "virtio-9p-pci").with("fsdev", name.as_str());
        for property in ["mount_tag", "id"] {
            if let Some(value) = back.take(property) {
                front.put(property, value.as_str());
            }
        }
        self.part(index, "fsdev", "id", back.with("id", name.as_str()), option.words.clone());
        self.front(index, front, option.words);
    }
}
