//! Back-ends that hang up, refuse, say nothing or say what makes no sense: at any time it costs
//! their connection and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parador_vhost_user::frontend::{Remote, RemoteError, RemoteOptions};
use parador_vhost_user::message::{FrontendRequest as R, Message, ProtocolFeatures as F, VringState};
use parador_virtio::ids::VIRTIO_F_VERSION_1;
use parador_virtio::testing::{Driver, Harness, PATIENCE};
use parador_virtio::{Dirty, DirtyLog, QueueState, VirtioDevice};

use crate::fake::{Asked, Fake, Offer, Reaction, everything, memfd};

/// How a back-end goes wrong.
type Wrong = fn(&Asked) -> Reaction;

const WRONGS: [(&str, Wrong); 8] = [
    ("hangs up", |_| Reaction::HangUp),
    ("ends in a header", |asked| Reaction::End(asked.message.ack(0).bytes()[..7].into())),
    ("ends in a payload", |asked| Reaction::End(asked.message.ack(0).bytes()[..15].into())),
    ("answers something else", |_| Reaction::Send(Message::new(77, vec![0; 8]).reply(vec![0; 8]))),
    ("asks back", |asked| Reaction::Send(asked.message.clone())),
    ("says too little", |asked| Reaction::Send(asked.message.reply(vec![1]))),
    ("says far too much", |_| Reaction::Bytes(vec![0xff; 64])),
    ("says a page", |asked| Reaction::Send(asked.message.reply(vec![0x5a; 4096]))),
];

/// A session: all that a driver does.
fn session(harness: &mut Harness) {
    harness.start();
    harness.pause();
    harness.start();
    harness.device().write_config(0, &[1]);
    harness.reset();
    harness.start();
    harness.pause();
}

/// How many messages there are until a device is there, and until a session is over.
fn lengths() -> (usize, usize) {
    let fake = Fake::new(everything());
    let mut harness = Harness::new(fake.connect().unwrap());
    let connected = fake.asked().len();
    session(&mut harness);
    (connected, fake.asked().len())
}

/// A back-end that does `wrong` when it gets message `at` of its first connection.
fn fake_that(wrong: Wrong, at: usize) -> Fake {
    let mut count = 0;
    Fake::with(everything(), move |asked| {
        count += 1;
        if count == at + 1 && asked.connection == 0 { wrong(asked) } else { Reaction::Answer }
    })
}

#[test]
fn whatever_goes_wrong_before_there_is_a_device_is_an_error() {
    let (connected, _) = lengths();
    for (name, wrong) in WRONGS {
        for at in 0..connected {
            let fake = fake_that(wrong, at);
            let result = fake.connect();
            if at == 0 && matches!(name, "hangs up" | "ends in a header" | "ends in a payload") {
                // It ended just then; the next one is as good.
                assert!(result.is_ok() && fake.asked().last().unwrap().connection == 1, "{name}");
                continue;
            }
            let what = fake.names().last().copied();
            // Nothing is expected after SET_PROTOCOL_FEATURES: it is seen with the next answer, if at all.
            let quiet = what != Some("SET_PROTOCOL_FEATURES");
            assert!(
                result.is_err() || (quiet && name == "says a page") || name == "says nothing",
                "{name} at {what:?}"
            );
        }
    }
}

#[test]
fn whatever_goes_wrong_later_costs_one_connection() {
    let (connected, all) = lengths();
    for (name, wrong) in WRONGS {
        // Hanging up is tried everywhere, the others at every third message.
        for at in (connected..all).step_by(if name == "hangs up" { 1 } else { 3 }) {
            let fake = fake_that(wrong, at);
            let mut harness = Harness::new(fake.connect().unwrap());
            let begin = Instant::now();
            session(&mut harness);
            assert!(begin.elapsed() < PATIENCE, "{name} at {at}");
            // Whatever it was, in the end the rings run; a try that was interrupted is a connection, too.
            harness.start();
            let asked = fake.asked()[at].clone();
            let lost = !matches!(asked.request, R::GetConfig(_)) || !name.starts_with("says ");
            fake.wait(|asked| {
                lost == (asked.connection > 0)
                    && matches!(asked.request, R::SetVringEnable(state) if state.index == 1)
            });
            drop(harness);
        }
    }
}

#[test]
fn whoever_says_nothing_is_waited_for_no_longer_than_that() {
    let silent = |request: &R| {
        let name = request.name();
        let fake = Fake::with(everything(), move |asked| {
            if asked.connection == 0 && asked.request.name() == name {
                Reaction::Silence
            } else {
                Reaction::Answer
            }
        });
        let options = RemoteOptions { patience: Some(Duration::from_secs(1)), ..fake.options() };
        (fake, Remote::connect(options))
    };
    let (_fake, remote) = silent(&R::GetFeatures);
    let error = remote.err().expect("nobody answers");
    assert_eq!(error.to_string(), "the back-end does not answer GET_FEATURES within 1 s");
    let (fake, remote) = silent(&R::GetVringBase(VringState::default()));
    let mut remote = remote.unwrap();
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1);
    remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
    assert_eq!(remote.stop_queue(0), Some(QueueState::default()), "where the used ring is");
    fake.wait(|asked| asked.connection == 1);
}

#[test]
fn what_is_refused_is_an_error_of_that_alone() {
    let (connected, _) = lengths();
    // Five starts and stops are a few more.
    for at in connected..connected + 40 {
        let fake = fake_that(|asked| Reaction::Send(asked.message.ack(5)), at);
        let mut remote = fake.connect().unwrap();
        let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1);
        for _ in 0..5 {
            let started = remote.start_queue(driver.setup(0, QueueState::default()));
            assert_eq!(
                remote.stop_queue(0).is_some(),
                started.is_ok(),
                "a queue that was refused does not run"
            );
        }
        let started = remote.start_queue(driver.setup(0, QueueState::default()));
        assert!(started.is_ok(), "{at}: {:?}", fake.names());
    }
}

