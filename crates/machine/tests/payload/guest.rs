//! A machine around a payload, and what it prints.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parador_machine::{Boot, BootFile, Error, KvmError, Machine, Outcome, RunningMachine, SerialLine, Shape};

use crate::code::Code;

/// A machine at work, and a view of what it writes to its serial port.
pub(crate) struct Guest {
    pub(crate) machine: RunningMachine,
    output: File,
}

/// 16 MiB and one processor.
pub(crate) fn shape() -> Shape {
    Shape::new(16 << 20)
}

/// Starts `code`; `None`, with a word about it, where there is no KVM.
pub(crate) fn start(code: Code) -> Option<Guest> {
    start_in(shape(), code)
}

pub(crate) fn start_in(shape: Shape, code: Code) -> Option<Guest> {
    start_with(shape, code, |_| ())
}

/// Starts `code` with the devices that `attach` gives the machine.
pub(crate) fn start_with(mut shape: Shape, code: Code, attach: impl FnOnce(&mut Machine)) -> Option<Guest> {
    let output = tempfile::tempfile().unwrap();
    let reader = output.try_clone().unwrap();
    shape.serial = Some(SerialLine { output, input: shape.serial.and_then(|line| line.input) });
    let mut machine = match Machine::new(shape) {
        Ok(machine) => machine,
        Err(Error::Kvm(error @ (KvmError::Absent | KvmError::NoPermission))) => {
            eprintln!("skipped: {error}");
            return None;
        }
        Err(error) => unreachable!("{error}"),
    };
    attach(&mut machine);
    machine.load(boot(code)).unwrap();
    Some(Guest { machine: machine.start().unwrap(), output: reader })
}

pub(crate) fn boot(code: Code) -> Boot {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&code.elf()).unwrap();
    Boot { kernel: BootFile { path: PathBuf::from("payload"), file }, initrd: None, cmdline: String::new() }
}

impl Guest {
    /// What it has printed so far.
    pub(crate) fn output(&self) -> Vec<u8> {
        // The position is the writer's: it is not to be moved.
        let mut bytes = vec![0; usize::try_from(self.output.metadata().unwrap().len()).unwrap()];
        self.output.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Waits until it has printed `text`.
    pub(crate) fn expect(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !String::from_utf8_lossy(&self.output()).contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} in {:?}",
                String::from_utf8_lossy(&self.output())
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end: how it ended, and what it printed.
    pub(crate) fn end(self) -> (Outcome, String) {
        let outcome = self.machine.wait();
        let output = self.output();
        (outcome, String::from_utf8_lossy(&output).into_owned())
    }
}
