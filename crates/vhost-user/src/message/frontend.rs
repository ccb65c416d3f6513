//! Requests of the front-end.

use std::ops::RangeInclusive;

use super::payload::SingleRegion;
use super::{
    Config, DeviceStateTransfer, Inflight, Iotlb, LogBase, MAX_DESCRIPTORS, MemoryRegion, Message,
    MessageError, Payload, ProtocolFeatures as F, Uuid, VringAddr, VringFd, VringState,
};

/// One line for each request: number, name, payload, descriptors beside it, whether it has a reply of
/// its own, and the protocol feature it needs.
macro_rules! requests {
    ($($number:literal $name:ident $spelled:literal ($($payload:ty)?) $fds:expr, $reply:literal, $gate:expr, $doc:literal;)*) => {
        /// What a front-end asks.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum FrontendRequest {
            $(#[doc = $doc] $name $(($payload))?,)*
        }

        impl FrontendRequest {
            /// What `message` means. Descriptors are not looked at.
            ///
            /// # Errors
            /// It is no request, none that there is, or its payload is not one of that request.
            pub fn parse(message: &Message) -> Result<Self, MessageError> {
                if message.is_reply() {
                    return Err(MessageError::Unexpected { request: message.request });
                }
                match message.request {
                    $($number => requests!(@parse message $name $($payload)?),)*
                    unknown => Err(MessageError::Unknown(unknown)),
                }
            }

            /// It as a message.
            #[must_use]
            pub fn message(&self) -> Message {
                let payload = match self { $(requests!(@bind $name payload $($payload)?) => requests!(@bytes $name payload $($payload)?),)* };
                Message::new(self.number(), payload)
            }

            /// Its number.
            #[must_use]
            pub fn number(&self) -> u32 {
                match self { $(requests!(@pattern $name $($payload)?) => $number,)* }
            }

            /// Its name in the specification, without `VHOST_USER_`.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(requests!(@pattern $name $($payload)?) => $spelled,)* }
            }

            /// How many descriptors come with it.
            #[must_use]
            pub fn descriptors(&self) -> RangeInclusive<usize> {
                if let Self::SetMemTable(regions) = self {
                    return regions.len()..=regions.len();
                }
                if let Self::SetVringKick(ring) | Self::SetVringCall(ring) | Self::SetVringErr(ring) = self {
                    let count = usize::from(ring.has_fd);
                    return count..=count;
                }
                match self { $(requests!(@pattern $name $($payload)?) => $fds,)* }
            }

            /// Whether it has a reply of its own, so that none has to be asked for.
            #[must_use]
            pub fn has_reply(&self) -> bool {
                match self { $(requests!(@pattern $name $($payload)?) => $reply,)* }
            }

            /// The protocol features without which it is not sent.
            #[must_use]
            pub fn gate(&self) -> F {
                match self { $(requests!(@pattern $name $($payload)?) => $gate,)* }
            }
        }
    };
    (@parse $message:ident AddMemReg $payload:ty) => { Ok(Self::AddMemReg($message.payload::<SingleRegion>()?.0)) };
    (@parse $message:ident RemMemReg $payload:ty) => { Ok(Self::RemMemReg($message.payload::<SingleRegion>()?.0)) };
    (@parse $message:ident $name:ident $payload:ty) => { Ok(Self::$name($message.payload()?)) };
    (@parse $message:ident $name:ident) => { $message.no_payload().map(|()| Self::$name) };
    (@bind $name:ident $value:ident $payload:ty) => { Self::$name($value) };
    (@bind $name:ident $value:ident) => { Self::$name };
    (@bytes AddMemReg $value:ident $payload:ty) => { SingleRegion(*$value).payload() };
    (@bytes RemMemReg $value:ident $payload:ty) => { SingleRegion(*$value).payload() };
    (@bytes $name:ident $value:ident $payload:ty) => { $value.payload() };
    (@bytes $name:ident $value:ident) => { Vec::new() };
    (@pattern $name:ident $payload:ty) => { Self::$name(_) };
    (@pattern $name:ident) => { Self::$name };
}

const NONE: F = F(0);

