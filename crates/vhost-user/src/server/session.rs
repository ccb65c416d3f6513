//! One front-end: its messages, and what each does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parador_virtio::{DirtyLog, EventFd, InflightRegion, Interrupt, LogLimit, SharedMemory, VirtioDevice};
use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::channel::Channel;
use super::memory::{MAX_REGIONS, Memory};
use super::ring::{Kick, Ring, Rings};
use super::transfer::Transfer;
use super::{PATIENCE, Refusal, SessionError, host, offered};
use crate::message::{
    BackendRequest, Config, DeviceStateTransfer, F_PROTOCOL_FEATURES, FrontendRequest as R, Inflight, Log,
    LogBase, MAX_SHARED_REGIONS, MemoryRegion, Message, MessageError, Payload, ProtocolFeatures as F,
    SharedMemoryConfig, StateDirection, VringAddr, VringFd, VringState,
};
use crate::socket::Connection;
use crate::wait::borrow;

/// Protocol features that some front-ends accept without having been offered them: in-band
/// notifications, which they do not use, and addresses that are the guest's, which need nothing.
const TOLERATED: F = F(F::INBAND_NOTIFICATIONS.0 | F::GPA_ADDRESSES.0);
/// Of the status: device and driver agree on the features (virtio 1.3 §2.1).
const FEATURES_OK: u64 = 8;
/// The largest ring there is.
const MAX_RING: u16 = 32768;

/// One front-end and the device as it has set it up.
pub(super) struct Session<'a> {
    connection: Connection,
    rings: Rings<'a>,
    offered: (u64, F),
    protocol: F,
    status: u64,
    channel: Arc<Channel>,
    /// Fires when the configuration has changed and the front-end was not told yet.
    changed: EventFd,
    transfer: Transfer,
    /// What the device's state was when the status became zero: QEMU asks for it afterwards.
    kept: Option<Vec<u8>>,
}

/// What is sent for a request.
enum Answer {
    /// Nothing, but for an acknowledgement if one was asked for.
    Done,
    /// The reply that the request has of its own.
    Reply(Vec<u8>),
    /// One with a descriptor beside it.
    WithFd(Vec<u8>, OwnedFd),
}

type Result<T, E = Refusal> = std::result::Result<T, E>;

impl<'a> Session<'a> {
    pub(super) fn new(device: &'a mut dyn VirtioDevice, stream: UnixStream) -> io::Result<Self> {
        let connection = Connection::new(stream);
        connection.set_patience(Some(PATIENCE))?;
        let changed = EventFd::new(EFD_NONBLOCK)?;
        let channel = Arc::new(Channel::default());
        device.on_config_change(Interrupt::from_eventfd(changed.try_clone()?));
        if !device.identity().shared_memory.is_empty() {
            device.on_shared_memory(Arc::clone(&channel) as Arc<dyn SharedMemory>);
        }
        Ok(Self {
            offered: offered(device),
            connection,
            rings: Rings::new(device),
            protocol: F::default(),
            status: 0,
            channel,
            changed,
            transfer: Transfer::None,
            kept: None,
        })
    }

    /// Handles messages until the front-end hangs up or `stop` fires.
    pub(super) fn run(mut self, stop: &EventFd) -> Result<(), SessionError> {
        loop {
            let told = !self.rings.are_suspended() && self.channel.takes(&BackendRequest::ConfigChange);
            let [stopped, message, changed, moved] = host::wait([
                Some((borrow(stop), PollFlags::IN)),
                Some((self.connection.as_fd(), PollFlags::IN)),
                told.then(|| (borrow(&self.changed), PollFlags::IN)),
                self.transfer.waits_for(),
            ])?;
            if stopped {
                return Ok(());
            }
            if moved {
                self.transfer.step();
            }
            if changed && self.changed.read().is_ok() {
                self.channel.tell(&BackendRequest::ConfigChange);
            }
            if message {
                let Some((message, fds)) = self.connection.receive()? else { return Ok(()) };
                self.take(&message, fds)?;
            }
        }
    }

