//! The least VMM there can be: boots a kernel with this terminal as its serial console.
//!
//! `boot KERNEL INITRD|- MIB PROCESSORS [CMDLINE]`

use std::env::args;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use parador_machine::{Boot, BootFile, Machine, Outcome, SerialLine, Shape, Topology};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut args = args().skip(1);
    let mut next = || args.next().ok_or("usage: boot KERNEL INITRD|- MIB PROCESSORS [CMDLINE]");
    let (kernel, initrd, mib, processors) = (next()?, next()?, next()?, next()?);
    let cmdline = next().unwrap_or_else(|_| "console=ttyS0".to_owned());

    let shape = Shape {
        topology: Topology::new(1, processors.parse()?, 1)?,
        serial: Some(SerialLine {
            output: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            input: Some(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
        }),
        ..Shape::new(mib.parse::<u64>()? << 20)
    };
    let mut machine = Machine::new(shape)?;
    let initrd = if initrd == "-" { None } else { Some(BootFile::open(initrd)?) };
    machine.load(Boot { kernel: BootFile::open(kernel)?, initrd, cmdline })?;
    Ok(match machine.start()?.wait() {
        Outcome::PoweredOff => ExitCode::SUCCESS,
        Outcome::Failed(report) => {
            eprintln!("{report}");
            ExitCode::FAILURE
        }
        other => {
            eprintln!("{other:?}");
            ExitCode::FAILURE
        }
    })
}
