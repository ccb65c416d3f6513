//! `cargo xtask docs`: what is generated from the table of keys, as files to install.

use std::fs;

use anyhow::{Context, Result};

use crate::command;

/// Each file, and what `parador config` is asked for it.
const FILES: &[(&str, &[&str])] = &[
    ("parador.1", &["man", "parador"]),
    ("parador-vmm.1", &["man", "parador-vmm"]),
    ("parador.conf.5", &["man", "parador.conf"]),
    ("parador.schema.json", &["schema"]),
    ("parador.bash", &["completion", "bash"]),
    ("_parador", &["completion", "zsh"]),
    ("parador.fish", &["completion", "fish"]),
];

/// Writes them all to target/docs.
pub fn docs() -> Result<()> {
    let folder = command::root().join("target/docs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, words) in FILES {
        let text = command::output(
            command::cargo().args(["run", "--quiet", "--package", "parador", "--", "config"]).args(*words),
        )?;
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("target/docs/{name}");
    }
    Ok(())
}
