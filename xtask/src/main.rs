//! `cargo xtask`: the chores of the project.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use xtask::{bench, demo, docs, fuzz, guest, lab, soak, test, tidy};

const USAGE: &str = "\
cargo xtask COMMAND

  ci                                 formatting, lints, tidy, documentation, then every test
  test                               every test; sets up what is missing (Debian, as root)
  peers                              tests that fetch more: Linux in user mode, nbdkit
  soak                               the long forms of tests, for a night
  tidy                               the invariants of ARCHITECTURE.md and STYLE.md
  guest                              make what tests and demo boot: kernel, initramfs, Debian
  lab SCENARIO [--keep] [--verbose] [--long]
                                     run tests/scenarios/SCENARIO.sh where KVM can run Linux
  docs                               the manual pages, schema and completions, into target/docs
  demo                               boot Debian under Parador: a shell, or a tour without a terminal
  bench [NAME]                       speed and memory, as ratios
  fuzz TARGET SECONDS                run one target of fuzz/
";

fn main() -> ExitCode {
    let words = std::env::args().skip(1).collect::<Vec<_>>();
    match dispatch(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<u8> {
    match words {
        ["ci"] => return test::ci(),
        ["test"] => return test::test(),
        ["peers"] => return test::peers(),
        ["soak"] => return soak::soak(),
        ["tidy"] => tidy::tidy()?,
        ["docs"] => docs::docs()?,
        ["demo"] => return demo::demo(),
        ["guest"] => guest::guest()?,
        ["lab", scenario, flags @ ..] => return lab::command(scenario, lab_options(flags)?),
        ["bench"] => bench::bench(None)?,
        ["bench", name] => bench::bench(Some(name))?,
        ["fuzz", target, seconds] => {
            fuzz::fuzz(target, seconds.parse().with_context(|| format!("`{seconds}` is not in seconds"))?)?;
        }
        ["help" | "--help" | "-h"] | [] => print!("{USAGE}"),
        _ => bail!("cannot read `{}`\n\n{USAGE}", words.join(" ")),
    }
    Ok(0)
}

fn lab_options(flags: &[&str]) -> Result<lab::Options> {
    let mut options = lab::Options::default();
    for flag in flags {
        match *flag {
            "--keep" => options.keep = true,
            "--verbose" => options.verbose = true,
            "--long" => options.long = true,
            _ => bail!("`lab` has no flag {flag}\n\n{USAGE}"),
        }
    }
    Ok(options)
}
