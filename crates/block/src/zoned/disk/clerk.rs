//! The one thread of an image for what takes long, or has to wait for a zone: it is started with the
//! first such request.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Core;
use super::bells::Mailbox;
use crate::disk::{again, outcome};
use crate::zoned::{Held, Refusal};
use crate::{Outcome, Tag};

/// What the clerk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Flush,
    /// The zone that starts there.
    Open(u64),
    Close(u64),
    Finish(u64),
    Reset(u64),
    ResetAll,
}

/// A request, and who hears how it ended.
pub(super) struct Job {
    work: Work,
    tag: Tag,
    mailbox: Arc<Mailbox>,
    /// How often `mailbox` had given everything up when it asked.
    given_up: u32,
}

/// Where requests for the clerk lie.
#[derive(Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    /// Something in `state` is new.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// There is something to look at: a job that is new, or a zone that may not be busy any more.
    news: bool,
    stop: bool,
    thread: Option<JoinHandle<()>>,
}

impl Job {
    pub(super) fn new(work: Work, tag: Tag, mailbox: Arc<Mailbox>) -> Self {
        let given_up = mailbox.given_up.load(Ordering::Relaxed);
        Self { work, tag, mailbox, given_up }
    }

    fn is_given_up(&self) -> bool {
        self.mailbox.given_up.load(Ordering::Relaxed) != self.given_up
    }

    fn end(self, outcome: Outcome) {
        self.mailbox.post(self.tag, outcome);
    }
}

impl Desk {
    /// Gives the clerk of `core`, whose desk this is, something to do.
    pub(super) fn put(&self, core: &Arc<Core>, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.thread.is_none() {
            let core = Arc::clone(core);
            let thread = std::thread::Builder::new().name("zones".into()).spawn(move || core.serve())?;
            state.thread = Some(thread);
        }
        state.jobs.push(job);
        state.news = true;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Gives up what the clerk has not begun for `mailbox`: it ends there, as all else does.
    pub(super) fn give_up(&self, mailbox: &Mailbox) {
        let mut state = self.lock();
        mailbox.given_up.fetch_add(1, Ordering::Relaxed);
        give_up(&mut state.jobs);
    }

    /// A zone may not be busy any more.
    pub(super) fn tell(&self) {
        self.lock().news = true;
        self.changed.notify_one();
    }

    /// Waits until all is done. Nobody else uses the desk any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        (state.stop, state.news) = (true, true);
        let thread = state.thread.take();
        drop(state);
        self.changed.notify_one();
        if let Some(thread) = thread {
            // If it panicked it has reported so itself.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// The life of the clerk.
    fn serve(&self) {
        let (mut jobs, mut busy) = (Vec::new(), Vec::new());
        let mut state = self.desk.lock();
        loop {
            if !mem::take(&mut state.news) {
                // Without writers no zone stays busy: what is left then is nobody's.
                if state.stop {
                    return;
                }
                state = self.desk.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            mem::swap(&mut state.jobs, &mut jobs);
            drop(state);
            let news = self.work(&mut jobs, &mut busy);
            state = self.desk.lock();
            state.news |= news;
            give_up(&mut busy);
            // Those that found a zone busy were there before what came meanwhile.
            busy.append(&mut state.jobs);
            mem::swap(&mut state.jobs, &mut busy);
        }
    }

    /// Does all `jobs`; those for which a zone is busy end up in `busy`. Says whether to try these
    /// again at once.
    fn work(&self, jobs: &mut Vec<Job>, busy: &mut Vec<Job>) -> bool {
        let about_zones = jobs.iter().filter(|job| job.work != Work::Flush).count();
        if about_zones > 0 {
            self.bells.clerk_listens();
            let _holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
            self.open_or_close(jobs, busy);
            while self.reset(jobs, busy) {}
            self.finish(jobs, busy);
        }
        if !jobs.is_empty() {
            let result = self.keeper.flush();
            jobs.drain(..).for_each(|job| job.end(self.copy(&result)));
        }
        // What was done may be what these wait for.
        (1..about_zones).contains(&busy.len())
    }

    fn open_or_close(&self, jobs: &mut Vec<Job>, busy: &mut Vec<Job>) {
        for job in jobs.extract_if(.., |job| matches!(job.work, Work::Open(_) | Work::Close(_))) {
            let done = match job.work {
                Work::Open(zone) => self.zones().hold(zone).map(|held| self.keeper.open(&held)),
                Work::Close(zone) => self.zones().hold(zone).map(|held| self.keeper.close(&held)),
                _ => continue,
            };
            self.bells.ring_queues();
            match done {
                Ok(done) => job.end(done.map(|()| 0).map_err(|fault| self.keeper.judge(fault))),
                Err(Refusal::Busy) => busy.push(job),
                Err(refusal) => job.end(Err(refusal.into())),
            }
        }
    }

    /// Resets all zones it can with one record, or one at a time where each has an end of its own; says
    /// whether there were any. A request is over when that is durable; writes wait until the zone's old
    /// data is gone.
    fn reset(&self, jobs: &mut Vec<Job>, busy: &mut Vec<Job>) -> bool {
        let zones = self.zones();
        let (most, before) = (if self.keeper.is_device() { 1 } else { usize::MAX }, jobs.len());
        let (mut held, mut done): (Vec<Held<'_>>, Vec<Job>) = (Vec::new(), Vec::new());
        for job in jobs.extract_if(.., |job| matches!(job.work, Work::Reset(_) | Work::ResetAll)).take(most) {
            let taken = match job.work {
                Work::Reset(zone) => zones.hold(zone).map(|zone| held.push(zone)),
                _ => zones.hold_all().map(|mut all| held.append(&mut all)),
            };
            match taken {
                Ok(()) => done.push(job),
                Err(Refusal::Busy) => busy.push(job),
                Err(refusal) => job.end(Err(refusal.into())),
            }
        }
        if !done.is_empty() {
            let result = self.keeper.empty(&held);
            done.into_iter().for_each(|job| job.end(self.copy(&result)));
            if result.is_ok() {
                held.iter().for_each(|zone| self.keeper.emptied(zone));
            }
        }
        drop(held);
        self.bells.ring_queues();
        jobs.len() < before
    }

    fn finish(&self, jobs: &mut Vec<Job>, busy: &mut Vec<Job>) {
        for job in jobs.extract_if(.., |job| matches!(job.work, Work::Finish(_))) {
            let Work::Finish(zone) = job.work else { continue };
            let held = self.zones().hold(zone);
            let finished = held.and_then(|held| {
                held.may_finish()?;
                Ok(self.keeper.finish(&held))
            });
            self.bells.ring_queues();
            match finished {
                Ok(result) => job.end(self.copy(&result)),
                Err(Refusal::Busy) => busy.push(job),
                Err(refusal) => job.end(Err(refusal.into())),
            }
        }
    }

    /// The same again, as its zone has it: an error of the host cannot be cloned.
    fn copy(&self, result: &io::Result<()>) -> Outcome {
        outcome(result.as_ref().copied().map_err(again)).map_err(|fault| self.keeper.judge(fault))
    }
}

/// Ends those of `jobs` that were given up.
fn give_up(jobs: &mut Vec<Job>) {
    jobs.extract_if(.., |job| job.is_given_up())
        .for_each(|job| job.end(Err(io::ErrorKind::Interrupted.into())));
}
