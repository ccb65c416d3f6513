//! A small assembler, and the ELF file around its code.

/// Where the code is loaded and entered: in 32-bit protected mode with flat segments and no paging,
/// or in long mode with the first GiB mapped.
pub(crate) const ORIGIN: u32 = 0x10_0000;

pub(crate) const COM1: u16 = 0x3f8;
pub(crate) const KEYBOARD: u16 = 0x64;
pub(crate) const CLOCK: u16 = 0x70;
pub(crate) const PVPANIC: u16 = 0x505;
pub(crate) const SLEEP_CONTROL: u16 = 0x600;

/// Machine code in the making. Each method appends an instruction or a few.
#[derive(Clone)]
pub(crate) struct Code {
    bytes: Vec<u8>,
    long: bool,
}

impl Code {
    /// 32-bit code, entered as PVH kernels are.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), long: false }
    }

    /// 64-bit code, entered as Linux is.
    pub(crate) fn long() -> Self {
        Self { bytes: Vec::new(), long: true }
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn raw32(self, opcode: &[u8], value: u32) -> Self {
        self.raw(opcode).raw(&value.to_le_bytes())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// Makes the next address one of 32 bits, also in long mode.
    fn absolute(self) -> Self {
        if self.long { self.raw(&[0x67]) } else { self }
    }

    /// The address of what comes next.
    pub(crate) fn here(&self) -> u32 {
        ORIGIN + u32::try_from(self.bytes.len()).unwrap()
    }

    /// `mov dx, port; mov al, value; out dx, al`
    pub(crate) fn out(self, port: u16, value: u8) -> Self {
        self.raw(&[0xb0, value]).out_al(port)
    }

    /// `mov dx, port; out dx, al`
    pub(crate) fn out_al(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes()).raw(&[0xee])
    }

    /// `mov dx, port; mov eax, value; out dx, eax`
    pub(crate) fn out32(self, port: u16, value: u32) -> Self {
        self.mov_eax(value).raw(&[0x66, 0xba]).raw(&port.to_le_bytes()).raw(&[0xef])
    }

    /// `mov dx, port; in al, dx`
    pub(crate) fn in_al(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes()).raw(&[0xec])
    }

    /// `mov dx, port; in eax, dx`
    pub(crate) fn in_eax(self, port: u16) -> Self {
        self.raw(&[0x66, 0xba]).raw(&port.to_le_bytes()).raw(&[0xed])
    }

    pub(crate) fn mov_eax(self, value: u32) -> Self {
        self.raw32(&[0xb8], value)
    }

    pub(crate) fn mov_ecx(self, value: u32) -> Self {
        self.raw32(&[0xb9], value)
    }

    pub(crate) fn mov_edx(self, value: u32) -> Self {
        self.raw32(&[0xba], value)
    }

    /// `mov eax, [address]`
    pub(crate) fn load(self, address: u32) -> Self {
        self.absolute().raw32(&[0xa1], address)
    }

    /// `mov [address], eax`
    pub(crate) fn store(self, address: u32) -> Self {
        self.absolute().raw32(&[0xa3], address)
    }

    /// Writes AL to the serial port.
    pub(crate) fn print_al(self) -> Self {
        self.out_al(COM1)
    }

    /// Writes EAX to the serial port, lowest byte first.
    pub(crate) fn print_eax(self) -> Self {
        const SHIFT: [u8; 3] = [0xc1, 0xe8, 8]; // shr eax, 8
        self.print_al().raw(&SHIFT).print_al().raw(&SHIFT).print_al().raw(&SHIFT).print_al()
    }

    pub(crate) fn print(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(COM1, byte))
    }

    /// Writes `value` to memory-mapped `address`.
    pub(crate) fn poke(self, address: u32, value: u32) -> Self {
        self.mov_eax(value).store(address)
    }

    pub(crate) fn hlt(self) -> Self {
        self.raw(&[0xf4])
    }

    /// Jumps back to `target`, if `condition` is an opcode such as 0x75 (not zero), or always (0xeb).
    pub(crate) fn jump(self, condition: u8, target: u32) -> Self {
        let distance = i64::from(target) - i64::from(self.here() + 2);
        self.raw(&[condition, i8::try_from(distance).unwrap() as u8])
    }

    /// Goes on for ever, without an exit.
    pub(crate) fn spin(self) -> Self {
        self.raw(&[0xeb, 0xfe])
    }

    /// Switches the machine off.
    pub(crate) fn power_off(self) -> Self {
        self.out(SLEEP_CONTROL, 5 << 2 | 1 << 5).spin()
    }

    /// The ELF file of this code: a PVH kernel, or a plain one.
    pub(crate) fn elf(self) -> Vec<u8> {
        const HEADER: usize = 64;
        const SEGMENT: usize = 56;
        const NOTE: usize = 20;
        let note_at = HEADER + 2 * SEGMENT;
        let code_at = note_at + NOTE;
        let mut elf = Vec::new();
        elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        elf.extend([2_u16, 62].iter().flat_map(|value| value.to_le_bytes())); // executable, x86-64
        elf.extend(1_u32.to_le_bytes());
        elf.extend([u64::from(ORIGIN), HEADER as u64, 0].iter().flat_map(|value| value.to_le_bytes()));
        elf.extend(0_u32.to_le_bytes());
        elf.extend([HEADER as u16, SEGMENT as u16, 2, 64, 0, 0].iter().flat_map(|value| value.to_le_bytes()));
        let segment = |kind: u32, at: usize, address: u32, size: usize| {
            let mut bytes = Vec::new();
            bytes.extend([kind, 7].iter().flat_map(|value| value.to_le_bytes()));
            let (at, address, size) = (at as u64, u64::from(address), size as u64);
            bytes.extend([at, address, address, size, size, 4].iter().flat_map(|value| value.to_le_bytes()));
            bytes
        };
        elf.extend(segment(1, code_at, ORIGIN, self.bytes.len()));
        // Without a note of its own, long-mode code is entered at the file's entry.
        elf.extend(segment(if self.long { 0 } else { 4 }, note_at, 0, NOTE));
        elf.extend([4_u32, 4, 18].iter().flat_map(|value| value.to_le_bytes()));
        elf.extend(b"Xen\0");
        elf.extend(ORIGIN.to_le_bytes());
        assert_eq!(elf.len(), code_at);
        elf.extend(self.bytes);
        elf
    }
}