    /// Does what a message asks for and answers.
    fn take(&mut self, message: &Message, fds: Vec<OwnedFd>) -> Result<(), SessionError> {
        let request = R::parse(message);
        tracing::debug!(?request, fds = fds.len(), "asked");
        let name =
            request.as_ref().map_or_else(|_| format!("request {}", message.request), |it| it.name().into());
        let replies = request.as_ref().is_ok_and(R::has_reply);
        let answer = match request {
            Ok(request) => self.check(&request, fds.len()).and_then(|()| self.handle(request, fds)),
            // Its reply says so in a way of its own.
            Err(_) if message.request == GET_CONFIG => Ok(Answer::Reply(Vec::new())),
            Err(error) => Err(error.into()),
        };
        let acknowledged = message.needs_reply() && self.protocol.contains(F::REPLY_ACK);
        match answer {
            Ok(Answer::Reply(payload)) => self.connection.send(&message.reply(payload), &[])?,
            Ok(Answer::WithFd(payload, fd)) => {
                self.connection.send(&message.reply(payload), &[fd.as_fd()])?;
            }
            Ok(Answer::Done) if acknowledged => self.connection.send(&message.ack(0), &[])?,
            Ok(Answer::Done) => {}
            Err(why) if acknowledged && !replies => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(dropped) = LIMIT.pass() {
                    tracing::warn!(dropped, "{name} was refused: {why}");
                }
                self.connection.send(&message.ack(1), &[])?;
            }
            Err(why) => return Err(SessionError::Refused { request: name, why }),
        }
        Ok(())
    }

    /// That a request was offered and has its descriptors.
    fn check(&self, request: &R, fds: usize) -> Result<()> {
        if !request.descriptors().contains(&fds) {
            return Err(MessageError::Descriptors { request: request.number(), count: fds }.into());
        }
        // What was accepted is not looked at: one that comes back may not repeat itself.
        if !self.offered.1.contains(request.gate()) {
            return Err(Refusal::Value("it was not offered"));
        }
        Ok(())
    }

    fn handle(&mut self, request: R, fds: Vec<OwnedFd>) -> Result<Answer> {
        let mut fds = fds.into_iter();
        let mut fd = || fds.next().ok_or(Refusal::Value("it has no descriptor")); // their number was checked
        let reply = |value: u64| Ok(Answer::Reply(value.payload()));
        match request {
            R::GetFeatures => return reply(self.offered.0),
            R::GetProtocolFeatures => return reply(self.offered.1.0),
            R::GetQueueNum => return reply(self.rings.count() as u64),
            R::GetMaxMemSlots => return reply(MAX_REGIONS as u64),
            R::GetStatus => return reply(self.status),
            R::GetShmemConfig => return Ok(Answer::Reply(self.shared_memory().payload())),
            R::GetConfig(config) => return Ok(Answer::Reply(self.read_config(config))),
            R::GetInflightFd(wanted) => return inflight_file(wanted),
            R::GetVringBase(ring) => return self.stop_ring(ring, false),
            R::GetVringBaseSkipDrain(ring) => return self.stop_ring(ring, true),
            R::SetDeviceStateFd(transfer) => return reply(self.begin_transfer(transfer, fd()?)),
            R::CheckDeviceState => return reply(self.end_transfer().is_err().into()),
            // Nobody was offered to have them.
            R::IotlbMsg(_) => return reply(1),

            R::SetOwner | R::ResetOwner => {}
            R::SetFeatures(features) => self.set_features(features)?,
            R::SetProtocolFeatures(features) => self.set_protocol_features(F(features))?,
            R::SetMemTable(table) => {
                let memory = Memory::of_table(&table, fds.collect(), self.has_guest_addresses())?;
                self.set_memory(memory)?;
            }
            R::AddMemReg(region) => self.add_region(region, fd()?)?,
            R::RemMemReg(region) => self.set_memory(self.rings.shared.memory.without(&region)?)?,
            R::SetLogBase(LogBase::Shared(log)) => {
                self.set_log(log, fd()?)?;
                // Nobody says what the reply has in it. The vhost crate waits for as much as it sent.
                return match self.protocol.contains(F::LOG_SHMFD) {
                    true => Ok(Answer::Reply(log.payload())),
                    false => Ok(Answer::Done),
                };
            }
            // The log is always looked at as a whole, so nobody has to be woken for it.
            R::SetLogFd => drop(fd()?),
            R::SetVringNum(state) => self.set_size(state)?,
            R::SetVringAddr(address) => self.set_address(address)?,
            R::SetVringBase(state) => self.set_base(state)?,
            R::SetVringKick(ring) => {
                let kick = if ring.has_fd { Kick::Fd(host::event_fd(fd()?)) } else { Kick::Poll };
                self.start_ring(u32::from(ring.index), kick)?;
            }
            R::SetVringCall(ring) => {
                let call = interrupt(ring, fd)?;
                self.set_ring(u32::from(ring.index), |ring| ring.call = call)?;
            }
            R::SetVringErr(ring) => {
                let error = interrupt(ring, fd)?;
                self.set_ring(u32::from(ring.index), |ring| ring.error = error)?;
            }
            R::SetVringEnable(VringState { index, num }) => {
                let enabled = match num {
                    0 => false,
                    1 => true,
                    _ => return Err(Refusal::Value("a ring is enabled by 1 and disabled by 0")),
                };
                self.set_ring(index, |ring| ring.enabled = enabled)?;
            }
            R::SetConfig(config) => self.write_config(&config)?,
            R::SetInflightFd(region) => self.set_inflight(region, fd()?)?,
            R::SetBackendReqFd => {
                let opened = self.channel.open(Connection::new(UnixStream::from(fd()?)));
                opened.map_err(|error| Refusal::Host("the channel cannot be used", error))?;
            }
            R::ResetDevice => {
                self.rings.reset(true);
                (self.status, self.kept) = (0, None);
            }
            R::SetStatus(status) => self.set_status(status),

            R::SetLogBase(LogBase::Address(_)) => {
                return Err(Refusal::Value("the log has to be a descriptor"));
            }
            R::SendRarp(_)
            | R::NetSetMtu(_)
            | R::SetVringEndian(_)
            | R::CreateCryptoSession(_)
            | R::CloseCryptoSession(_)
            | R::PostcopyAdvise
            | R::PostcopyListen
            | R::PostcopyEnd
            | R::GpuSetSocket
            | R::VringKick(_)
            | R::GetSharedObject(_) => return Err(Refusal::Value("it was not offered")),
        }
        Ok(Answer::Done)
    }

    fn has_guest_addresses(&self) -> bool {
        self.protocol.contains(F::GPA_ADDRESSES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.offered.0 != 0 {
            return Err(Refusal::Value("features that were not offered"));
        }
        let enables = features & F_PROTOCOL_FEATURES == 0;
        let same = features == self.rings.shared.features;
        if same && !enables {
            return Ok(());
        }
        self.rings.change_all(|shared, rings| {
            shared.features = features;
            rings.iter_mut().for_each(|ring| ring.enabled |= enables);
        })
    }

    fn set_protocol_features(&mut self, features: F) -> Result<()> {
        let needs = |feature, needed| !features.contains(feature) || features.contains(needed);
        if (F(!0) & features).0 & !(self.offered.1 | TOLERATED).0 != 0 {
            return Err(Refusal::Value("features that were not offered"));
        }
        if !needs(F::INBAND_NOTIFICATIONS, F::REPLY_ACK | F::BACKEND_REQ)
            || !needs(F::GET_VRING_BASE_INFLIGHT, F::INFLIGHT_SHMFD)
            || !needs(F::GET_VRING_BASE_SKIP_DRAIN, F::GET_VRING_BASE_INFLIGHT | F::INFLIGHT_SHMFD)
        {
            return Err(Refusal::Value("a feature without the one it needs"));
        }
        self.protocol = features;
        self.channel.negotiated(features);
        Ok(())
    }

    fn set_memory(&mut self, memory: Memory) -> Result<()> {
        self.rings.change_all(|shared, _| shared.memory = memory)
    }

    fn add_region(&mut self, region: MemoryRegion, fd: OwnedFd) -> Result<()> {
        let memory = self.rings.shared.memory.with(region, fd, self.has_guest_addresses())?;
        self.set_memory(memory)
    }

    fn set_log(&mut self, log: Log, fd: OwnedFd) -> Result<()> {
        let log = DirtyLog::map(File::from(fd), log.offset, log.size)
            .map_err(|error| Refusal::Host("the log cannot be mapped", error))?;
        self.rings.change_all(|shared, _| shared.log = Some(Arc::new(log)))
    }

    fn set_inflight(&mut self, region: Inflight, fd: OwnedFd) -> Result<()> {
        let Inflight { mmap_size, mmap_offset, queues, queue_size } = region;
        let region = InflightRegion::map(File::from(fd), mmap_offset, mmap_size, queues, queue_size)
            .map_err(|error| Refusal::Host("the requests in flight cannot be mapped", error))?;
        self.rings.change_all(|shared, _| shared.inflight = Some(region))
    }

    fn set_ring(&mut self, index: u32, change: impl FnOnce(&mut Ring)) -> Result<()> {
        let index = self.rings.index(index)?;
        self.rings.change(index, change)
    }

    fn start_ring(&mut self, index: u32, kick: Kick) -> Result<()> {
        self.kept = None;
        let started = self.set_ring(index, |ring| ring.kick = Some(kick));
        // What was refused has not happened.
        started.inspect_err(|_| drop(self.rings.index(index).map(|index| self.rings.stop(index, false))))
    }

    fn set_size(&mut self, VringState { index, num }: VringState) -> Result<()> {
        let index = self.rings.index(index)?;
        let most = self.rings.device.identity().queue_sizes[usize::from(index)];
        let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= most);
        let size = size.ok_or(Refusal::Value("a ring's size is a power of two, up to the device's"))?;
        self.check_place(size, self.rings.ring(index).address.as_ref())?;
        self.rings.change(index, |ring| ring.size = Some(size))
    }

    fn set_address(&mut self, address: VringAddr) -> Result<()> {
        let index = self.rings.index(address.index)?;
        self.check_place(self.rings.ring(index).size.unwrap_or(1), Some(&address))?;
        self.rings.change(index, |ring| ring.address = Some(address))
    }

    fn check_place(&self, size: u16, address: Option<&VringAddr>) -> Result<()> {
        match address.map(|address| self.rings.layout(size, address)) {
            Some(None) => Err(Refusal::Value("the ring is not aligned, or not in one region of memory")),
            Some(Some(_)) | None => Ok(()),
        }
    }

    fn set_base(&mut self, VringState { index, num }: VringState) -> Result<()> {
        let base = u16::try_from(num).map_err(|_| Refusal::Value("a split ring's base has 16 bits"))?;
        self.set_ring(index, |ring| ring.base = base)
    }

    fn stop_ring(&mut self, VringState { index, num: _ }: VringState, at_once: bool) -> Result<Answer> {
        let index = self.rings.index(index)?;
        let base = self.rings.stop(index, at_once);
        Ok(Answer::Reply(VringState { index: u32::from(index), num: u32::from(base) }.payload()))
    }

    /// Part of the configuration space, with zeroes beyond its end; nothing, which says that it is
    /// wrong to ask, for what is all beyond.
    fn read_config(&self, config: Config) -> Vec<u8> {
        let device = &self.rings.device;
        if config.offset as usize > device.identity().config_len {
            return Vec::new();
        }
        let mut config = config;
        device.read_config(config.offset as usize, &mut config.data);
        config.payload()
    }

    /// Writes to the configuration space. What the device does not take is refused, and why it is
    /// written makes no difference to that.
    fn write_config(&mut self, Config { offset, flags: _, data }: &Config) -> Result<()> {
        let device = &mut self.rings.device;
        let offset = *offset as usize;
        if offset + data.len() > device.identity().config_len {
            return Err(Refusal::Value("the configuration space ends before that"));
        }
        device.write_config(offset, data);
        let mut now = vec![0; data.len()];
        device.read_config(offset, &mut now);
        if now == *data { Ok(()) } else { Err(Refusal::Value("a field that cannot be written")) }
    }

    fn shared_memory(&self) -> SharedMemoryConfig {
        let mut sizes = Box::new([0; MAX_SHARED_REGIONS]);
        for region in &self.rings.device.identity().shared_memory {
            sizes[usize::from(region.id)] = region.size;
        }
        SharedMemoryConfig { sizes }
    }

    /// Zero is a reset. Requests are completed first, and where rings are can still be asked for.
    fn set_status(&mut self, status: u64) {
        self.kept = None;
        if status == 0 {
            let wanted = self.protocol.contains(F::DEVICE_STATE);
            self.rings.stop_all();
            self.kept = wanted.then(|| self.rings.device.save().ok()).flatten();
            self.rings.reset(false);
        }
        let required = self.rings.device.identity().required;
        let agreed = self.rings.shared.features & required == required;
        self.status = if agreed { status } else { status & !FEATURES_OK };
    }

    /// Bits 0-7 of the reply are an error, bit 8 says that there is no descriptor of ours: never.
    fn begin_transfer(
        &mut self,
        DeviceStateTransfer { direction, .. }: DeviceStateTransfer,
        fd: OwnedFd,
    ) -> u64 {
        const NO_FD: u64 = 1 << 8;
        self.transfer = Transfer::None;
        if !self.rings.are_suspended() {
            return NO_FD | 1;
        }
        let device = &mut self.rings.device;
        let begun = match direction {
            StateDirection::Load => Transfer::load(fd),
            StateDirection::Save => {
                self.kept.take().map_or_else(|| device.save(), Ok).and_then(|state| Transfer::save(state, fd))
            }
        };
        match begun {
            Ok(transfer) => self.transfer = transfer,
            Err(error) => {
                tracing::warn!("the device's state is not transferred: {error}");
                return NO_FD | 1;
            }
        }
        NO_FD
    }

    /// Waits for the transfer, and puts what was read into the device.
    fn end_transfer(&mut self) -> io::Result<()> {
        let ended = match self.transfer.finish() {
            Transfer::Saved => Ok(()),
            Transfer::Loaded(state) if self.rings.are_suspended() => self.rings.device.load(&state),
            Transfer::Failed(error) => Err(error),
            _ => Err(io::Error::other("none was begun")),
        };
        ended.inspect_err(|error| tracing::warn!("the device's state was not transferred: {error}"))
    }
}

