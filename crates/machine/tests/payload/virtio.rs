//! A virtio device from the first register to the interrupt, through real ioeventfds and irqfds.

use std::io;

use parador_machine::{Machine, Outcome};
use parador_virtio::{Identity, Lane, Queue, QueueHandler, QueueSetup, QueueState, RingError, VirtioDevice};

use crate::code::Code;
use crate::guest::{shape, start_with};
use crate::life::reboot_until;

/// Answers every request with the request's own bytes.
struct Echo {
    identity: Identity,
    lane: Lane<EchoQueue>,
}

struct EchoQueue;

impl Echo {
    fn new() -> Self {
        let queue_sizes = [16].into();
        let identity = Identity {
            kind: 42,
            features: 0,
            required: 0,
            queue_sizes,
            config_len: 0,
            ..Identity::default()
        };
        Self { identity, lane: Lane::new(EchoQueue) }
    }
}

impl VirtioDevice for Echo {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn read_config(&self, _offset: usize, data: &mut [u8]) {
        data.fill(0);
    }

    fn start_queue(&mut self, setup: QueueSetup) -> io::Result<()> {
        self.lane.start("echo", setup)
    }

    fn stop_queue(&mut self, _index: u16) -> Option<QueueState> {
        self.lane.stop()
    }
}

impl QueueHandler for EchoQueue {
    fn run(&mut self, queue: &mut Queue) -> Result<(), RingError> {
        let mut data = [0; 64];
        while let Some(chain) = queue.pop()? {
            let len = chain.reader().read(&mut data);
            let written = chain.writer().write(&data[..len]);
            queue.push(chain, u32::try_from(written).unwrap());
        }
        Ok(())
    }
}

/// Configuration space of slot 1, and where its BAR is at power-on.
const CONFIG: u32 = 0xe000_8000;
const BAR: u32 = 0xc000_0000;
const APIC: u32 = 0xfee0_0000;
const VECTOR: u32 = 0x41;
const DESCRIPTORS: u32 = 0x20_0000;
const AVAILABLE: u32 = 0x20_1000;
const USED: u32 = 0x20_2000;
const REQUEST: u32 = 0x20_3000;
const ANSWER: u32 = 0x20_4000;

/// Finds the MSI-X capability where it is, agrees on VERSION_1 and nothing else, and starts queue 0,
/// which interrupts through vector 1.
fn bring_up() -> Code {
    const STATUS: u32 = BAR + 0x14;
    const MSIX: u32 = CONFIG + 0x40;
    const ENTRY: u32 = BAR + 0x4000 + 16;
    Code::new()
        .poke(APIC + 0xf0, 0x1ff)
        .poke(CONFIG + 4, 6)
        .poke(MSIX, 1 << 31)
        .poke(ENTRY, APIC)
        .poke(ENTRY + 8, VECTOR)
        .poke(ENTRY + 12, 0)
        .poke(STATUS, 0)
        .poke(STATUS, 1)
        .poke(STATUS, 3)
        .poke(BAR + 0x08, 1)
        .poke(BAR + 0x0c, 1)
        .poke(STATUS, 11)
        .poke(BAR + 0x18, 1 << 16 | 16) // size, and its vector
        .poke(BAR + 0x20, DESCRIPTORS)
        .poke(BAR + 0x28, AVAILABLE)
        .poke(BAR + 0x30, USED)
        .poke(BAR + 0x1c, 1)
        .poke(STATUS, 15)
        .load(STATUS)
        .raw(&[0x04, b'0']) // add al, '0': '?' if all went well
        .print_al()
}

/// Sends four bytes and waits until `count` requests have come back.
fn request(text: [u8; 4], count: u32) -> Code {
    let code = Code::new()
        .poke(REQUEST, u32::from_le_bytes(text))
        .poke(DESCRIPTORS, REQUEST)
        .poke(DESCRIPTORS + 8, 4)
        .poke(DESCRIPTORS + 12, 1 << 16 | 1) // goes on at 1
        .poke(DESCRIPTORS + 16, ANSWER)
        .poke(DESCRIPTORS + 24, 4)
        .poke(DESCRIPTORS + 28, 2) // for the device to write
        .poke(AVAILABLE, count << 16)
        .poke(BAR + 0x1000, 0);
    let wait = code.here();
    code.load(USED)
        .raw(&[0x3d]) // cmp eax, imm32
        .raw(&(count << 16).to_le_bytes())
        .jump(0x75, wait)
        .load(ANSWER)
        .print_eax()
}

/// Waits until the interrupt is pending in the local APIC; interrupts are off.
fn poll_for_the_interrupt() -> Code {
    let code = Code::new();
    let wait = code.here();
    code.load(APIC + 0x200 + (VECTOR / 32) * 0x10)
        .raw(&[0xa8, 1 << (VECTOR % 32)])
        .jump(0x74, wait)
        .print("i")
}

#[test]
fn a_guest_drives_a_device_in_every_life() {
    // The second request finds the device asleep: only the kick can have woken it.
    let code = [
        request(*b"one\n", 1),
        poll_for_the_interrupt(),
        request(*b"two\n", 2),
        request(*b"six\n", 3),
        reboot_until(3),
    ];
    let code = code.iter().fold(bring_up(), |code, part| code.raw(&part.bytes()));
    let attach = |machine: &mut Machine| {
        machine.attach(Box::new(Echo::new()), None).unwrap();
    };
    let Some(guest) = start_with(shape(), code, attach) else { return };
    let life = "?one\nitwo\nsix\n";
    assert_eq!(guest.end(), (Outcome::PoweredOff, format!("{life}r{life}r{life}!")));
}
