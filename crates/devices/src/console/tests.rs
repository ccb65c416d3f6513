//! The console against the model driver, over every kind of back end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parador_virtio::testing::{Harness, PATIENCE};

use super::*;

/// Long enough for a device that has something to do to have done it.
const A_WHILE: Duration = Duration::from_millis(100);

fn console(backend: Backend) -> Console {
    Console::new(ConsoleOptions { backend, size: Size { cols: 80, rows: 25 } }).unwrap()
}

/// A console on pipes: what it reads from and what it writes to, seen from outside.
fn piped() -> (Console, io::PipeWriter, io::PipeReader) {
    let (input, typed) = io::pipe().unwrap();
    let (printed, output) = io::pipe().unwrap();
    (console(Backend::Stdio { input: input.into(), output: output.into() }), typed, printed)
}

/// What the driver gets in its next buffer.
fn received(harness: &mut Harness) -> Vec<u8> {
    let used = harness.driver(RECEIVE).wait_used(PATIENCE).unwrap();
    used.data[..used.written as usize].to_vec()
}

fn give_buffer(harness: &mut Harness) {
    let driver = harness.driver(RECEIVE);
    driver.add(&[], &[64]).unwrap();
    driver.kick();
}

#[test]
fn what_is_typed_arrives_and_what_is_printed_leaves() {
    let (console, mut typed, mut printed) = piped();
    let mut harness = Harness::new(console);
    give_buffer(&mut harness);
    typed.write_all(b"ls\n").unwrap();
    assert_eq!(received(&mut harness), b"ls\n");

    assert_eq!(harness.request(TRANSMIT, &[b"bin ", b"dev\n"], &[]).written, 0);
    let mut text = [0; 8];
    printed.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"bin dev\n");

    // Typed before there is a buffer for it.
    typed.write_all(b"pwd\n").unwrap();
    std::thread::sleep(A_WHILE);
    give_buffer(&mut harness);
    assert_eq!(received(&mut harness), b"pwd\n");

    // Nobody types any more; printing goes on.
    drop(typed);
    give_buffer(&mut harness);
    harness.request(TRANSMIT, &[b"still here"], &[]);
    assert_eq!(harness.driver(RECEIVE).wait_used(A_WHILE), None);
}

#[test]
fn a_flood_waits_for_a_slow_reader_in_the_ring() {
    let (console, _typed, mut printed) = piped();
    let mut harness = Harness::new(console);
    let driver = harness.driver(TRANSMIT);
    let text: Vec<u8> = (0..5000u32).map(|at| at.to_le_bytes()[0]).collect();
    let text_len = text.len();
    // Several times what a pipe holds.
    const CHAINS: usize = 30;
    for _ in 0..CHAINS {
        driver.add(&[&text, &text], &[]).unwrap();
    }
    driver.kick();
    let mut taken = 0;
    while driver.wait_used(A_WHILE).is_some() {
        taken += 1;
    }
    assert!((1..CHAINS).contains(&taken), "{taken} were taken, the rest waits");

    // A pause while output waits loses nothing and repeats nothing.
    harness.pause();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; CHAINS * 2 * text_len];
        printed.read_exact(&mut all).unwrap();
        all
    });
    let driver = harness.driver(TRANSMIT);
    for _ in taken..CHAINS {
        driver.wait_used(PATIENCE).unwrap();
    }
    assert!(reader.join().unwrap() == text.repeat(2 * CHAINS));
}

#[test]
fn output_nobody_reads_is_dropped() {
    let (on_pipes, _typed, printed) = piped();
    let mut harness = Harness::new(on_pipes);
    drop(printed);
    for _ in 0..50 {
        harness.request(TRANSMIT, &[&[b'x'; 4096]], &[]);
    }
    let mut harness = Harness::new(console(Backend::Null));
    harness.request(TRANSMIT, &[b"x"], &[]);
}

#[test]
fn a_reader_that_leaves_releases_what_waited_for_it() {
    let (console, _typed, printed) = piped();
    let mut harness = Harness::new(console);
    let driver = harness.driver(TRANSMIT);
    for _ in 0..60 {
        driver.add(&[&[b'x'; 4096]], &[]).unwrap();
    }
    driver.kick();
    let mut taken = 0;
    while driver.wait_used(A_WHILE).is_some() {
        taken += 1;
    }
    assert!(taken < 60);
    drop(printed);
    while taken < 60 {
        driver.wait_used(PATIENCE).unwrap();
        taken += 1;
    }
}

#[test]
fn a_file_keeps_what_was_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    std::fs::write(&path, "before\n").unwrap();
    let mut harness = Harness::new(console(Backend::File(path.clone())));
    harness.request(TRANSMIT, &[b"after\n"], &[]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\nafter\n");
}

#[test]
fn standard_output_that_is_a_file_is_written_where_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"shell\n").unwrap();
    let input = OwnedFd::from(File::open("/dev/null").unwrap());
    let mut harness = Harness::new(console(Backend::Stdio { input, output: file.into() }));
    give_buffer(&mut harness);
    harness.request(TRANSMIT, &[b"guest\n"], &[]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "shell\nguest\n");
}

