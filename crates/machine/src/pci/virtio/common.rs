//! The common configuration structure (virtio 1.3 §4.1.4.3): negotiation, and the queues' registers.
//!
//! State and rules only; what a write asks of device and machine comes back as an [`Action`].
//!
//! | offset | bytes | register | |
//! |---|---|---|---|
//! | 0x00 | 4 | device_feature_select | |
//! | 0x04 | 4 | device_feature | read-only |
//! | 0x08 | 4 | driver_feature_select | |
//! | 0x0C | 4 | driver_feature | fixed once FEATURES_OK is set |
//! | 0x10 | 2 | config_msix_vector | |
//! | 0x12 | 2 | num_queues | read-only |
//! | 0x14 | 1 | device_status | bits are only ever added; 0 resets |
//! | 0x15 | 1 | config_generation | read-only |
//! | 0x16 | 2 | queue_select | |
//! | 0x18 | 2 | queue_size | fixed once the queue is enabled |
//! | 0x1A | 2 | queue_msix_vector | |
//! | 0x1C | 2 | queue_enable | only ever set |
//! | 0x1E | 2 | queue_notify_off | read-only: the queue's index |
//! | 0x20 | 8 | queue_desc | fixed once the queue is enabled |
//! | 0x28 | 8 | queue_driver | fixed once the queue is enabled |
//! | 0x30 | 8 | queue_device | fixed once the queue is enabled |
//! | 0x38 | 2 | queue_notify_config_data | reads 0: VIRTIO_F_NOTIF_CONFIG_DATA is not offered |
//! | 0x3A | 2 | queue_reset | reads 0: a reset has always just been done |
//! | 0x3C | 2 | admin_queue_index | reads 0: VIRTIO_F_ADMIN_VQ is not offered |
//! | 0x3E | 2 | admin_queue_num | reads 0 |
//!
//! Accesses of any width at any offset work: a write changes the bytes it covers of each register,
//! in the order above. The registers of a queue that does not exist read 0 and ignore writes.

use parador_virtio::{Identity, QueueLayout, ids};
use virtio_bindings::virtio_config as spec;

/// Bytes of the structure.
pub(super) const SIZE: usize = 0x40;
/// The vector that is none (§4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xFFFF;

// Device status bits (§2.1).
pub(super) const DRIVER_OK: u8 = spec::VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(super) const NEEDS_RESET: u8 = spec::VIRTIO_CONFIG_S_NEEDS_RESET as u8;
const ACKNOWLEDGE: u8 = spec::VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
const DRIVER: u8 = spec::VIRTIO_CONFIG_S_DRIVER as u8;
const FEATURES_OK: u8 = spec::VIRTIO_CONFIG_S_FEATURES_OK as u8;
const FAILED: u8 = spec::VIRTIO_CONFIG_S_FAILED as u8;

/// Resetting one queue (§2.6.1).
const RING_RESET: u64 = 1 << spec::VIRTIO_F_RING_RESET;

/// A register of the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
    QueueReset,
}

/// Offset, width in bytes, register. What is left out reads 0 and ignores writes.
const REGISTERS: [(usize, usize, Register); 17] = [
    (0x00, 4, Register::DeviceFeatureSelect),
    (0x04, 4, Register::DeviceFeature),
    (0x08, 4, Register::DriverFeatureSelect),
    (0x0C, 4, Register::DriverFeature),
    (0x10, 2, Register::ConfigVector),
    (0x12, 2, Register::NumQueues),
    (0x14, 1, Register::DeviceStatus),
    (0x15, 1, Register::ConfigGeneration),
    (0x16, 2, Register::QueueSelect),
    (0x18, 2, Register::QueueSize),
    (0x1A, 2, Register::QueueVector),
    (0x1C, 2, Register::QueueEnable),
    (0x1E, 2, Register::QueueNotifyOff),
    (0x20, 8, Register::QueueDesc),
    (0x28, 8, Register::QueueDriver),
    (0x30, 8, Register::QueueDevice),
    (0x3A, 2, Register::QueueReset),
];

/// What a write asks for beyond a change of registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Reset the device (§2.4).
    Reset,
    /// The driver is ready: start the queues that are enabled (§3.1.1).
    Start,
    /// Map changes of the configuration to this vector.
    MapConfig(u16),
    /// Map a queue to this vector.
    MapQueue {
        queue: usize,
        vector: u16,
    },
    /// Start this queue, enabled again after a queue reset.
    StartQueue(usize),
    /// Stop this queue and forget where it was.
    ResetQueue(usize),
}

/// Registers of the structure and the rules of writing them.
pub(super) struct Common {
    offered: u64,
    required: u64,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    /// A bit beyond 63 was accepted. None is offered.
    accepts_unknown: bool,
    config_vector: u16,
    queue_select: u16,
    queues: Box<[QueueRegisters]>,
}

