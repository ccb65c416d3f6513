//! How long keys take from the bytes of a file to typed values, beside what is the least to be done
//! with the same bytes: `cargo xtask bench config`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use parador_config::{Diagnostics, Source, Tree};

/// What we set out to reach with [`SMALL`] keys.
const GOAL: Duration = Duration::from_millis(1);
const SMALL: usize = 200;
/// A file that no person writes.
const LARGE: usize = 10_000;

fn main() {
    println!("keys from bytes to typed values, the fastest of many runs");
    for keys in [SMALL, LARGE] {
        let text = file(keys);
        let bytes = text.as_bytes();
        let read = || Tree::from_sources(&[Source::File { name: "f", bytes }]).0;
        let tree = read();
        let expanded = tree.expand(&mut Diagnostics::default());
        let mut diagnostics = Diagnostics::default();
        let _ = tree.check(&mut diagnostics);
        assert_eq!(diagnostics.to_string(), "");
        let whole = fastest(|| drop(black_box(read().check(&mut Diagnostics::default()))));
        let least = fastest(|| drop(black_box(split(bytes))));
        println!("  {keys} keys, {} bytes", bytes.len());
        line("read", fastest(|| drop(black_box(read()))));
        line("expand", fastest(|| drop(black_box(tree.expand(&mut Diagnostics::default())))));
        line("check", fastest(|| drop(black_box(expanded.check(&mut Diagnostics::default())))));
        line("all of it", whole);
        line("split into a map", least);
        print!("    {:.1} times the splitting", whole.as_secs_f64() / least.as_secs_f64());
        if keys == SMALL {
            print!(", {:.2} of the goal", whole.as_secs_f64() / GOAL.as_secs_f64());
        }
        println!();
    }
}

fn line(what: &str, time: Duration) {
    println!("    {what:18} {:8.1} us", time.as_secs_f64() * 1e6);
}

/// The least anybody has to do: every line, split at its `=`, in a map.
fn split(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = str::from_utf8(bytes).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A machine of `keys` keys: disks and interfaces, half of them with references.
fn file(keys: usize) -> String {
    let mut text =
        String::from("name=web\nmemory.size=4G\nvar.dir=/vm/%(name)\nboot.kernel=%(var.dir)/vmlinuz\n");
    for device in 0..(keys - 4) / 7 {
        let keys = if device % 2 == 0 {
            "model=virtio-blk\npath=%(var.dir)/%(.id).img\nro=false\nqueues=2\nqueue_size=128\naio=io_uring\nser=%(.id)"
        } else {
            "model=virtio-net\ntap.name=%(.id)\nmac=52:54:00:12:34:56\nmtu=1500\nqueues=2\nbackend=tap\ntap.bridge=%(var.bridge)"
        };
        for key in keys.lines() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "device.d{device}.{key}");
        }
    }
    text.push_str("var.bridge=br0\n");
    while text.lines().count() < keys {
        let _ = writeln!(text, "var.n{}=1", text.len());
    }
    text
}

fn fastest(mut work: impl FnMut()) -> Duration {
    let begin = Instant::now();
    let mut fastest = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (runs < 1000 && begin.elapsed() < Duration::from_millis(500)) {
        let begin = Instant::now();
        work();
        fastest = fastest.min(begin.elapsed());
        runs += 1;
    }
    fastest
}
