//! `cargo xtask soak`: the long forms of tests, for a night rather than for every change.

use anyhow::{Result, bail};

use crate::lab::{self, Options, Scenario};
use crate::tally::Tally;
use crate::{command, guest};

/// Runs everything that has a long form, prints `N passed, N failed`, and returns the exit status.
pub fn soak() -> Result<u8> {
    guest::guest()?;
    let mut tally = Tally::default();
    let mut cuts = command::cargo();
    cuts.args([
        "test",
        "--package",
        "parador-block",
        "--release",
        "--test",
        "zoned_image",
        "--",
        "--ignored",
    ]);
    tally.count("power cuts", &mut cuts)?;
    for name in lab::names()? {
        if Scenario::open(&name)?.long.is_some() {
            println!("--- {name} ---");
            tally.step(&name, long(&name));
        }
    }
    print!("{tally}");
    Ok(u8::from(tally.failed > 0))
}

/// The long form of one scenario, whose output is shown as it comes.
fn long(name: &str) -> Result<()> {
    match lab::run(name, Options { long: true, ..Options::default() })?.status {
        0 => Ok(()),
        status => bail!("it ended with {status}"),
    }
}
