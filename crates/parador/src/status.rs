//! How the process ends, for scripts and supervisors.

/// Exit status of the process. The numbers are part of the interface (`parador help`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// The guest switched itself off, or there was no guest to run.
    PoweredOff = 0,
    /// The VMM or the host could not do it.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was started.
    Usage = 2,
    /// The guest asked to be reset, and `on_reset=stop`.
    Reset = 3,
    /// The guest panicked, and `on_panic=stop`.
    Panicked = 4,
    /// Ended from outside without the guest's consent.
    Stopped = 5,
}

impl Status {
    /// The status whose number is `code`.
    pub(crate) fn of(code: i32) -> Option<Self> {
        let all = [Self::PoweredOff, Self::Failed, Self::Usage, Self::Reset, Self::Panicked, Self::Stopped];
        all.into_iter().find(|status| i32::from(*status as u8) == code)
    }
}
