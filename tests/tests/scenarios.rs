//! Every scenario under `scenarios/` as a test, in the lab or on this machine's KVM.

use xtask::lab::{self, Options};

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

fn scenario(name: &str) {
    let report = lab::run(name, Options { quiet: true, ..Options::default() });
    let report = report.expect("the lab could not run the scenario to its end");
    // The test runner shows it when the assertion fails.
    println!("{}", report.output);
    assert_eq!(report.status, 0, "the scenario's exit status");
}