#[test]
fn a_pseudo_terminal_comes_and_goes() {
    let console = console(Backend::Pty);
    let path = console.pty().unwrap().to_owned();
    let mut harness = Harness::new(console);
    // Nobody there: dropped, however much it is.
    for _ in 0..50 {
        harness.request(TRANSMIT, &[&[b'x'; 4096]], &[]);
    }
    for name in ["first", "second"] {
        let mut terminal = File::options().read(true).write(true).open(&path).unwrap();
        harness.request(TRANSMIT, &[name.as_bytes()], &[]);
        let mut text = vec![0; name.len()];
        terminal.read_exact(&mut text).unwrap();
        assert_eq!(text, name.as_bytes());
        give_buffer(&mut harness);
        terminal.write_all(b"typed\r").unwrap();
        assert_eq!(received(&mut harness), b"typed\r", "as it is, not as a terminal cooks it");
    }
}

#[test]
fn a_terminal_that_is_read_slowly_misses_nothing() {
    let console = console(Backend::Pty);
    let mut terminal = File::open(console.pty().unwrap()).unwrap();
    let mut harness = Harness::new(console);
    let driver = harness.driver(TRANSMIT);
    const CHAINS: usize = 60;
    let text: Vec<u8> = (0..8000u32).map(|at| (at % 251) as u8).collect();
    for _ in 0..CHAINS {
        driver.add(&[&text], &[]).unwrap();
    }
    driver.kick();
    let mut taken = 0;
    while driver.wait_used(A_WHILE).is_some() {
        taken += 1;
    }
    assert!(taken < CHAINS, "{taken} were taken, the rest waits");
    let mut all = vec![0; CHAINS * text.len()];
    terminal.read_exact(&mut all).unwrap();
    assert!(all == text.repeat(CHAINS));
    while taken < CHAINS {
        driver.wait_used(PATIENCE).unwrap();
        taken += 1;
    }
}

fn socket() -> (tempfile::TempDir, PathBuf, Harness) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let mut harness = Harness::new(console(Backend::Socket(path.clone())));
    give_buffer(&mut harness);
    (directory, path, harness)
}

#[test]
fn a_socket_serves_one_client_after_another() {
    let (_directory, path, mut harness) = socket();
    harness.request(TRANSMIT, &[b"nobody hears this"], &[]);
    for name in ["first", "second", "third"] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(name.as_bytes()).unwrap();
        assert_eq!(received(&mut harness), name.as_bytes());
        give_buffer(&mut harness);
        // A client that only listens from now on.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        std::thread::sleep(A_WHILE / 10);
        harness.request(TRANSMIT, &[b"hello"], &[]);
        let mut text = [0; 5];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }
    drop(harness);
    assert!(!path.exists());
}

#[test]
fn a_client_that_does_not_read_is_waited_for_and_let_go() {
    let (_directory, path, mut harness) = socket();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"x").unwrap();
    received(&mut harness);
    let driver = harness.driver(TRANSMIT);
    let mut waiting = 0;
    // More than any socket holds.
    for _ in 0..4096 {
        while driver.add(&[&[b'x'; 8192]], &[]).is_some() {
            waiting += 1;
        }
        driver.kick();
        let Some(_) = driver.wait_used(A_WHILE) else { break };
        waiting -= 1;
    }
    assert!(waiting > 0);
    drop(client);
    for _ in 0..waiting {
        driver.wait_used(PATIENCE).unwrap();
    }
}

#[test]
fn a_driver_that_starts_is_told_of_the_size_there_is() {
    let mut harness = Harness::new(console(Backend::Null));
    assert!(!harness.config_changed());
    harness.driver(RECEIVE);
    assert!(harness.config_changed());
}

#[test]
fn the_guest_is_told_of_a_new_size() {
    let console = console(Backend::Null);
    let resizer = console.resizer();
    let harness = Harness::new(console);
    assert_eq!(harness.config(0, 8), [80, 0, 25, 0, 1, 0, 0, 0]);
    assert!(!harness.config_changed());
    resizer.resize(Size { cols: 132, rows: 50 });
    assert!(harness.config_changed());
    assert_eq!(harness.config(0, 4), [132, 0, 50, 0]);
    resizer.resize(Size { cols: 132, rows: 50 });
    assert!(!harness.config_changed(), "nothing has changed");
}

#[test]
fn an_emergency_byte_is_printed_without_queues() {
    let (console, _typed, mut printed) = piped();
    let mut harness = Harness::new(console);
    for byte in b"oops" {
        harness.device().write_config(EMERG_WR, &u32::from(*byte).to_le_bytes());
    }
    harness.device().write_config(0, &[1, 2, 3, 4]);
    let mut text = [0; 4];
    printed.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"oops");
}

#[test]
fn a_device_that_waits_uses_no_processor_time() {
    let (console, _typed, _printed) = piped();
    let mut harness = Harness::new(console);
    give_buffer(&mut harness);
    let driver = harness.driver(TRANSMIT);
    while driver.add(&[&[b'x'; 4096]], &[]).is_some() {}
    driver.kick();
    while driver.wait_used(A_WHILE).is_some() {}
    let (before, start) = (processor_time(), Instant::now());
    std::thread::sleep(3 * A_WHILE);
    let used = processor_time() - before;
    assert!(used < start.elapsed() / 10, "{used:?} while nothing could be done");
}

/// Processor time of this process. The test runner gives each test its own.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}
