//! The same random operations on two zoned disks, compared after each one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::disk::{Answer, BLOCK_SECTORS, Condition, Disk, SECTOR, Zone};
use crate::ioctl::Command;
use crate::operation::{MAX_BLOCKS, Operation};
use crate::random::Random;
use crate::tolerance::{self, Limits, Reports};

/// How many of the last operations a difference is told with.
const HISTORY: usize = 12;

/// How often all data is compared, besides at the end: after that many operations.
const WHOLE: u64 = 4000;

/// Does `steps` operations to both, and says what they were; or what was different.
pub(crate) fn run(reference: &Path, subject: &Path, steps: u64, seed: u64) -> Result<String> {
    let mut pair = Pair::open(Disk::open(reference)?, Disk::open(subject)?)?;
    let mut random = Random(seed);
    for step in 1..=steps {
        let operation = Operation::choose(&mut random, &pair.before.subject, pair.limits);
        let read = place(&mut random, &operation, &pair.before.subject);
        pair.step(&operation, step, read).with_context(|| {
            format!("seed {seed}, step {step}: {operation:?}{}", pair.situation(&operation))
        })?;
        if step % WHOLE == 0 || step == steps {
            pair.compare_all().with_context(|| format!("seed {seed}, after step {step}"))?;
        }
    }
    Ok(pair.told(steps))
}

struct Pair {
    reference: Disk,
    subject: Disk,
    limits: Limits,
    /// What both reported last.
    before: Reports,
    /// How often what happened.
    counts: BTreeMap<String, u64>,
    /// What happened last.
    history: VecDeque<String>,
}

impl Pair {
    fn open(reference: Disk, subject: Disk) -> Result<Pair> {
        let limits = Limits { open: subject.max_open, active: subject.max_active };
        ensure!(
            (reference.max_open, reference.max_active) == (limits.open, limits.active),
            "limits of {} and {} are not {limits:?}",
            reference.max_open,
            reference.max_active
        );
        let before = Reports { reference: reference.report()?, subject: subject.report()? };
        let pair =
            Pair { reference, subject, limits, before, counts: BTreeMap::new(), history: VecDeque::new() };
        match pair.before.difference(limits) {
            None => Ok(pair),
            Some(difference) => bail!("they are different to begin with: {difference}"),
        }
    }

    /// Does `operation` to both, and compares everything that can be seen of it, and what is read at `read`.
    fn step(&mut self, operation: &Operation, step: u64, read: Option<(u64, u64)>) -> Result<()> {
        let reference = self.reference.perform(operation, step);
        let subject = self.subject.perform(operation, step);
        self.count(format!("{} {}", verb(operation), outcome(&subject)));
        self.history.truncate(HISTORY - 1);
        let answers = format!("{}, {}", outcome(&reference), outcome(&subject));
        self.history.push_front(format!("{step}: {operation:?}: {answers}"));
        if reference.as_ref().err() != subject.as_ref().err() {
            let reason = tolerance::reason(operation, &self.before, self.limits, &reference, &subject)
                .with_context(|| {
                    format!("\nreference: {}\nsubject:   {}", outcome(&reference), outcome(&subject))
                })?;
            self.count(format!("tolerated: {reason}"));
            if reference.is_ok() != subject.is_ok() {
                self.reset(operation)?;
            }
        }
        let after = Reports { reference: self.reference.report()?, subject: self.subject.report()? };
        if let Some(difference) = after.difference(self.limits) {
            bail!("then {difference}\nanswer:    {}", outcome(&subject));
        }
        if let (Operation::Read { sector, .. }, Ok(reference), Ok(subject)) =
            (operation, &reference, &subject)
        {
            same_data(&after.subject, *sector, reference, subject)?;
        }
        if let (Some((sector, sectors)), Ok(_)) = (read, &subject) {
            self.compare(&after.subject, sector, sectors)?;
        }
        self.before = after;
        Ok(())
    }

    /// One of them has done what the other has not: the zones that it was about begin anew on both.
    fn reset(&self, operation: &Operation) -> Result<()> {
        let Some((sector, sectors)) = operation.range() else { return Ok(()) };
        let is_in = |zone: &&Zone| zone.start < sector + sectors && sector < zone.start + zone.len;
        let has_reset = |zone: &&Zone| {
            !matches!(zone.condition, Condition::Conventional | Condition::ReadOnly | Condition::Offline)
        };
        for zone in self.before.subject.iter().filter(is_in).filter(has_reset) {
            let reset = Operation::Command { command: Command::Reset, sector: zone.start, sectors: zone.len };
            for disk in [&self.reference, &self.subject] {
                let answer = disk.perform(&reset, 0);
                ensure!(answer.is_ok(), "{reset:?}: {}", outcome(&answer));
            }
        }
        Ok(())
    }

