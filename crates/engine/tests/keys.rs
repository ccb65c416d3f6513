//! Every key of the table that this engine claims to have changes something: the plan, or what is said.
//! The other direction is an assertion: what is read without being declared panics in tests.

use parador_config::keys::{self, Key, Kind, Support};
use parador_config::{Source, Tree};
use parador_engine::Plan;

/// Keys that others than the plan read.
const ELSEWHERE: &[(&str, &str)] = &[
    ("log.level", "the command, before there is a machine"),
    ("config.dump", "the command, instead of a machine"),
    ("config.unknown", "Tree::check"),
    ("config.optional", "Tree::check"),
];

/// What each model needs before it is a device.
const NEEDS: &[(&str, &str)] = &[
    ("virtio-blk", "device.x.path=a.img\n"),
    ("virtio-net", ""),
    ("virtio-rnd", ""),
    ("virtio-console", ""),
    ("virtio-vsock", "device.x.cid=3\ndevice.x.socket=s\n"),
    ("virtio-balloon", ""),
    ("virtio-fs", "device.x.sharename=s\ndevice.x.socket=s\n"),
    ("vhost-user", "device.x.virtio_type=rng\ndevice.x.socket=s\n"),
];

/// What becomes of `text`, and of `option` that wins over it.
fn plan(text: &str, option: &str) -> (Option<Plan>, String) {
    let sources =
        [Source::File { name: "f", bytes: text.as_bytes() }, Source::Option { argument: 1, text: option }];
    let (tree, mut diagnostics) = Tree::from_sources(&sources);
    let keys = tree.check(&mut diagnostics);
    let plan = Plan::new(&keys, &mut diagnostics);
    (plan, diagnostics.to_string())
}

/// A value of `key` that is not its default.
fn another(key: &Key) -> String {
    let default = key.default.unwrap_or_default();
    let words: Vec<&str> = match key.kind {
        Kind::Word(_) | Kind::Bool => key.words(),
        Kind::Int { .. } => vec!["8", "16"],
        Kind::Size { .. } | Kind::Memory { .. } => vec!["64M", "2M"],
        Kind::Text { .. } | Kind::Path => vec!["other"],
        Kind::Mac => vec!["52:54:00:12:34:56"],
        Kind::Cpus => vec!["0"],
        Kind::Address => vec!["0:9.0"],
        Kind::Uuid => vec!["12345678-9abc-4def-8123-456789abcdef"],
        Kind::Endpoint => vec!["pty"],
        Kind::Descriptors => vec!["3"],
    };
    let word = words.into_iter().find(|word| *word != default);
    word.unwrap_or_else(|| unreachable!("{} has one value", key.pattern)).to_owned()
}

fn claimed(key: &Key) -> bool {
    key.support.matters() && !ELSEWHERE.iter().any(|(pattern, _)| *pattern == key.pattern)
}

#[test]
fn a_key_that_is_declared_is_read() {
    let mut unread = Vec::new();
    for key in keys::all().filter(claimed) {
        let path = key.pattern.replace("device.*", "device.x").replace('*', "0");
        let set = format!("{path}={}", another(&key));
        for (model, needs) in NEEDS {
            // Their memory is a shared file, whatever else.
            let shared = ["virtio-fs", "vhost-user"].contains(model)
                && ["memory.backing", "memory.shared"].contains(&key.pattern);
            if !shared && (key.models.is_empty() || key.models.contains(model)) {
                let base = format!("boot.kernel=k\ndevice.x.model={model}\n{needs}");
                if !base.contains(&set) && plan(&base, "boot.kernel=k") == plan(&base, &set) {
                    unread.push(format!("{set} of a {model}"));
                }
            }
        }
    }
    assert_eq!(unread, [""; 0], "these change nothing");
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "`memory.speed` is read, but not in the table")]
fn a_key_that_is_read_is_declared() {
    let _ = Tree::default().check(&mut parador_config::Diagnostics::default()).int("memory.speed");
}

#[test]
fn what_models_need_is_known_here() {
    for model in keys::MODELS.iter().filter(|model| model.support == Support::Native) {
        let (_, needs) = NEEDS.iter().find(|(name, _)| *name == model.name).expect(model.name);
        let (plan, said) = plan(&format!("device.x.model={}\n{needs}", model.name), "boot.kernel=k");
        assert!(plan.is_some(), "{said}");
    }
}
