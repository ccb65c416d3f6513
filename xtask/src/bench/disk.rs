//! A virtio disk's 4 KiB random reads from a file in the host's cache: system calls, instructions and heap
//! allocations of one, beside the same reads asked of the I/O engine without a device.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::example;
use crate::command;

/// Builds and runs the example `blk_path` and prints a line for each engine and depth.
pub(super) fn disk() -> Result<()> {
    let output = command::output_text(&mut example("parador-devices", "blk_path"))?;
    println!(
        "4 KiB random reads through a virtio disk, per read (and as a multiple of the I/O engine alone)"
    );
    let lines: Vec<Line<'_>> = output.lines().map(fields).collect();
    for device in lines.iter().filter(|line| line.get("path") == Some(&"device")) {
        let same = |line: &&Line<'_>| ["aio", "depth"].iter().all(|key| line.get(key) == device.get(key));
        let ratio = lines.iter().filter(same).find(|line| line["path"] == "device/engine");
        let ratio = ratio.context("blk_path compares every device with its engine")?;
        let figure = |key: &str| match (device.get(key), ratio.get(key)) {
            (Some(figure), Some(ratio)) if ratio.parse::<f64>().is_ok() => format!("{figure} ({ratio})"),
            (Some(figure), _) => (*figure).to_owned(),
            (None, _) => "?".to_owned(),
        };
        println!(
            "  {:8} depth {:2}  {} system calls, {} instructions in user space, {} in the kernel, {} allocations",
            device.get("aio").unwrap_or(&"?"),
            device.get("depth").unwrap_or(&"?"),
            figure("syscalls"),
            figure("instructions_user"),
            figure("instructions_kernel"),
            figure("allocations"),
        );
    }
    Ok(())
}

/// The words of a line by their keys.
type Line<'a> = HashMap<&'a str, &'a str>;

/// The `key=value` words of a line.
fn fields(line: &str) -> Line<'_> {
    line.split_whitespace().filter_map(|word| word.split_once('=')).collect()
}