#[test]
fn answers_may_come_byte_by_byte() {
    let fake = Fake::new(Offer { slowly: true, ..everything() });
    let mut harness = Harness::new(fake.connect().unwrap());
    session(&mut harness);
    assert!(fake.asked().iter().all(|asked| asked.connection == 0));
}

#[test]
fn an_answer_that_trickles_in_for_ever_is_too_late() {
    let fake = Fake::with(everything(), |asked| match asked.request {
        R::GetFeatures => Reaction::Trickle(Duration::from_millis(200)),
        _ => Reaction::Answer,
    });
    let options = RemoteOptions { patience: Some(Duration::from_secs(1)), ..fake.options() };
    assert!(matches!(Remote::connect(options), Err(RemoteError::Silent { .. })));
}

#[test]
fn the_answer_to_a_log_may_have_any_size() {
    for size in [0, 8, 16] {
        let fake = Fake::with(everything(), move |asked| match asked.request {
            R::SetLogBase(_) => Reaction::Send(asked.message.reply(vec![0; size])),
            _ => Reaction::Answer,
        });
        let mut remote = fake.connect().unwrap();
        let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1);
        let log = Arc::new(DirtyLog::map(memfd(4096).into(), 0, 4096).unwrap());
        let mut setup = driver.setup(0, QueueState::default());
        setup.dirty = Some(Dirty { log: Arc::clone(&log), used_ring: Some(0x1000) });
        remote.start_queue(setup).unwrap();
        let all = |asked: &Asked| matches!(asked.request, R::SetFeatures(bits) if bits & 1 << 26 != 0);
        fake.wait(all);
        fake.wait(
            |asked| matches!(asked.request, R::SetVringAddr(ring) if (ring.flags, ring.log) == (1, 0x1000)),
        );
        remote.stop_queue(0).unwrap();
        fake.forget();
        // The log is over.
        remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
        fake.wait(|asked| matches!(asked.request, R::SetFeatures(bits) if bits & 1 << 26 == 0));
        fake.wait(|asked| matches!(asked.request, R::SetVringAddr(ring) if (ring.flags, ring.log) == (0, 0)));
        assert!(fake.asked().iter().all(|asked| asked.connection == 0));
        // One that is too short is none.
        remote.stop_queue(0).unwrap();
        let mut setup = driver.setup(0, QueueState::default());
        let short = DirtyLog::map(memfd(4096).into(), 0, 31).unwrap();
        setup.dirty = Some(Dirty { log: Arc::new(short), used_ring: None });
        assert!(remote.start_queue(setup).is_err());
    }
}

#[test]
fn no_configuration_is_an_answer_too() {
    let fake = Fake::with(everything(), |asked| match asked.request {
        R::GetConfig(_) => Reaction::Send(asked.message.reply(Vec::new())),
        _ => Reaction::Answer,
    });
    assert!(matches!(fake.connect(), Err(RemoteError::Refused { request: "GET_CONFIG", .. })));
}

#[test]
fn a_back_end_that_came_back_with_less_is_not_taken() {
    let fake = Fake::new(everything());
    let mut remote = fake.connect().unwrap();
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1 | 1 << 5);
    remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
    let region = fake.wait(|asked| matches!(asked.request, R::SetInflightFd(_)));
    let less: [fn(&mut Offer); 3] =
        [|offer| offer.features &= !(1 << 5), |offer| offer.queues = 1, |offer| offer.protocol = F(0)];
    for (round, less) in less.into_iter().enumerate() {
        // Shared memory cannot go, either: the guest has seen it.
        less(&mut fake.shared.offer.lock().unwrap());
        fake.hang_up();
        let tries = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&tries);
        fake.forget();
        fake.script(move |asked| {
            seen.fetch_add(usize::from(matches!(asked.request, R::GetFeatures)), Ordering::SeqCst);
            Reaction::Answer
        });
        fake.wait(|_| tries.load(Ordering::SeqCst) >= 3);
        assert!(!fake.names().contains(&"SET_VRING_KICK"), "round {round}");
        fake.forget();
        *fake.shared.offer.lock().unwrap() = everything();
        fake.wait(|asked| matches!(asked.request, R::SetVringEnable(_)));
        let again = fake.wait(|asked| matches!(asked.request, R::SetInflightFd(_)));
        assert_eq!(again.request, region.request);
        let inode = |asked: &Asked| rustix::fs::fstat(&*asked.files[0]).unwrap().st_ino;
        assert_eq!(inode(&again), inode(&region), "the same memory is handed back");
    }
    assert_eq!(remote.stop_queue(0), Some(QueueState::default()));
}

#[test]
fn a_back_end_that_says_nothing_when_it_comes_back_holds_nobody_up() {
    let fake = Fake::new(everything());
    let mut options = fake.options();
    options.patience = Some(Duration::from_secs(3600));
    let mut remote = Remote::connect(options).unwrap();
    let driver = Driver::new(1 << 20, 16, VIRTIO_F_VERSION_1);
    remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
    fake.forget();
    fake.script(|_| Reaction::Silence);
    fake.hang_up();
    fake.wait(|asked| matches!(asked.request, R::GetFeatures));
    assert_eq!(remote.stop_queue(0), Some(QueueState::default()));
    remote.start_queue(driver.setup(0, QueueState::default())).unwrap();
    fake.forget();
    fake.wait(|asked| matches!(asked.request, R::GetFeatures));
    drop(remote);
}
