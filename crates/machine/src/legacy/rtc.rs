//! The real-time clock of a PC (MC146818): the host's time in UTC, which the guest may set for itself.
//!
//! There are no alarms and no periodic interrupt, and so no interrupt at all.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::{BusDevice, Effect};

const INDEX_PORT: u64 = 0;
const DATA_PORT: u64 = 1;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0A;
const REGISTER_B: u8 = 0x0B;
const REGISTER_C: u8 = 0x0C;
const REGISTER_D: u8 = 0x0D;
const CENTURY: u8 = 0x32;

/// A 32.768 kHz crystal at the usual rate; no update is ever in progress.
const A_DIVIDER: u8 = 0x26;
/// Writing: the clock stands while the guest sets it.
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
const D_VALID: u8 = 1 << 7;
const HOUR_PM: u8 = 1 << 7;

const DAY_SECONDS: i64 = 86_400;

/// The clock.
#[derive(Debug)]
pub struct Rtc {
    index: u8,
    /// What the guest wrote to the registers that are just memory.
    memory: [u8; 128],
    control: u8,
    /// Seconds to add to the host's time, as the guest has set its clock.
    offset: i64,
    /// The time that reads show. Taken when a reader starts, so that one reading is of one moment.
    shown: Time,
    now: fn() -> i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 is Sunday.
    weekday: u8,
    day: u8,
    month: u8,
    year: i64,
}

impl Default for Rtc {
    fn default() -> Self {
        Self::with_clock(host_seconds)
    }
}

impl Rtc {
    /// A clock that shows the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_clock(now: fn() -> i64) -> Self {
        let shown = Time::from_seconds(now());
        Self { index: 0, memory: [0; 128], control: B_24_HOURS, offset: 0, shown, now }
    }

    fn read_register(&mut self) -> u8 {
        // Readers look at register A for an update in progress, or at the seconds, before all else.
        if matches!(self.index, SECONDS | REGISTER_A) && self.control & B_SET == 0 {
            self.shown = Time::from_seconds((self.now)().saturating_add(self.offset));
        }
        let time = self.shown;
        match self.index {
            SECONDS => self.encode(time.second),
            MINUTES => self.encode(time.minute),
            HOURS if self.control & B_24_HOURS != 0 => self.encode(time.hour),
            HOURS => self.encode((time.hour + 11) % 12 + 1) | if time.hour >= 12 { HOUR_PM } else { 0 },
            WEEKDAY => self.encode(time.weekday),
            DAY => self.encode(time.day),
            MONTH => self.encode(time.month),
            YEAR => self.encode((time.year.rem_euclid(100)) as u8),
            CENTURY => self.encode((time.year.div_euclid(100)).rem_euclid(100) as u8),
            REGISTER_A => A_DIVIDER,
            REGISTER_B => self.control,
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            index => self.memory[usize::from(index)],
        }
    }

    fn write_register(&mut self, value: u8) {
        let number = self.decode(value);
        let time = &mut self.shown;
        match self.index {
            SECONDS => time.second = number.min(59),
            MINUTES => time.minute = number.min(59),
            HOURS if self.control & B_24_HOURS != 0 => time.hour = number.min(23),
            HOURS => {
                let hour = self.decode(value & !HOUR_PM) % 12;
                self.shown.hour = if value & HOUR_PM != 0 { hour + 12 } else { hour };
            }
            WEEKDAY => return,
            DAY => time.day = number.clamp(1, 31),
            MONTH => time.month = number.clamp(1, 12),
            YEAR => time.year = time.year.div_euclid(100) * 100 + i64::from(number.min(99)),
            CENTURY => time.year = i64::from(number.min(99)) * 100 + time.year.rem_euclid(100),
            REGISTER_B => {
                let was_set = self.control & B_SET != 0;
                // No interrupts (bits 6:4), no square wave (3), no daylight saving (0).
                self.control = value & (B_SET | B_BINARY | B_24_HOURS);
                if was_set && self.control & B_SET == 0 {
                    self.set_offset();
                }
                return;
            }
            REGISTER_A | REGISTER_C | REGISTER_D => return,
            index => {
                self.memory[usize::from(index)] = value;
                return;
            }
        }
        if self.control & B_SET == 0 {
            self.set_offset();
        }
    }

    fn set_offset(&mut self) {
        self.offset = self.shown.to_seconds() - (self.now)();
    }

    fn encode(&self, value: u8) -> u8 {
        if self.control & B_BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.control & B_BINARY != 0 { value } else { (value >> 4) * 10 + (value & 15) }
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xFF);
        if let ([first, ..], DATA_PORT) = (data, offset) {
            *first = self.read_register();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            // Bit 7 masks NMI, which no one sends.
            (INDEX_PORT, &[index]) => self.index = index & 0x7F,
            (DATA_PORT, &[value]) => self.write_register(value),
            _ => {}
        }
        Effect::None
    }
}

