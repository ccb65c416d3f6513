//! Keys a person types at a running machine: those for the guest, and those for us.

/// Starts a command to us: Ctrl-A.
const PREFIX: u8 = 0x01;

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    /// It is for the guest.
    Guest(u8),
    /// It began or was no command.
    Nothing,
    /// End the machine at once.
    Quit,
    /// Press the power button.
    PowerButton,
    /// List the commands.
    Help,
}

/// The list of commands.
pub(crate) const COMMANDS: &str = "
Ctrl-A x       end the machine at once
Ctrl-A p       press its power button
Ctrl-A Ctrl-A  send Ctrl-A to the guest
";

/// Tells commands from what is for the guest.
#[derive(Debug, Default)]
pub(crate) struct Keyboard {
    prefixed: bool,
}

impl Keyboard {
    /// What `key` does, after all before it.
    pub(crate) fn typed(&mut self, key: u8) -> Typed {
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = key == PREFIX;
            return if self.prefixed { Typed::Nothing } else { Typed::Guest(key) };
        }
        match key {
            b'x' => Typed::Quit,
            b'p' => Typed::PowerButton,
            b'?' | b'h' => Typed::Help,
            PREFIX | b'a' => Typed::Guest(PREFIX),
            _ => Typed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_all(keys: &[u8]) -> Vec<Typed> {
        let mut keyboard = Keyboard::default();
        keys.iter().map(|&key| keyboard.typed(key)).filter(|typed| *typed != Typed::Nothing).collect()
    }

    #[test]
    fn keys_go_to_the_guest_but_for_commands() {
        assert_eq!(type_all(b"x\x03\x04"), [Typed::Guest(b'x'), Typed::Guest(3), Typed::Guest(4)]);
        assert_eq!(type_all(b"\x01x"), [Typed::Quit]);
        assert_eq!(type_all(b"\x01p\x01?"), [Typed::PowerButton, Typed::Help]);
        assert_eq!(type_all(b"\x01\x01x"), [Typed::Guest(1), Typed::Guest(b'x')], "Ctrl-A for the guest");
        assert_eq!(
            type_all(b"\x01zx"),
            [Typed::Guest(b'x')],
            "what is no command is dropped with its prefix"
        );
    }
}
