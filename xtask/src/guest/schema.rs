//! libvirt's schema of domain documents, for the tests of what we write.

use std::path::PathBuf;

use anyhow::Result;

use super::apt::Apt;
use super::tools::{Need, ensure};
use crate::cache;

/// What this recipe makes; a change makes it again.
const RECIPE: &str = "libvirt-common of the stable release, 1";

/// The RELAX NG schema of `<domain>`, fetched on the first call; xmllint reads it.
pub fn domain_schema() -> Result<PathBuf> {
    ensure(&[Need::Test])?;
    let dir =
        cache::entry("libvirt-schema", &[RECIPE], |dir| Apt::for_guests()?.unpack("libvirt-common", dir))?;
    Ok(dir.join("usr/share/libvirt/schemas/domain.rng"))
}