impl Time {
    /// The time of day and the date in the Gregorian calendar, by counting in years that start in
    /// March and eras of 400 of them.
    fn from_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY_SECONDS);
        let rest = seconds.rem_euclid(DAY_SECONDS);
        let since_era_start = days + 719_468;
        let era = since_era_start.div_euclid(146_097);
        let day_of_era = since_era_start.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            second: (rest % 60) as u8,
            minute: (rest / 60 % 60) as u8,
            hour: (rest / 3600) as u8,
            // 1 January 1970 was a Thursday.
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            month: month as u8,
            year: year_of_era + era * 400 + i64::from(month <= 2),
        }
    }

    fn to_seconds(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let month_from_march = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let time_of_day = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * DAY_SECONDS + time_of_day
    }
}

fn host_seconds() -> i64 {
    // A host before 1970 shows 1970.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 21 November 2026, 15:04:05, a Saturday.
    fn clock() -> i64 {
        1_795_273_445
    }

    fn get(rtc: &mut Rtc, index: u8) -> u8 {
        assert_eq!(rtc.write(INDEX_PORT, &[index]), Effect::None);
        let mut value = [0];
        rtc.read(DATA_PORT, &mut value);
        value[0]
    }

    fn set(rtc: &mut Rtc, index: u8, value: u8) {
        assert_eq!(rtc.write(INDEX_PORT, &[index]), Effect::None);
        assert_eq!(rtc.write(DATA_PORT, &[value]), Effect::None);
    }

    const FIELDS: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

    #[test]
    fn it_shows_utc_in_every_format() {
        let mut rtc = Rtc::with_clock(clock);
        assert_eq!(FIELDS.map(|index| get(&mut rtc, index)), [5, 4, 0x15, 7, 0x21, 0x11, 0x26, 0x20]);
        assert_eq!(get(&mut rtc, REGISTER_D), D_VALID);
        assert_eq!(get(&mut rtc, REGISTER_A) >> 7, 0, "no update in progress");
        set(&mut rtc, REGISTER_B, B_BINARY | B_24_HOURS);
        assert_eq!(FIELDS.map(|index| get(&mut rtc, index)), [5, 4, 15, 7, 21, 11, 26, 20]);
        set(&mut rtc, REGISTER_B, 0);
        assert_eq!(get(&mut rtc, HOURS), 0x03 | HOUR_PM);
    }

    #[test]
    fn the_guest_sets_its_own_clock() {
        let mut rtc = Rtc::with_clock(clock);
        set(&mut rtc, REGISTER_B, B_SET | B_BINARY | B_24_HOURS);
        for (index, value) in FIELDS.into_iter().zip([59, 58, 23, 0, 29, 2, 24, 20]) {
            set(&mut rtc, index, value);
        }
        set(&mut rtc, REGISTER_B, B_BINARY | B_24_HOURS);
        assert_eq!(FIELDS.map(|index| get(&mut rtc, index)), [59, 58, 23, 5, 29, 2, 24, 20]);
        rtc.now = || clock() + 62;
        assert_eq!(FIELDS.map(|index| get(&mut rtc, index)), [1, 0, 0, 6, 1, 3, 24, 20]);
    }

    #[test]
    fn one_reading_is_of_one_moment() {
        let mut rtc = Rtc::with_clock(clock);
        get(&mut rtc, REGISTER_A);
        rtc.now = || clock() + 3600;
        assert_eq!(get(&mut rtc, HOURS), 0x15, "the hour that went with register A");
        get(&mut rtc, SECONDS);
        assert_eq!(get(&mut rtc, HOURS), 0x16);
    }

    proptest! {
        #[test]
        fn seconds_survive_the_calendar(seconds in -62_000_000_000i64..250_000_000_000) {
            let time = Time::from_seconds(seconds);
            prop_assert!((1..=12).contains(&time.month) && (1..=31).contains(&time.day));
            prop_assert_eq!(time.to_seconds(), seconds);
        }

        #[test]
        fn no_access_panics(
            accesses in prop::collection::vec((0u64..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 0..64),
        ) {
            let mut rtc = Rtc::with_clock(clock);
            for (offset, write, mut data) in accesses {
                if write {
                    let _ = rtc.write(offset, &data);
                } else {
                    rtc.read(offset, &mut data);
                }
            }
        }
    }
}
