//! Letters in every interleaving: `RUSTFLAGS="--cfg loom" cargo test -p parador-block --lib letterbox`.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use loom::sync::Mutex;
use loom::thread::{self, JoinHandle};

use super::*;

const ONE: Letter = Letter { zone: 1, offline: true };
const OTHER: Letter = Letter { zone: 2, offline: false };

/// Every interleaving in which threads are interrupted no more than so often: more take hours.
fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(run);
}

/// An image's file, as far as letters are concerned.
#[derive(Default)]
struct Host {
    words: Futexes,
    /// Whoever asks has it.
    asker: Mutex<()>,
    /// How often a zone was made to fail.
    failed: [AtomicU32; 3],
}

impl Host {
    fn letterbox(&self) -> Letterbox {
        Letterbox::new(Arc::clone(&self.words))
    }

    fn failed(&self, letter: Letter) -> u32 {
        self.failed[letter.zone as usize].load(Ordering::SeqCst)
    }

    /// Reads letters until the box is closed. What comes of one shows whose it was.
    fn attend(&self, letterbox: &Letterbox) {
        while let Some(letter) = letterbox.next() {
            self.failed[letter.zone as usize].fetch_add(1, Ordering::SeqCst);
            letterbox.answer(letter, outcome(letter));
        }
    }

    /// Asks once there is nobody else who does.
    fn ask(&self, letter: Letter) -> Asked {
        let letterbox = self.letterbox();
        let _asker = self.asker.lock().unwrap();
        if !letterbox.is_read() || !letterbox.put(letter) {
            return Asked::Nobody;
        }
        loop {
            if let Some(asked) = letterbox.answer_to(letter) {
                return asked;
            }
        }
    }

    /// Asks, and is killed.
    fn ask_and_go(&self, letter: Letter) {
        let _asker = self.asker.lock().unwrap();
        self.letterbox().put(letter);
    }
}

fn outcome(letter: Letter) -> Result<(), Failure> {
    if letter == ONE { Ok(()) } else { Err(Failure::Host(libc::EIO)) }
}

/// Whether `asked` is the answer to `letter`, rather than that nobody answers.
fn is_answered(asked: &Asked, letter: Letter) -> bool {
    match asked {
        Asked::Done => assert_eq!(letter, ONE),
        Asked::Failed(error) => assert_eq!((letter, error.raw_os_error()), (OTHER, Some(libc::EIO))),
        Asked::Nobody => return false,
        Asked::Refused | Asked::NoAnswer => unreachable!("{asked:?}"),
    }
    true
}

/// Runs `act` beside a process that has the image open, then closes it.
fn beside_an_owner(act: impl FnOnce(&Arc<Host>)) -> Arc<Host> {
    let host = Arc::<Host>::default();
    let letterbox = Arc::new(host.letterbox());
    letterbox.open();
    let owner = thread::spawn({
        let (host, letterbox) = (Arc::clone(&host), Arc::clone(&letterbox));
        move || host.attend(&letterbox)
    });
    act(&host);
    letterbox.close();
    owner.join().unwrap();
    host
}

fn spawn<T: 'static>(host: &Arc<Host>, act: impl FnOnce(&Host) -> T + 'static) -> JoinHandle<T> {
    let host = Arc::clone(host);
    thread::spawn(move || act(&host))
}

#[test]
fn each_of_two_who_ask_gets_its_own_answer_once() {
    model(|| {
        let host = beside_an_owner(|host| {
            let other = spawn(host, |host| host.ask(OTHER));
            assert!(is_answered(&host.ask(ONE), ONE));
            assert!(is_answered(&other.join().unwrap(), OTHER));
        });
        assert_eq!((host.failed(ONE), host.failed(OTHER)), (1, 1));
    });
}

#[test]
fn one_who_is_killed_leaves_the_next_its_own_answer() {
    for last in [ONE, OTHER] {
        model(move || {
            let host = beside_an_owner(|host| {
                let killed = spawn(host, |host| host.ask_and_go(OTHER));
                killed.join().unwrap();
                assert!(is_answered(&host.ask(last), last));
            });
            // A letter that nobody had begun with is gone; the same one twice may be one.
            assert!(host.failed(OTHER) <= 1 + u32::from(last == OTHER));
            assert!(host.failed(last) >= 1);
        });
    }
}

#[test]
fn nobody_waits_for_one_who_closes() {
    model(|| {
        let mut asked = None;
        let host = beside_an_owner(|host| asked = Some(spawn(host, |host| host.ask(ONE))));
        let answered = is_answered(&asked.unwrap().join().unwrap(), ONE);
        // It may have done what it was asked before it heard of its end.
        assert!(if answered { host.failed(ONE) == 1 } else { host.failed(ONE) <= 1 });
    });
}

#[test]
fn nobody_waits_for_one_who_was_killed_when_the_next_has_the_image() {
    model(|| {
        let host = Arc::<Host>::default();
        host.letterbox().open();
        host.ask_and_go(OTHER);
        let asked = spawn(&host, |host| host.ask(ONE));
        let next = Arc::new(host.letterbox());
        next.open();
        let owner = spawn(&host, {
            let next = Arc::clone(&next);
            move |host| host.attend(&next)
        });
        let answered = is_answered(&asked.join().unwrap(), ONE);
        next.close();
        owner.join().unwrap();
        assert_eq!(host.failed(ONE), u32::from(answered));
        assert_eq!(host.failed(OTHER), 0, "that was another one's");
    });
}
