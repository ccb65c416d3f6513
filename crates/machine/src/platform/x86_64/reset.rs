//! What stands in for firmware when a kernel asks it for a reset.
//!
//! Linux resets a machine of reduced hardware through EFI, or, where there is none, by a jump to the
//! reset vector in real mode. Without an instruction there it would run through zeros for ever.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{I8042_PORT, RESET_VECTOR};

/// Writes the instructions at [`RESET_VECTOR`]: they have the keyboard controller reset the machine.
///
/// # Errors
/// There is no `memory` there.
pub fn write_vector<M: Bytes<GuestAddress, E = GuestMemoryError>>(
    memory: &M,
) -> Result<(), GuestMemoryError> {
    // mov al, 0xfe; out I8042_PORT, al; jmp $
    memory.write_slice(&[0xB0, 0xFE, 0xE6, I8042_PORT as u8, 0xEB, 0xFE], GuestAddress(RESET_VECTOR))
}
