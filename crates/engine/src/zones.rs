//! Zones of a disk: what is asked of them, and whether an image is so.

use std::path::Path;

use parador_block::zoned::Geometry;
use parador_config::size;

use crate::plan::Check;

/// What is asked of the zones of a disk. What is not asked for is as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Zones {
    asked: Vec<(&'static str, u64)>,
    /// Whether what is not flushed is gone when the process ends.
    pub(crate) power_cut: bool,
    /// Whether they are those of a block device of the host.
    pub(crate) of_host: bool,
}

/// What can be asked: the key, whether it is a size in bytes, and what an image has.
type Key = (&'static str, bool, fn(&Geometry) -> u64);

static KEYS: &[Key] = &[
    ("zone_size", true, |geometry| geometry.zone_size),
    ("zone_capacity", true, |geometry| geometry.zone_capacity),
    ("conventional", false, |geometry| geometry.conventional.into()),
    ("max_open", false, |geometry| geometry.max_open.into()),
    ("max_active", false, |geometry| geometry.max_active.into()),
    ("max_append", true, |geometry| geometry.max_append),
];

/// Decides whether a disk has zones, and which.
pub(crate) fn zones(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Option<Zones> {
    let of_host = match check.keys.word(&key("zoned")) {
        Some("host-managed") => return Some(in_image(check, key)),
        word => word == Some("passthrough"),
    };
    for name in KEYS.iter().map(|(name, ..)| *name).chain(["power_cut"]) {
        check.without_effect(&key(name), "it is for zoned=host-managed");
    }
    if of_host && check.keys.bool(&key("ro")) {
        check.error(&key("ro"), "a disk with zones cannot be read-only", "leave `ro` out");
    }
    one_size(check, key, of_host);
    of_host.then(|| Zones { of_host, ..Zones::default() })
}

fn in_image(check: &mut Check<'_>, key: &impl Fn(&str) -> String) -> Zones {
    if check.keys.bool(&key("ro")) {
        let hint = "leave `ro` out, or give the machine a copy of the image";
        check.error(&key("ro"), "a disk with zones cannot be read-only: to open it is to write to it", hint);
    }
    if check.keys.bool(&key("nocache")) {
        let message = "a disk with zones does not go around the host's page cache";
        check.error(&key("nocache"), message, "leave `nocache` out");
    }
    one_size(check, key, true);
    let asked = KEYS.iter().filter_map(|(name, ..)| Some((*name, check.keys.int(&key(name))?)));
    Zones { asked: asked.collect(), power_cut: check.keys.bool(&key("power_cut")), of_host: false }
}

fn one_size(check: &mut Check<'_>, key: &impl Fn(&str) -> String, zoned: bool) {
    if zoned && check.keys.word(&key("sectorsize")) == Some("512/4096") {
        let message = "a disk with zones has one size of blocks";
        check.error(&key("sectorsize"), message, "leave it out: the disk says which");
    }
}

impl Zones {
    /// The first key that an image of this shape is not as, with what was asked for and what it has.
    pub(crate) fn differ(&self, geometry: &Geometry) -> Option<(&'static str, String, String)> {
        let sequential = u64::from(geometry.zones() - geometry.conventional);
        self.asked.iter().find_map(|&(name, asked)| {
            let (_, bytes, of) = KEYS.iter().find(|(known, ..)| *known == name)?;
            // A limit that no number of zones can reach is none.
            let asked = if name.starts_with("max_") && !bytes && asked >= sequential { 0 } else { asked };
            let text = |number: u64| if *bytes { size(number) } else { number.to_string() };
            let has = of(geometry);
            (asked != has).then(|| (name, text(asked), text(has)))
        })
    }

    /// The command that makes such an image.
    pub(crate) fn command(&self, path: &Path) -> String {
        let mut command = format!("parador image create --zoned {} --size 64G", path.display());
        for (name, asked) in &self.asked {
            let bytes = KEYS.iter().any(|(known, bytes, _)| known == name && *bytes);
            let text = if bytes { size(*asked) } else { asked.to_string() };
            command.push_str(&format!(" --{} {text}", name.replace('_', "-")));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_as_it_was_asked_for_or_not() {
        let geometry = Geometry { conventional: 4, max_open: 8, ..Geometry::new(1 << 30, 64 << 20) };
        let differ = |asked: &[(&'static str, u64)]| {
            Zones { asked: asked.to_vec(), ..Zones::default() }.differ(&geometry)
        };
        assert_eq!(differ(&[]), None);
        assert_eq!(differ(&[("zone_size", 64 << 20), ("conventional", 4), ("max_open", 8)]), None);
        assert_eq!(differ(&[("max_active", 12)]), None, "so many zones are never active");
        let expected = ("zone_size", "128M".to_owned(), "64M".to_owned());
        assert_eq!(differ(&[("conventional", 4), ("zone_size", 128 << 20)]), Some(expected));
        assert_eq!(differ(&[("max_active", 11)]), Some(("max_active", "11".to_owned(), "0".to_owned())));
    }
}