/// Registers of one queue.
#[derive(Debug, Clone)]
pub(super) struct QueueRegisters {
    max_size: u16,
    layout: QueueLayout,
    vector: u16,
    enabled: bool,
    /// It was reset on its own: it can be set up again although the device is in use.
    was_reset: bool,
}

impl Common {
    pub(super) fn new(identity: &Identity) -> Self {
        let queues = identity.queue_sizes.iter().map(|&max_size| QueueRegisters::new(max_size)).collect();
        Self {
            offered: identity.features | identity.ring_features | RING_RESET,
            required: identity.required | ids::VIRTIO_F_VERSION_1,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            accepts_unknown: false,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues,
        }
    }

    /// Back to what it was when it was made (§2.4, §4.1.4.3.1).
    pub(super) fn reset(&mut self) {
        let Self {
            offered: _,
            required: _,
            status,
            device_feature_select,
            driver_feature_select,
            driver_features,
            accepts_unknown,
            config_vector,
            queue_select,
            queues,
        } = self;
        *status = 0;
        (*device_feature_select, *driver_feature_select) = (0, 0);
        (*driver_features, *accepts_unknown) = (0, false);
        *config_vector = NO_VECTOR;
        *queue_select = 0;
        for queue in queues {
            *queue = QueueRegisters::new(queue.max_size);
        }
    }

    /// Fills `data` from `offset` of the structure; zero beyond its end.
    pub(super) fn read(&self, offset: usize, data: &mut [u8], needs_reset: bool, generation: u8) {
        data.fill(0);
        for (start, width, register) in touched(offset, data.len()) {
            let value = match register {
                Register::DeviceStatus if needs_reset => u64::from(self.status | NEEDS_RESET),
                Register::ConfigGeneration => u64::from(generation),
                _ => self.value(register),
            };
            for (at, byte) in (start..).zip(&value.to_le_bytes()[..width]) {
                if let Some(to) = at.checked_sub(offset).and_then(|index| data.get_mut(index)) {
                    *to = *byte;
                }
            }
        }
    }

    /// Takes the bytes of `data`, at `offset` of the structure, that fall into `register`.
    pub(super) fn write(&mut self, touched: Touched, offset: usize, data: &[u8]) -> Action {
        let (start, width, register) = touched;
        let mut bytes = self.value(register).to_le_bytes();
        for (at, byte) in (start..).zip(&mut bytes[..width]) {
            if let Some(value) = at.checked_sub(offset).and_then(|index| data.get(index)) {
                *byte = *value;
            }
        }
        self.set(register, u64::from_le_bytes(bytes))
    }

    pub(super) fn is_driver_ok(&self) -> bool {
        self.status & DRIVER_OK != 0
    }

    /// The features the driver accepted.
    pub(super) fn features(&self) -> u64 {
        self.driver_features
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config_vector
    }

    pub(super) fn set_config_vector(&mut self, vector: u16) {
        self.config_vector = vector;
    }

    pub(super) fn queue_vector(&self, queue: usize) -> u16 {
        self.queues[queue].vector
    }

    pub(super) fn set_queue_vector(&mut self, queue: usize, vector: u16) {
        self.queues[queue].vector = vector;
    }

    /// Where queue `queue` is, if the driver enabled it.
    pub(super) fn enabled(&self, queue: usize) -> Option<QueueLayout> {
        let registers = &self.queues[queue];
        registers.enabled.then_some(registers.layout)
    }

