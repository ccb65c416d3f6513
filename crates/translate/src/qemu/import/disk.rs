//! Images: `-drive`, `-hda` and `-blockdev`, all brought to one form.

use super::super::bag::Bag;
use super::super::options::Opt;
use super::{Flash, Import};
use crate::words::Word;

/// Properties of a node that say nothing new, with the values of which that is true.
static IMPLIED: &[(&str, &[&str])] = &[
    ("node-name", &[]),
    ("auto-read-only", &[]),
    ("cache.no-flush", &["off", "false"]),
    ("file.node-name", &[]),
    ("file.auto-read-only", &[]),
    ("file.read-only", &[]),
    ("file.discard", &[]),
    ("file.cache.no-flush", &["off", "false"]),
    ("file.driver", &["file", "host_device"]),
    ("detect-zeroes", &["off"]),
    ("snapshot", &["off"]),
];
/// Modes of `cache`: whether the host's cache is left out, whether writes are durable, whether
/// flushes are ignored.
static CACHE: &[(&str, [bool; 3])] = &[
    ("none", [true, false, false]),
    ("writeback", [false, false, false]),
    ("writethrough", [false, true, false]),
    ("directsync", [true, true, false]),
    ("unsafe", [false, false, true]),
];

/// An image.
#[derive(Debug)]
pub(super) struct Image {
    /// As properties of `-blockdev`, with the file's under `file.`.
    pub(super) back: Bag,
    /// What `-drive` says and `-device` should.
    pub(super) front: Bag,
    /// What it was made of.
    pub(super) parts: Vec<usize>,
    /// Whether QEMU would look into the image to know its format.
    pub(super) probed: bool,
}

impl Import {
    /// Takes out of a `-drive` what is not about the image, and makes the device it asks for.
    /// Returns its name; `None` if it is kept.
    pub(super) fn drive(&mut self, index: usize, bag: &mut Bag, words: &[Word]) -> Option<String> {
        let name = bag.take("id").unwrap_or_else(|| format!("#{index}"));
        let kind = bag.take("if").unwrap_or_else(|| "ide".to_owned());
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let [unit, position, _] = ["unit", "index", "bus"].map(|property| number(bag.take(property)));
        let driver = if bag.take("media").as_deref() == Some("cdrom") { "ide-cd" } else { "ide-hd" };
        let front = |driver: &str| {
            let front = Bag::new(bag.origin.clone()).with("driver", driver).with("drive", name.as_str());
            if name.starts_with('#') { front } else { front.with("id", name.as_str()) }
        };
        match kind.as_str() {
            "none" => {}
            "virtio" => self.front(index, front("virtio-blk-pci"), words.to_vec()),
            "ide" => {
                let next = position.or(unit).unwrap_or(self.whole.next_ide);
                self.whole.next_ide = next + 1;
                self.front(index, front(driver).with("bus", format!("ide.{next}").as_str()), words.to_vec());
            }
            "pflash" => {
                let (node, origin) = (name.clone(), bag.origin.clone());
                self.whole.flash.push(Flash { unit: unit.or(position), index, node, kind: "drive", origin });
            }
            _ => {
                self.keep(index, words.to_vec());
                return None;
            }
        }
        Some(name)
    }

    /// `-hda` and its like.
    pub(super) fn image(&mut self, index: usize, option: Opt, position: usize, driver: &str) {
        let media = if driver == "ide-cd" { "cdrom" } else { "disk" };
        let bag = Bag::new(option.value.origin.clone())
            .with("index", position.to_string().as_str())
            .with("media", media)
            .with("file", option.value.text.as_str());
        self.part(index, "drive", "id", bag, option.words);
    }

    /// The image that a `-drive` or `-blockdev` is; `None` if it is none that we can say.
    pub(super) fn image_of(&self, kind: &'static str, name: &str) -> Option<Image> {
        let part = self.find(kind, name)?;
        let bag = self.parts[part].bag.clone();
        let mut image =
            Image { front: Bag::new(bag.origin.clone()), back: bag, parts: vec![part], probed: false };
        if kind == "drive" {
            legacy(&mut image)?;
        } else {
            self.nodes(&mut image)?;
        }
        if let Some(direct) = image.back.take("file.cache.direct")
            && image.back.peek("cache.direct").is_none()
        {
            image.back.put("cache.direct", direct.as_str());
        }
        let driver = image.back.peek("file.driver").unwrap_or_else(|| "file".to_owned());
        let format = image.back.peek("driver")?;
        let plain = ["file", "host_device"].contains(&driver.as_str());
        let written = image.back.peek("snapshot").is_none_or(|value| value == "off");
        for (property, values) in IMPLIED {
            if values.is_empty() {
                image.back.take(property);
            } else {
                image.back.take_if(property, values);
            }
        }
        (plain && written && ["raw", "qcow2"].contains(&format.as_str())).then_some(image)
    }

    /// Brings the node and the one below it together.
    fn nodes(&self, image: &mut Image) -> Option<()> {
        let driver = image.back.peek("driver")?;
        if driver == "file" || driver == "host_device" {
            let file = std::mem::replace(&mut image.back, Bag::new(image.front.origin.clone()));
            image.back.put("driver", "raw");
            let mut file = file;
            for shared in ["read-only", "cache.direct", "discard"] {
                if let Some(value) = file.take(shared) {
                    image.back.put(shared, value.as_str());
                }
            }
            file.pour(&mut image.back, "file.");
        } else if let Some(below) = image.back.take("file") {
            let part = self.find("blockdev", &below)?;
            image.parts.push(part);
            self.parts[part].bag.clone().pour(&mut image.back, "file.");
        }
        Some(())
    }
}

/// Brings what `-drive` says to the words of `-blockdev`.
fn legacy(image: &mut Image) -> Option<()> {
    let back = &mut image.back;
    back.take("id");
    if let Some(file) = back.take("file") {
        let path = file.strip_prefix("file:").unwrap_or(&file);
        let protocol = path.split(['/', '.']).next().is_some_and(|start| start.contains(':'));
        if protocol || path.is_empty() {
            return None;
        }
        back.put("file.filename", path);
    }
    let path = back.peek("file.filename")?;
    let format = back.take("format").or_else(|| back.take("driver"));
    image.probed = format.is_none() && !path.ends_with(".qcow2");
    let guess = if path.ends_with(".qcow2") { "qcow2" } else { "raw" };
    back.put("driver", format.as_deref().unwrap_or(guess));
    if let Some(value) = back.take("readonly") {
        back.put("read-only", value.as_str());
    }
    if let Some(value) = back.take("aio") {
        back.put("file.aio", value.as_str());
    }
    for property in ["serial", "werror", "rerror"] {
        if let Some(value) = back.take(property) {
            image.front.put(property, value.as_str());
        }
    }
    if let Some(mode) = back.take("cache") {
        let [direct, durable, reckless] = CACHE.iter().find(|(name, _)| *name == mode)?.1;
        for (on, property) in [(direct, "cache.direct"), (reckless, "cache.no-flush")] {
            if on {
                back.put(property, "on");
            }
        }
        if durable {
            image.front.put("write-cache", "off");
        }
    }
    Some(())
}
