//! A device's shared memory, from the BAR to the bytes of the file that is mapped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parador_machine::{Machine, Outcome};
use parador_virtio::{
    Identity, QueueSetup, QueueState, SharedMemory, SharedPiece, SharedRegion, VirtioDevice,
};

use crate::code::Code;
use crate::guest::{shape, start_with};
use crate::life::reboot_until;

const PAGE: u64 = 4096;

/// Shows the first page of a file for writing, and the second, two pages on, for reading.
struct Show {
    identity: Identity,
    file: File,
}

impl Show {
    fn new(file: File) -> Self {
        let shared_memory = [SharedRegion { id: 3, size: 2 << 20 }].into();
        Self { identity: Identity { kind: 42, shared_memory, ..Identity::default() }, file }
    }
}

impl VirtioDevice for Show {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&mut self, _setup: QueueSetup) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        None
    }

    fn on_shared_memory(&mut self, memory: Arc<dyn SharedMemory>) {
        let piece = |offset| SharedPiece { region: 3, offset, len: PAGE };
        memory.map(piece(0), &self.file, 0, true).unwrap();
        memory.map(piece(2 * PAGE), &self.file, PAGE, false).unwrap();
    }
}

/// Configuration space of slot 1, and where its registers are at power-on.
const CONFIG: u32 = 0xe000_8000;
const STATUS: u32 = 0xc000_0014;
/// Two places for the memory.
const HERE: u32 = 0xd000_0000;
const THERE: u32 = 0xd100_0000;

fn place(address: u32) -> Code {
    Code::new().poke(CONFIG + 0x18, address).poke(CONFIG + 0x1c, 0).poke(CONFIG + 4, 2)
}

fn show(address: u32) -> Code {
    Code::new().load(address).print_eax()
}

fn file() -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"file", 0).unwrap();
    file.write_all_at(b"2nd.", PAGE).unwrap();
    file.set_len(2 * PAGE).unwrap();
    file
}

fn run(code: &[Code], file: &File) -> Option<(Outcome, Vec<u8>)> {
    let code = code.iter().fold(Code::new(), |code, part| code.raw(&part.bytes()));
    run_one(code, file)
}

fn run_one(code: Code, file: &File) -> Option<(Outcome, Vec<u8>)> {
    let device = Show::new(file.try_clone().unwrap());
    let guest = start_with(shape(), code, |machine: &mut Machine| {
        machine.attach(Box::new(device), None).unwrap();
    })?;
    Some((guest.machine.wait(), guest.output()))
}

fn read(file: &File, offset: u64) -> [u8; 4] {
    let mut data = [0; 4];
    file.read_exact_at(&mut data, offset).unwrap();
    data
}

#[test]
fn a_guest_shares_memory_with_a_device_wherever_it_puts_it_and_in_every_life() {
    let code = [
        place(HERE),
        show(HERE),
        show(HERE + 0x1000), // where nothing is
        show(HERE + 0x2000),
        Code::new().poke(HERE + 8, u32::from_le_bytes(*b"mine")),
        place(THERE),
        show(HERE), // nothing at all
        show(THERE + 8),
        reboot_until(2),
    ];
    let file = file();
    let Some((outcome, output)) = run(&code, &file) else { return };
    assert_eq!(outcome, Outcome::PoweredOff);
    let life = b"file\0\0\0\x002nd.\xff\xff\xff\xffmine";
    assert_eq!(output, [&life[..], b"r", life, b"!"].concat());
    assert_eq!(read(&file, 8), *b"mine", "it is the file that was written to");
}

#[test]
fn a_guest_that_touches_what_it_cannot_loses_the_memory_until_a_reset_and_lives_on() {
    for forbidden in [THERE + 0x1000, THERE + 0x2000] {
        let code = [
            place(THERE),
            show(THERE),
            Code::new().poke(forbidden, u32::from_le_bytes(*b"bad!")),
            show(THERE),
            Code::new().load(STATUS).print_al(),
            Code::new().poke(STATUS, 0),
            show(THERE),
            Code::new().power_off(),
        ];
        let file = file();
        let Some((outcome, output)) = run(&code, &file) else { return };
        assert_eq!(outcome, Outcome::PoweredOff);
        // A software KVM drops what cannot be written and says nothing.
        let (lost, dropped) = (b"file\xff\xff\xff\xff@file", b"filefile\0file");
        assert!(output == lost || output == dropped, "{output:x?}");
        assert_eq!(read(&file, PAGE), *b"2nd.", "what is shown for reading is not written to");
    }
}

#[test]
fn a_file_that_becomes_shorter_does_not_end_the_guest() {
    let file = file();
    let cut = file.try_clone().unwrap();
    let wait = Code::new().print("r\n");
    let here = wait.here();
    let wait = wait.load(HERE).raw(&[0x3d]).raw(b"file").jump(0x74, here); // cmp eax, "file"; je
    let code = [place(HERE), wait, show(HERE), Code::new().power_off()];
    // The jump is relative, and so right wherever its part is.
    let code = code.iter().fold(Code::new(), |code, part| code.raw(&part.bytes()));
    let device = Show::new(file);
    let guest = start_with(shape(), code, |machine: &mut Machine| {
        machine.attach(Box::new(device), None).unwrap();
    });
    let Some(guest) = guest else { return };
    guest.expect("r");
    cut.set_len(0).unwrap();
    assert_eq!(guest.machine.wait(), Outcome::PoweredOff);
    assert_eq!(guest.output(), b"r\n\xff\xff\xff\xff");
}

#[test]
fn the_memory_is_above_four_gib_where_it_was_put_at_power_on() {
    const PAGE_DIRECTORY: u32 = 0x30_2000;
    /// The entry of the fourth GiB in the table that the long-mode entry comes with.
    const FOURTH_GIB: u32 = 0xa000 + 3 * 8;
    const SHOWN: u32 = 0xc020_0000;
    let entry = |address: u32| PAGE_DIRECTORY + (address >> 21 & 511) * 8;
    let code = Code::long()
        .poke(FOURTH_GIB, PAGE_DIRECTORY | 3)
        .poke(entry(CONFIG), 0xe000_0000 | 0x93)
        .poke(CONFIG + 4, 2)
        .load(CONFIG + 0x18)
        .raw(&[0x25, 0, 0, 0xe0, 0xff]) // and eax, 0xffe00000
        .raw(&[0x0d, 0x83, 0, 0, 0]) // or eax, 0x83
        .store(entry(SHOWN))
        .load(CONFIG + 0x1c)
        .store(entry(SHOWN) + 4)
        .print_eax()
        .load(SHOWN)
        .print_eax()
        .power_off();
    let Some((outcome, output)) = run_one(code, &file()) else { return };
    assert_eq!((outcome, &output[4..]), (Outcome::PoweredOff, &b"file"[..]));
    assert_ne!(output[..4], [0; 4], "the address has more than 32 bits");
}
