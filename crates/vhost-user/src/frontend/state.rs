//! The device's own state, out of a back-end and into it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use parador_virtio::MAX_STATE;
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::RemoteError;
use super::link::Link;
use crate::message::{DeviceStateTransfer, FrontendRequest as R, ProtocolFeatures as F, StateDirection};
use crate::wait::wait;

/// In the answer to `SET_DEVICE_STATE_FD`: an error, and that no descriptor comes with it.
const ERROR: u64 = 0xff;
const NO_FD: u64 = 1 << 8;
/// How long a back-end may take over the next piece of its state.
const PATIENCE: Duration = Duration::from_secs(10);

impl Link {
    /// The device's state; none, if the back-end knows of none and the device does not `need` it.
    /// All rings have been stopped.
    pub(super) fn save_state(&mut self, need: bool) -> Result<Vec<u8>, RemoteError> {
        if !self.protocol.contains(F::DEVICE_STATE) && !need {
            return Ok(Vec::new());
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let theirs = self.begin_transfer(StateDirection::Save, &writer)?;
        // The end of the state is that nobody can write any more: not this process, either.
        drop(writer);
        let mut file = File::from(theirs.unwrap_or(reader));
        let (mut state, mut piece) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            ready(&file, PollFlags::IN)?;
            let got = file.read(&mut piece)?;
            state.extend(&piece[..got]);
            if state.len() > MAX_STATE {
                return Err(RemoteError::Impossible(R::CheckDeviceState.name(), "its state has no end"));
            }
            if got == 0 {
                break;
            }
        }
        drop(file);
        self.check_transfer()?;
        Ok(state)
    }

    /// Has the device go on from `state`. All rings have been stopped.
    pub(super) fn load_state(&mut self, state: &[u8]) -> Result<(), RemoteError> {
        if !self.protocol.contains(F::DEVICE_STATE) {
            let name = R::CheckDeviceState.name();
            return if state.is_empty() { Ok(()) } else { Err(RemoteError::Unknown(name)) };
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let theirs = self.begin_transfer(StateDirection::Load, &reader)?;
        drop(reader);
        let mut file = File::from(theirs.unwrap_or(writer));
        let mut rest = state;
        while !rest.is_empty() {
            ready(&file, PollFlags::OUT)?;
            // No more than a pipe that is ready takes without waiting (PIPE_BUF).
            let sent = file.write(&rest[..rest.len().min(4096)])?;
            rest = &rest[sent..];
        }
        drop(file);
        self.check_transfer()
    }

    /// Says where the state is to go or comes from. The back-end may have something better.
    fn begin_transfer(
        &self,
        direction: StateDirection,
        fd: &OwnedFd,
    ) -> Result<Option<OwnedFd>, RemoteError> {
        let request = R::SetDeviceStateFd(DeviceStateTransfer { direction, phase: 0 });
        let (answer, descriptors): (u64, _) = self.ask_with(&request, &[fd.as_fd()], 1)?;
        if answer & ERROR != 0 {
            return Err(RemoteError::Refused { request: request.name(), code: answer & ERROR });
        }
        Ok(descriptors.into_iter().next().filter(|_| answer & NO_FD == 0))
    }

    fn check_transfer(&self) -> Result<(), RemoteError> {
        match self.ask(&R::CheckDeviceState)? {
            0 => Ok(()),
            code => Err(RemoteError::Refused { request: R::CheckDeviceState.name(), code }),
        }
    }
}

fn ready(file: &File, flags: PollFlags) -> Result<(), RemoteError> {
    let mut fds = [PollFd::new(file, flags)];
    match wait(&mut fds, Some(Instant::now() + PATIENCE))? {
        0 => Err(RemoteError::Silent { request: "SET_DEVICE_STATE_FD", seconds: PATIENCE.as_secs() }),
        _ => Ok(()),
    }
}
