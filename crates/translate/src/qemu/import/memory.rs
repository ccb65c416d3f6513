//! Memory: what it is made of, and how it is divided.

use parador_config::{Diagnostic, Origin, Severity};

use super::super::form::{Form, switch};
use super::super::options::Opt;
use super::Import;
use crate::words::Word;

impl Import {
    /// `-numa`: nodes are understood, what else it may say is kept.
    pub(super) fn numa(&mut self, index: usize, option: Opt) {
        let Some(mut bag) = self.bag(&option.value, "type") else { return };
        if bag.take_if("type", &["node"]) {
            self.whole.nodes.push(bag);
        } else {
            self.keep(index, option.words);
        }
    }

    /// Gives the machine its memory.
    pub(super) fn memory(&mut self) {
        if let Some(path) = self.whole.path.take() {
            self.backing_file(&path.text, &path.origin);
        }
        let whole = self.whole.memory.take();
        if let Some((_, _, origin)) = &whole
            && self.whole.nodes.iter().any(|node| node.peek("memdev").is_some())
        {
            let origin = origin.clone();
            self.diagnostics.add(Severity::Error, || {
                Diagnostic::new("the machine has a `memory-backend`, and its nodes have memory of their own")
                    .at(origin)
                    .hint("QEMU takes one or the other: leave out `memory-backend`, or `memdev`")
            });
            return;
        }
        if let Some((index, id, origin)) = whole
            && self.backing("ram0", &id, &origin).is_none()
        {
            let option = Word { text: "-machine".to_owned(), origin: origin.clone() };
            self.keep(index, vec![option, Word { text: format!("memory-backend={id}"), origin }]);
        }
        for (ordinal, mut bag) in std::mem::take(&mut self.whole.nodes).into_iter().enumerate() {
            let number = bag.take("nodeid").unwrap_or_else(|| ordinal.to_string());
            let origin = bag.origin.clone();
            if let Some(size) = bag.take("mem").and_then(|size| Form::Memory.import(&size)) {
                self.set(&format!("domains.{number}.size"), size, &origin);
            }
            if let Some(id) = bag.take("memdev") {
                match self.backing(&format!("ram{number}"), &id, &origin) {
                    Some(size) => self.set(&format!("domains.{number}.size"), size, &origin),
                    None => bag.put("memdev", id.as_str()),
                }
            }
            let cpus = bag.take_all("cpus");
            if !cpus.is_empty() {
                self.set(&format!("domains.{number}.cpus"), cpus.join(","), &origin);
            }
            self.keep_properties("numa", &number, &bag);
        }
    }

    /// Takes over a memory object, which the export will call `name`, and returns its size; `None`
    /// if there is no such object, or it is nothing that we know.
    fn backing(&mut self, name: &str, id: &str, origin: &Origin) -> Option<String> {
        let Some(part) = self.find("object", id) else {
            self.diagnostics.add(Severity::Error, || {
                Diagnostic::new(format!("there is no memory that is called `{id}`"))
                    .at(origin.clone())
                    .hint("add an `-object memory-backend-memfd` with that id")
            });
            return None;
        };
        let mut bag = self.parts[part].bag.clone();
        let origin = bag.origin.clone();
        let kind = bag.take("qom-type")?;
        bag.take("id");
        match kind.as_str() {
            "memory-backend-ram" => {}
            "memory-backend-memfd" => {
                let huge = bag.take("hugetlb").and_then(|on| switch(&on)) == Some(true);
                self.set("memory.backing", if huge { "hugetlb" } else { "memfd" }, &origin);
                let size = bag.take("hugetlbsize").and_then(|size| Form::Size.import(&size));
                if let Some(size) = size.filter(|size| size != "2M") {
                    self.set("memory.page_size", size, &origin);
                }
                // Other objects are private unless they say so; this one is shared.
                if bag.peek("share").is_none() {
                    bag.put("share", true);
                }
            }
            "memory-backend-file" => {
                let path = bag.take("mem-path")?;
                self.backing_file(&path, &origin);
            }
            _ => return None,
        }
        for (property, key) in [("share", "memory.shared"), ("prealloc", "memory.prefault")] {
            if bag.take(property).and_then(|on| switch(&on)) == Some(true) {
                self.set(key, "true", &origin);
            }
        }
        let size = bag.take("size").and_then(|size| Form::Size.import(&size))?;
        self.keep_properties("object", name, &bag);
        self.parts[part].used = true;
        Some(size)
    }

    /// Memory that is a file.
    fn backing_file(&mut self, path: &str, origin: &Origin) {
        if path.contains("hugepages") || path.contains("hugetlbfs") {
            self.set("memory.backing", "hugetlb", origin);
            if path.contains("1G") || path.contains("1048576") {
                self.set("memory.page_size", "1G", origin);
            }
        } else if path == "/dev/shm" || path == "/dev/shm/" {
            self.set("memory.backing", "memfd", origin);
        } else {
            self.set("memory.backing", "file", origin);
            self.set("memory.path", path, origin);
        }
    }
}
