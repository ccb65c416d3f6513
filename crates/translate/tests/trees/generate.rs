//! Trees of valid keys with valid values.

use parador_config::keys::{self, Key, Kind};
use parador_config::{Origin, Tree};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// What is said of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subset {
    /// Models of its devices; none for all of the table.
    pub(crate) models: &'static [&'static str],
    /// Whether it may have this key; a key of a device comes with its model.
    pub(crate) key: fn(&Key, Option<&str>) -> bool,
    /// Values of this key, where not all that the table takes will do.
    pub(crate) value: fn(&Key, Option<&str>) -> Option<BoxedStrategy<String>>,
    /// Keys that a tree has to have, with their values.
    pub(crate) always: &'static [(&'static str, &'static str)],
    /// Whether devices have names of their own; if not, they are disk0, disk1, net0 …
    pub(crate) named: bool,
    /// Whether there are keys of the user.
    pub(crate) own: bool,
    /// Whether the order of the devices comes back too.
    pub(crate) ordered: bool,
}

impl Subset {
    /// Every key of the table, keys of the user, and any text where text is taken.
    pub(crate) const ALL: Self = Self {
        models: &[],
        key: |_, _| true,
        value: |_, _| None,
        always: &[],
        named: true,
        own: true,
        ordered: true,
    };
}

/// The default name of a device, without its number.
fn default_id(model: &str) -> &'static str {
    match model {
        "virtio-blk" => "disk",
        "virtio-net" => "net",
        "virtio-rnd" => "rng",
        "virtio-vsock" => "vsock",
        "virtio-balloon" => "balloon",
        "virtio-console" => "console",
        "virtio-fs" => "fs",
        "vhost-user" => "vhost",
        "passthru" => "dev",
        _ => "device",
    }
}

/// Any text a value may be: one line.
pub(crate) fn text(max: usize) -> BoxedStrategy<String> {
    let odd = prop_oneof![
        "[a-zA-Z0-9/._:=-]{1,12}",
        "[ -~]{1,12}",
        "[%()\"'\\\\#,$ \t{}\\[\\]]{1,8}",
        r"%\((name|uuid|var\.a)\)",
        "[^\\n\\r]{1,6}",
    ];
    vec(odd, 1..4).prop_map(move |parts| cut(&parts.concat(), max)).boxed()
}

/// At most `max` bytes of `text`.
fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Values of `kind`.
pub(crate) fn value(kind: Kind) -> BoxedStrategy<String> {
    match kind {
        Kind::Bool => select(vec!["true", "false"]).prop_map(str::to_owned).boxed(),
        Kind::Int { min, max } => (min..=max).prop_map(|n| n.to_string()).boxed(),
        Kind::Size { min, max } | Kind::Memory { min, max } => {
            let (low, high) = (min.div_ceil(1 << 20), (max >> 20).min(1 << 24));
            (low..=high)
                .prop_map(|n| if n % 1024 == 0 { format!("{}G", n / 1024) } else { format!("{n}M") })
                .boxed()
        }
        Kind::Text { max } => text(max),
        Kind::Word(words) => select(words.iter().collect::<Vec<_>>()).prop_map(str::to_owned).boxed(),
        Kind::Mac => any::<[u8; 5]>()
            .prop_map(|[a, b, c, d, e]| format!("52:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}"))
            .boxed(),
        Kind::Cpus => select(vec!["0", "0-3", "0,2", "1-2,4"]).prop_map(str::to_owned).boxed(),
        Kind::Address => {
            (1..31_u8, 0..8_u8).prop_map(|(slot, function)| format!("0:{slot}.{function}")).boxed()
        }
        Kind::Uuid => any::<u128>()
            .prop_map(|n| {
                let n = format!("{n:032x}");
                format!("{}-{}-{}-{}-{}", &n[..8], &n[8..12], &n[12..16], &n[16..20], &n[20..])
            })
            .boxed(),
        Kind::Endpoint => prop_oneof![
            select(vec!["stdio", "none", "pty"]).prop_map(str::to_owned),
            path().prop_map(|path| format!("file:{path}")),
            path().prop_map(|path| format!("unix:{path}")),
        ]
        .boxed(),
        Kind::Path => path(),
        Kind::Descriptors => (3..100_u32, 1..4_u32)
            .prop_map(|(first, count)| {
                let fds: Vec<String> = (first..first + count).map(|fd| fd.to_string()).collect();
                fds.join(",")
            })
            .boxed(),
    }
}

