//! The `parador` command.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test stops at the first surprise"))]

mod args;
mod bhyve;
mod config;
mod control;
mod device;
mod find;
mod handover;
mod help;
mod image;
mod keyboard;
mod log;
mod messages;
mod options;
mod process;
mod run;
mod runner;
mod signals;
mod sources;
mod status;
mod terminal;
mod vmm;

use std::io::Write;

use args::Command;
use status::Status;

fn main() {
    process::share_one_heap();
    let arguments: Vec<_> = std::env::args_os().collect();
    let status = match args::parse(&arguments) {
        Ok(Command::Help(topic)) => print(&help::text(topic)),
        Ok(Command::Version) => print(concat!("parador ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Config(words)) => config::run(&words),
        Ok(Command::Image(words)) => process::exit(image::run(&words)),
        Ok(Command::Run(request)) => run::run(&request),
        Ok(Command::Device(request)) => device::run(&request),
        Ok(Command::Bhyve { first }) => process::exit(bhyve::run(&arguments, first)),
        Err(wrong) => {
            eprint!("{wrong}");
            Status::Usage
        }
    };
    process::exit(status as u8)
}

/// Prints what was asked for. A reader who went away (a pager, `head`) is no failure.
fn print(text: &str) -> Status {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to standard output\ncause: {e}");
            Status::Failed
        }
        Ok(()) | Err(_) => Status::PoweredOff,
    }
}