requests! {
    1 GetFeatures "GET_FEATURES" () 0..=0, true, NONE, "Features of the device, rings and protocol.";
    2 SetFeatures "SET_FEATURES" (u64) 0..=0, false, NONE, "The features that are accepted.";
    3 SetOwner "SET_OWNER" () 0..=0, false, NONE, "Takes the back-end.";
    4 ResetOwner "RESET_OWNER" () 0..=0, false, NONE, "Deprecated.";
    5 SetMemTable "SET_MEM_TABLE" (Vec<MemoryRegion>) 1..=MAX_DESCRIPTORS, false, NONE, "All of guest memory.";
    6 SetLogBase "SET_LOG_BASE" (LogBase) 0..=1, true, NONE, "The log of dirty pages.";
    7 SetLogFd "SET_LOG_FD" () 1..=1, false, NONE, "An eventfd that says the log was written to.";
    8 SetVringNum "SET_VRING_NUM" (VringState) 0..=0, false, NONE, "A ring's size.";
    9 SetVringAddr "SET_VRING_ADDR" (VringAddr) 0..=0, false, NONE, "Where a ring is.";
    10 SetVringBase "SET_VRING_BASE" (VringState) 0..=0, false, NONE, "Where to go on in a ring.";
    11 GetVringBase "GET_VRING_BASE" (VringState) 0..=0, true, NONE, "Stops a ring: where was it?";
    12 SetVringKick "SET_VRING_KICK" (VringFd) 0..=1, false, NONE, "A ring's kick; starts it.";
    13 SetVringCall "SET_VRING_CALL" (VringFd) 0..=1, false, NONE, "A ring's call.";
    14 SetVringErr "SET_VRING_ERR" (VringFd) 0..=1, false, NONE, "What a ring's errors are told to.";
    15 GetProtocolFeatures "GET_PROTOCOL_FEATURES" () 0..=0, true, NONE, "Features of the protocol.";
    16 SetProtocolFeatures "SET_PROTOCOL_FEATURES" (u64) 0..=0, false, NONE, "Those that are accepted.";
    17 GetQueueNum "GET_QUEUE_NUM" () 0..=0, true, F::MQ, "How many rings are there?";
    18 SetVringEnable "SET_VRING_ENABLE" (VringState) 0..=0, false, NONE, "Enables or disables a ring.";
    19 SendRarp "SEND_RARP" (u64) 0..=0, false, F::RARP, "Announces an interface that moved.";
    20 NetSetMtu "NET_SET_MTU" (u64) 0..=0, false, F::MTU, "The interface's MTU.";
    21 SetBackendReqFd "SET_BACKEND_REQ_FD" () 1..=1, false, F::BACKEND_REQ, "The channel for the back-end's requests.";
    22 IotlbMsg "IOTLB_MSG" (Iotlb) 0..=0, true, NONE, "An entry of the IOMMU's table.";
    23 SetVringEndian "SET_VRING_ENDIAN" (VringState) 0..=0, false, F::CROSS_ENDIAN, "A ring's endianness.";
    24 GetConfig "GET_CONFIG" (Config) 0..=0, true, F::CONFIG, "Reads the configuration space.";
    25 SetConfig "SET_CONFIG" (Config) 0..=0, false, F::CONFIG, "Writes the configuration space.";
    26 CreateCryptoSession "CREATE_CRYPTO_SESSION" (Vec<u8>) 0..=0, true, F::CRYPTO_SESSION, "A crypto device's session.";
    27 CloseCryptoSession "CLOSE_CRYPTO_SESSION" (u64) 0..=0, false, F::CRYPTO_SESSION, "Ends it.";
    28 PostcopyAdvise "POSTCOPY_ADVISE" () 0..=0, true, F::PAGEFAULT, "Postcopy may follow.";
    29 PostcopyListen "POSTCOPY_LISTEN" () 0..=0, false, F::PAGEFAULT, "Postcopy begins.";
    30 PostcopyEnd "POSTCOPY_END" () 0..=0, true, F::PAGEFAULT, "Postcopy is over.";
    31 GetInflightFd "GET_INFLIGHT_FD" (Inflight) 0..=0, true, F::INFLIGHT_SHMFD, "Memory to write requests in flight down in.";
    32 SetInflightFd "SET_INFLIGHT_FD" (Inflight) 1..=1, false, F::INFLIGHT_SHMFD, "Requests in flight, from before.";
    33 GpuSetSocket "GPU_SET_SOCKET" () 1..=1, false, NONE, "A graphics device's own channel.";
    34 ResetDevice "RESET_DEVICE" () 0..=0, false, F::RESET_DEVICE, "Disables all rings and resets the device.";
    35 VringKick "VRING_KICK" (VringState) 0..=0, false, F::INBAND_NOTIFICATIONS, "Kicks a ring.";
    36 GetMaxMemSlots "GET_MAX_MEM_SLOTS" () 0..=0, true, F::CONFIGURE_MEM_SLOTS, "How many regions can there be?";
    37 AddMemReg "ADD_MEM_REG" (MemoryRegion) 1..=1, false, F::CONFIGURE_MEM_SLOTS, "One region more.";
    38 RemMemReg "REM_MEM_REG" (MemoryRegion) 0..=1, false, F::CONFIGURE_MEM_SLOTS, "One region less.";
    39 SetStatus "SET_STATUS" (u64) 0..=0, false, F::STATUS, "The virtio device status.";
    40 GetStatus "GET_STATUS" () 0..=0, true, F::STATUS, "What is it?";
    41 GetSharedObject "GET_SHARED_OBJECT" (Uuid) 0..=0, true, F::SHARED_OBJECT, "A shared object's descriptor.";
    42 SetDeviceStateFd "SET_DEVICE_STATE_FD" (DeviceStateTransfer) 1..=1, true, F::DEVICE_STATE, "Where the device's state goes or comes from.";
    43 CheckDeviceState "CHECK_DEVICE_STATE" () 0..=0, true, F::DEVICE_STATE, "Did that work?";
    44 GetShmemConfig "GET_SHMEM_CONFIG" () 0..=0, true, F::SHMEM, "Regions of shared memory.";
    45 GetVringBaseSkipDrain "GET_VRING_BASE_SKIP_DRAIN" (VringState) 0..=0, true, F::GET_VRING_BASE_SKIP_DRAIN, "Stops a ring at once.";
}