    fn value(&self, register: Register) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of_queue = |value: fn(&QueueRegisters) -> u64| queue.map_or(0, value);
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select.into(),
            Register::DeviceFeature => half(self.offered, self.device_feature_select),
            Register::DriverFeatureSelect => self.driver_feature_select.into(),
            Register::DriverFeature => half(self.driver_features, self.driver_feature_select),
            Register::ConfigVector => self.config_vector.into(),
            Register::NumQueues => self.queues.len() as u64,
            Register::DeviceStatus => self.status.into(),
            Register::QueueSelect => self.queue_select.into(),
            Register::QueueSize => of_queue(|queue| queue.layout.size.into()),
            Register::QueueVector => of_queue(|queue| queue.vector.into()),
            Register::QueueEnable => of_queue(|queue| queue.enabled.into()),
            Register::QueueNotifyOff => queue.map_or(0, |_| self.queue_select.into()),
            Register::QueueDesc => of_queue(|queue| queue.layout.descriptors),
            Register::QueueDriver => of_queue(|queue| queue.layout.available),
            Register::QueueDevice => of_queue(|queue| queue.layout.used),
            Register::ConfigGeneration | Register::QueueReset => 0,
        }
    }

    fn set(&mut self, register: Register, value: u64) -> Action {
        match register {
            Register::DeviceFeatureSelect => self.device_feature_select = value as u32,
            Register::DriverFeatureSelect => self.driver_feature_select = value as u32,
            Register::DriverFeature => self.set_driver_feature(value as u32),
            Register::QueueSelect => self.queue_select = value as u16,
            Register::ConfigVector => return Action::MapConfig(value as u16),
            Register::DeviceStatus => return self.set_status(value as u8),
            Register::QueueSize
            | Register::QueueVector
            | Register::QueueEnable
            | Register::QueueDesc
            | Register::QueueDriver
            | Register::QueueDevice
            | Register::QueueReset => return self.set_queue(register, value),
            Register::DeviceFeature
            | Register::NumQueues
            | Register::ConfigGeneration
            | Register::QueueNotifyOff => {}
        }
        Action::Nothing
    }

    fn set_driver_feature(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features >> 32 << 32 | value,
            1 => self.driver_features = self.driver_features & 0xFFFF_FFFF | value << 32,
            2.. => self.accepts_unknown = value != 0,
        }
    }

    /// §2.1: the driver adds bits in order, and writes 0 to start again.
    fn set_status(&mut self, value: u8) -> Action {
        if value == 0 {
            return Action::Reset;
        }
        let new = value & !self.status;
        self.status |= new & (ACKNOWLEDGE | DRIVER | FAILED);
        if new & FEATURES_OK != 0 && self.status & DRIVER != 0 && self.can_agree() {
            self.status |= FEATURES_OK;
        }
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            self.status |= DRIVER_OK;
            return Action::Start;
        }
        Action::Nothing
    }

    /// §3.1.1 step 6, §6.1: nothing accepted that is not offered, nothing left out that is needed.
    fn can_agree(&self) -> bool {
        self.driver_features & !self.offered == 0
            && !self.accepts_unknown
            && self.driver_features & self.required == self.required
    }

    fn set_queue(&mut self, register: Register, value: u64) -> Action {
        let agreed = self.status & FEATURES_OK != 0;
        let in_use = self.status & DRIVER_OK != 0;
        let can_reset = in_use && self.driver_features & RING_RESET != 0;
        let index = usize::from(self.queue_select);
        let Some(queue) = self.queues.get_mut(index) else { return Action::Nothing };
        // A queue that is or was in use does not move under the device (§4.1.4.3.2).
        let fixed = queue.enabled || in_use && !queue.was_reset;
        match register {
            Register::QueueVector => return Action::MapQueue { queue: index, vector: value as u16 },
            Register::QueueReset if can_reset && queue.enabled && value == 1 => {
                *queue = QueueRegisters { was_reset: true, ..QueueRegisters::new(queue.max_size) };
                return Action::ResetQueue(index);
            }
            Register::QueueEnable if agreed && !fixed && value == 1 && queue.layout.size != 0 => {
                queue.enabled = true;
                if in_use {
                    return Action::StartQueue(index);
                }
            }
            Register::QueueSize if !fixed => {
                let size = value as u16;
                if size.is_power_of_two() && size <= queue.max_size {
                    queue.layout.size = size;
                }
            }
            Register::QueueDesc if !fixed => queue.layout.descriptors = value,
            Register::QueueDriver if !fixed => queue.layout.available = value,
            Register::QueueDevice if !fixed => queue.layout.used = value,
            _ => {}
        }
        Action::Nothing
    }
}

impl QueueRegisters {
    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            layout: QueueLayout { size: max_size, descriptors: 0, available: 0, used: 0 },
            vector: NO_VECTOR,
            enabled: false,
            was_reset: false,
        }
    }
}

/// A register an access falls into: its offset, its width in bytes, and which it is.
pub(super) type Touched = (usize, usize, Register);

/// The registers that `len` bytes at `offset` of the structure fall into.
pub(super) fn touched(offset: usize, len: usize) -> impl Iterator<Item = Touched> {
    REGISTERS.into_iter().filter(move |(start, width, _)| *start < offset + len && offset < start + width)
}

fn half(value: u64, select: u32) -> u64 {
    match select {
        0 => value & 0xFFFF_FFFF,
        1 => value >> 32,
        2.. => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_size_cannot_be_enabled() {
        let queue_sizes = [0, 1].into();
        let identity =
            Identity { kind: 0, features: 0, required: 0, queue_sizes, config_len: 0, ..Identity::default() };
        let mut common = Common::new(&identity);
        let mut write = |offset: usize, data: &[u8]| {
            for register in touched(offset, data.len()) {
                common.write(register, offset, data);
            }
        };
        write(0x08, &[1]);
        write(0x0C, &[1]);
        write(0x14, &[3]);
        write(0x14, &[11]);
        write(0x1C, &[1]);
        write(0x16, &[1]);
        write(0x1C, &[1]);
        assert!(common.enabled(0).is_none() && common.enabled(1).is_some());
    }
}