    fn compare(&self, zones: &[Zone], sector: u64, sectors: u64) -> Result<()> {
        let read = Operation::Read { sector, sectors };
        match (self.reference.perform(&read, 0), self.subject.perform(&read, 0)) {
            (Ok(reference), Ok(subject)) => same_data(zones, sector, &reference, &subject),
            (Err(reference), Err(subject)) if reference == subject => Ok(()),
            (reference, subject) => {
                bail!("then {read:?}\nreference: {}\nsubject:   {}", outcome(&reference), outcome(&subject))
            }
        }
    }

    /// What was written of each zone, and a little of what was not.
    fn compare_all(&self) -> Result<()> {
        let longest = MAX_BLOCKS * BLOCK_SECTORS;
        for zone in &self.before.subject {
            let written = match zone.condition {
                Condition::Conventional | Condition::Full => zone.capacity,
                _ => zone.pointer.saturating_sub(zone.start),
            };
            let len = zone.len.min(written + longest);
            for from in (0..len).step_by(longest as usize) {
                self.compare(&self.before.subject, zone.start + from, longest.min(zone.len - from))?;
            }
        }
        Ok(())
    }

    /// What was before `operation`, and led there.
    fn situation(&self, operation: &Operation) -> String {
        let mut told = String::new();
        let (from, len) = operation.range().unwrap_or_default();
        let pairs = self.before.reference.iter().zip(&self.before.subject);
        for (reference, subject) in
            pairs.filter(|(_, zone)| zone.start < from + len && from < zone.start + zone.len)
        {
            let _ = write!(told, "\nbefore: {reference:?}\n        {subject:?}");
        }
        for line in &self.history {
            let _ = write!(told, "\n  {line}");
        }
        told
    }

    fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn told(&self, steps: u64) -> String {
        let mut told = format!("{steps} operations, {} zones: the same", self.before.subject.len());
        for (what, count) in &self.counts {
            let _ = write!(told, "\n{count:8} {what}");
        }
        told
    }
}

fn same_data(zones: &[Zone], sector: u64, reference: &[u8], subject: &[u8]) -> Result<()> {
    let Some(at) = tolerance::different_block(zones, sector, reference, subject) else { return Ok(()) };
    let from = ((at - sector) * SECTOR) as usize;
    bail!(
        "then sector {at} begins differently:\nreference: {:02x?}\nsubject:   {:02x?}",
        &reference[from..from + 16],
        &subject[from..from + 16]
    )
}

/// What to read after an `operation` that may have changed data: what was written, or a part of the first zone up to
/// around where its write pointer was.
fn place(random: &mut Random, operation: &Operation, zones: &[Zone]) -> Option<(u64, u64)> {
    let sector = match *operation {
        Operation::Write { sector, sectors } => return Some((sector, sectors)),
        Operation::Command { command: Command::Reset | Command::Finish, sector, .. } => sector,
        Operation::ResetAll { .. } => 0,
        Operation::Command { command: Command::Open | Command::Close, .. }
        | Operation::Read { .. }
        | Operation::Sync => return None,
    };
    let zone = zones.iter().find(|zone| sector < zone.start + zone.len)?;
    let written = zone.pointer.saturating_sub(zone.start).max(BLOCK_SECTORS) / BLOCK_SECTORS;
    let from = zone.start + random.below(written) * BLOCK_SECTORS;
    Some((from, (zone.start + zone.len - from).min(MAX_BLOCKS / 4 * BLOCK_SECTORS)))
}

fn verb(operation: &Operation) -> String {
    match operation {
        Operation::Write { .. } => "write".to_owned(),
        Operation::Read { .. } => "read".to_owned(),
        Operation::Command { command, .. } => format!("{command:?}").to_lowercase(),
        Operation::ResetAll { .. } => "reset all".to_owned(),
        Operation::Sync => "sync".to_owned(),
    }
}

fn outcome(answer: &Answer) -> String {
    match answer {
        Ok(_) => "ok".to_owned(),
        Err(libc::EIO) => "EIO".to_owned(),
        Err(libc::EOVERFLOW) => "EOVERFLOW".to_owned(),
        Err(libc::ETOOMANYREFS) => "ETOOMANYREFS".to_owned(),
        Err(other) => std::io::Error::from_raw_os_error(*other).to_string(),
    }
}
