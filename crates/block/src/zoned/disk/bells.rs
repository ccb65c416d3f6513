//! Who waits for a zone that is busy, and how they learn that it may not be any more.
//!
//! Whoever waits says so first and tries afterwards; whoever makes a zone less busy does that first
//! and looks for somebody waiting afterwards. With a fence between the two on either side, or both
//! sequentially consistent themselves, one of them sees the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::{Outcome, Tag, sys};

/// Where a queue finds what others did for it.
pub(super) struct Mailbox {
    done: Mutex<VecDeque<(Tag, Outcome)>>,
    /// Something came: a request that is over, or news.
    arrived: Condvar,
    /// The same, for whoever waits for more than this.
    wake: OwnedFd,
    /// Whether the queue keeps requests for zones that are busy.
    waits: AtomicBool,
    /// Whether to try those again.
    news: AtomicBool,
    /// How often the queue has given up all that it asked for; changes under the desk's lock.
    pub(super) given_up: AtomicU32,
}

impl Mailbox {
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        Ok(Self {
            done: Mutex::new(VecDeque::with_capacity(depth)),
            arrived: Condvar::new(),
            wake: sys::eventfd()?,
            waits: AtomicBool::new(false),
            news: AtomicBool::new(false),
            given_up: AtomicU32::new(0),
        })
    }

    /// A request is over.
    pub(super) fn post(&self, tag: Tag, outcome: Outcome) {
        self.lock().push_back((tag, outcome));
        self.arrived.notify_one();
        sys::signal(self.wake.as_fd());
    }

    /// The next request that is over.
    pub(super) fn take(&self) -> Option<(Tag, Outcome)> {
        self.lock().pop_front()
    }

    /// Says that there are requests to try again.
    pub(super) fn tell(&self) {
        let done = self.lock();
        self.news.store(true, Ordering::Release);
        drop(done);
        self.arrived.notify_one();
        sys::signal(self.wake.as_fd());
    }

    /// The same, by the queue itself, which looks before it waits.
    pub(super) fn remember(&self) {
        self.news.store(true, Ordering::Relaxed);
    }

    /// Whether there were any, since this was asked last.
    pub(super) fn had_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Acquire)
    }

    /// Blocks until a request is over or there is news.
    pub(super) fn wait(&self) {
        let mut done = self.lock();
        while done.is_empty() && !self.news.load(Ordering::Acquire) {
            done = self.arrived.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether a request is over.
    pub(super) fn has_mail(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Nothing is kept any more.
    pub(super) fn rests(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Becomes readable with every post and news, and stays so.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Tag, Outcome)>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All who may wait for zones of an image.
#[derive(Default)]
pub(super) struct Bells {
    /// Which of [`CLERK`] and [`QUEUES`] do.
    waiting: AtomicU8,
    mailboxes: Mutex<Vec<Weak<Mailbox>>>,
}

const CLERK: u8 = 1;
const QUEUES: u8 = 2;

impl Bells {
    /// From now on `mailbox` is told when it waits.
    pub(super) fn add(&self, mailbox: &Arc<Mailbox>) {
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        mailboxes.retain(|other| other.strong_count() > 0);
        mailboxes.push(Arc::downgrade(mailbox));
    }

    /// To be called before trying what may find a zone busy: the clerk will be told.
    pub(super) fn clerk_listens(&self) {
        self.waiting.fetch_or(CLERK, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The same for a queue.
    pub(super) fn queue_listens(&self, mailbox: &Mailbox) {
        mailbox.waits.store(true, Ordering::Relaxed);
        self.waiting.fetch_or(QUEUES, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// To be called after a write: its zone has become less busy. Says whether the clerk waits.
    #[must_use]
    pub(super) fn ring(&self) -> bool {
        // `Zones::complete` and this, both SeqCst, are the other side's fence: each costs every write.
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let waiting = self.waiting.swap(0, Ordering::AcqRel);
        if waiting & QUEUES != 0 {
            self.tell_queues();
        }
        waiting & CLERK != 0
    }

    /// To be called after the clerk held a zone.
    pub(super) fn ring_queues(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.fetch_and(!QUEUES, Ordering::AcqRel) & QUEUES != 0 {
            self.tell_queues();
        }
    }

    fn tell_queues(&self) {
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |mailbox: &Arc<Mailbox>| mailbox.waits.load(Ordering::Relaxed);
        mailboxes.iter().filter_map(Weak::upgrade).filter(waiting).for_each(|mailbox| mailbox.tell());
    }
}