impl Drop for Session<'_> {
    /// Leaves the device as it was found. A front-end that sees its connection closed may look at
    /// its rings, so they are done before.
    fn drop(&mut self) {
        self.rings.reset(true);
        self.channel.close();
        self.rings.device.on_config_change(Interrupt::nobody());
    }
}

/// The number of the one request whose reply can say that it is wrong.
const GET_CONFIG: u32 = 24;

fn interrupt(ring: VringFd, fd: impl FnOnce() -> Result<OwnedFd>) -> Result<Interrupt> {
    if !ring.has_fd {
        return Ok(Interrupt::nobody());
    }
    host::interrupt(fd()?).map_err(|error| Refusal::Host("the descriptor cannot be signalled", error))
}

/// A file of zeroes for requests in flight, which cannot change its size.
fn inflight_file(Inflight { queues, queue_size, .. }: Inflight) -> Result<Answer> {
    if queues == 0 || queue_size == 0 || queue_size > MAX_RING {
        return Err(Refusal::Value("no queues, or no descriptors"));
    }
    let mmap_size = InflightRegion::bytes(queues, queue_size);
    let make = || {
        let file = memfd_create("inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, mmap_size)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    };
    let file = make().map_err(|error: rustix::io::Errno| Refusal::Host("no memory", error.into()))?;
    Ok(Answer::WithFd(Inflight { mmap_size, mmap_offset: 0, queues, queue_size }.payload(), file))
}
