//! Guests of a few instructions: ELF files with a PVH entry, assembled by hand.

/// Where the code is loaded.
const START: u32 = 0x10_0000;
/// Where it is in the file.
const OFFSET: usize = 0x100;

const COM1: u16 = 0x3f8;

/// 32-bit code being written.
#[derive(Default)]
pub(crate) struct Code(Vec<u8>);

impl Code {
    /// Writes `text` to the serial port.
    pub(crate) fn print(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self = self.out(COM1, byte);
        }
        self
    }

    /// Writes `value` to `port`.
    pub(crate) fn out(mut self, port: u16, value: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        // mov dx, port; mov al, value; out dx, al
        self.0.extend([0x66, 0xba, low, high, 0xb0, value, 0xee]);
        self
    }

    /// Sends back what is typed, up to and including `q`.
    pub(crate) fn echo_until_q(mut self) -> Self {
        self.0.extend([
            0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd (line status)
            0xec, // in al, dx
            0xa8, 0x01, // test al, 1 (data ready)
            0x74, 0xf7, // jz wait
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xec, // in al, dx
            0xee, // out dx, al
            0x3c, b'q', // cmp al, 'q'
            0x75, 0xed, // jne wait
        ]);
        self
    }

    /// Switches the machine off.
    pub(crate) fn power_off(self) -> Self {
        self.out(0x600, 0x34)
    }

    /// Resets the machine through the keyboard controller.
    pub(crate) fn reset(self) -> Self {
        self.out(0x64, 0xfe)
    }

    /// Reports a panic.
    pub(crate) fn panic(self) -> Self {
        self.out(0x505, 1)
    }

    /// The file; the processor halts after the code.
    pub(crate) fn elf(self) -> Vec<u8> {
        let mut code = self.0;
        code.extend([0xf4, 0xeb, 0xfd]); // again: hlt; jmp again
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64
        elf.extend(u64::from(START).to_le_bytes()); // entry
        elf.extend(64u64.to_le_bytes()); // program headers
        elf.extend([0; 12]); // section headers, flags
        elf.extend([64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
        let segment = |elf: &mut Vec<u8>, kind: u32, offset: usize, address: u32, size: usize| {
            elf.extend(kind.to_le_bytes());
            elf.extend(7u32.to_le_bytes());
            for word in [offset as u64, address.into(), address.into(), size as u64, size as u64, 4] {
                elf.extend(word.to_le_bytes());
            }
        };
        segment(&mut elf, 1, OFFSET, START, code.len());
        segment(&mut elf, 4, 176, 0, 20);
        // XEN_ELFNOTE_PHYS32_ENTRY
        for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), START] {
            elf.extend(word.to_le_bytes());
        }
        elf.resize(OFFSET, 0);
        elf.extend(code);
        elf
    }
}