/// The path of a file, of characters that every format can say.
pub(crate) fn path() -> BoxedStrategy<String> {
    "(/[a-zA-Z0-9_][a-zA-Z0-9_.+-]{0,7}){1,3}".boxed()
}

/// Perhaps a value for `key`.
fn perhaps(subset: &Subset, key: &Key, model: Option<&str>) -> BoxedStrategy<Option<String>> {
    if !(subset.key)(key, model) {
        return Just(None).boxed();
    }
    option::of((subset.value)(key, model).unwrap_or_else(|| value(key.kind))).boxed()
}

/// The keys that are not of a device.
fn machine(subset: &Subset) -> BoxedStrategy<Vec<(String, String)>> {
    let keys: Vec<_> = keys::all()
        .filter(|key| !key.pattern.starts_with("device."))
        .map(|key| perhaps(subset, &key, None).prop_map(move |value| (key.pattern.replace('*', "0"), value)))
        .collect();
    keys.prop_map(|keys| keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()).boxed()
}

/// The model of a device, its keys and its name.
type Device = (&'static str, Vec<(String, String)>, String);

fn device(subset: Subset, model: &'static str) -> BoxedStrategy<Device> {
    let keys: Vec<_> = keys::all()
        .filter_map(|key| key.pattern.strip_prefix("device.*.").map(|rest| (key, rest.replace('*', "0"))))
        .filter(|(key, rest)| rest != "model" && (key.models.is_empty() || key.models.contains(model)))
        .map(|(key, rest)| perhaps(&subset, &key, Some(model)).prop_map(move |value| (rest.clone(), value)))
        .collect();
    (keys, "[a-z][a-z0-9_-]{0,6}")
        .prop_map(move |(keys, id)| {
            (model, keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(), id)
        })
        .boxed()
}

/// Trees of `subset`.
pub(crate) fn trees(subset: &Subset) -> impl Strategy<Value = Tree> {
    let subset = *subset;
    let all = || keys::MODELS.iter().map(|model| model.name).collect();
    let models = if subset.models.is_empty() { all() } else { subset.models.to_vec() };
    let devices = vec(select(models).prop_flat_map(move |model| device(subset, model)), 0..6);
    let own = vec(("[a-z0-9_-]{1,5}(\\.[a-z0-9_-]{1,5}){0,2}", text(40)), 0..3);
    let own = if subset.own { own.boxed() } else { Just(Vec::new()).boxed() };
    (machine(&subset), devices, own).prop_map(move |(machine, devices, own)| {
        let mut tree = Tree::default();
        let mut set = |key: &str, value: &str| {
            tree.set(key, value.to_owned(), Origin::Argument(1));
        };
        for (key, value) in subset.always {
            set(key, value);
        }
        for (key, value) in machine {
            set(&key, &value);
        }
        let mut counts = std::collections::BTreeMap::new();
        for (index, (model, keys, id)) in devices.iter().enumerate() {
            let id = if subset.named {
                format!("{id}{index}")
            } else {
                let count = counts.entry(default_id(model)).or_insert(0);
                *count += 1;
                format!("{}{}", default_id(model), *count - 1)
            };
            set(&format!("device.{id}.model"), model);
            for (key, value) in keys {
                set(&format!("device.{id}.{key}"), value);
            }
        }
        for (key, value) in own {
            set(&format!("var.{key}"), &value);
        }
        tree
    })
}
