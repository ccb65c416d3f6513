//! Memory: what it is made of, and how it is divided.

use std::collections::BTreeSet;

use super::super::bag::{Bag, Value};
use super::super::form::{bytes, memory, switch};
use super::{Export, empty};

impl Export<'_> {
    /// The objects that the machine's memory is, and its domains.
    pub(super) fn memory(&mut self, machine: &mut Bag) {
        let domains: BTreeSet<u64> =
            self.keys.below("domains").into_iter().filter_map(|number| number.parse().ok()).collect();
        let on = |this: &mut Self, key| this.keys.take(key).and_then(switch) == Some(true);
        let shared = on(self, "memory.shared");
        let prefault = on(self, "memory.prefault");
        let mut object = empty();
        match self.keys.take("memory.backing") {
            Some("memfd") => object.put("qom-type", "memory-backend-memfd"),
            Some("hugetlb") => {
                object.put("qom-type", "memory-backend-memfd");
                object.put("hugetlb", true);
                let size =
                    self.keys.take("memory.page_size").and_then(|size| bytes(size, 1)).unwrap_or(2 << 20);
                object.put("hugetlbsize", Value::Int(size));
            }
            Some("file") => {
                object.put("qom-type", "memory-backend-file");
                object.put("mem-path", self.keys.take("memory.path").unwrap_or("/dev/shm"));
            }
            _ => object.put("qom-type", "memory-backend-ram"),
        }
        let plain = object.peek("qom-type").as_deref() == Some("memory-backend-ram");
        object.put("share", shared);
        if prefault {
            object.put("prealloc", true);
        }
        let plain = plain && !shared && !prefault;
        let mut divided = false;
        let mut nodes = Vec::new();
        for number in &domains {
            let mut node = empty().with("type", "node").with("nodeid", number.to_string().as_str());
            let size = self.keys.take(&format!("domains.{number}.size")).and_then(memory);
            if let Some(size) = size {
                divided = true;
                let name = format!("ram{number}");
                self.object(&name, &object, size);
                node.put("memdev", name.as_str());
            }
            let cpus = self.keys.take(&format!("domains.{number}.cpus")).unwrap_or_default();
            cpus.split(',').filter(|range| !range.is_empty()).for_each(|range| node.put("cpus", range));
            nodes.push((number.to_string(), node));
        }
        if !divided && (!plain || self.is_set("object", "ram0")) {
            let size = self.keys.peek("memory.size").and_then(memory).unwrap_or(256 << 20);
            self.object("ram0", &object, size);
            machine.put("memory-backend", "ram0");
        }
        nodes.into_iter().for_each(|(number, node)| self.named("numa", "type", &number, node));
    }

    fn object(&mut self, name: &str, like: &Bag, size: u64) {
        let mut bag = empty();
        let mut like = like.clone();
        bag.put("qom-type", like.take("qom-type").unwrap_or_default().as_str());
        bag.put("id", name);
        bag.put("size", Value::Int(size));
        like.pour(&mut bag, "");
        self.named("object", "qom-type", name, bag);
    }
}
