//! What it takes to start a machine: from the start of the process to the guest's first
//! instruction, to its end, and the processor time of it all.
//!
//!     cargo run --release --example start -- PARADOR [RUNS]
//!
//! The guest is a few instructions: it writes a byte to the serial port and switches itself off, so
//! that any /dev/kvm that opens will do. The first instruction counts when its byte has arrived; it is a
//! line break, as other bytes wait for the rest of their line. The
//! same binary printing its version, in the same run, is what a process costs without a machine; a process
//! that makes KVM's calls and nothing else is the least that a machine costs on this host.
#![expect(unsafe_code, reason = "getrusage")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod bare;
#[path = "../../tests/cli/payload.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod payload;

use std::error::Error;
use std::io::Read;
use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What we set out to reach: the median to the first instruction, and processor time to the end.
const FIRST_GOAL: Duration = Duration::from_millis(2);
const CPU_GOAL: Duration = Duration::from_millis(3);

/// The argument with which this program is the process that makes bare calls.
const BARE: &str = "--bare";

/// One run.
struct Sample {
    first: Duration,
    end: Duration,
    cpu: Duration,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let parador = words.next().ok_or("which parador?")?;
    if parador == BARE {
        return Ok(bare::run()?);
    }
    let runs = words.next().map_or(Ok(100), |runs| runs.parse())?;
    let kernel = std::env::temp_dir().join(format!("parador-start-{}.elf", std::process::id()));
    std::fs::write(&kernel, payload::Code::default().print("\n").power_off().elf())?;
    let keys = format!("boot.kernel={}", kernel.display());
    let machine = ["vmm", "-o", &keys, "-o", "memory.size=256M", "-o", "console=stdio"];
    let ours = std::env::current_exe()?;
    let ours = ours.to_str().ok_or("where is this?")?;
    // In turn, so that a busy moment of the host meets all of them.
    let (mut samples, mut floor, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        samples.push(sample(&parador, &machine)?);
        floor.push(sample(&parador, &["--version"])?);
        bare.push(sample(ours, &[BARE])?);
    }
    std::fs::remove_file(&kernel)?;

    println!("start, median of {runs} runs");
    let [floor, bare, first] =
        [&floor, &bare, &samples].map(|samples| median(samples, |sample| sample.first));
    let (end, cpu) = (median(&samples, |sample| sample.end), median(&samples, |sample| sample.cpu));
    line("a process without a machine", floor, "");
    line("bare KVM, first instruction", bare, "");
    let ratios = of(first, FIRST_GOAL, "the goal") + &of(first, bare, "bare KVM");
    line("to the guest's first instruction", first, &ratios);
    line("to the end of the process", end, "");
    line("processor time to the end", cpu, &of(cpu, CPU_GOAL, "the goal"));
    Ok(())
}

fn line(name: &str, time: Duration, ratio: &str) {
    println!("  {name:34} {:7.3} ms{ratio}", time.as_secs_f64() * 1e3);
}

fn of(time: Duration, whole: Duration, name: &str) -> String {
    format!("  {:5.2} of {name}", time.as_secs_f64() / whole.as_secs_f64())
}

fn sample(program: &str, arguments: &[&str]) -> Result<Sample> {
    let (before, started) = (children_cpu(), Instant::now());
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    child.stdout.take().ok_or("no pipe")?.read_exact(&mut byte)?;
    let first = started.elapsed();
    let status = child.wait()?;
    let end = started.elapsed();
    if !status.success() {
        return Err(format!("{program} ended with {status}").into());
    }
    Ok(Sample { first, end, cpu: children_cpu() - before })
}

/// Processor time of all children that have been waited for.
fn children_cpu() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills a rusage, for which all zeroes are a valid value already.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| {
            let micros = time.tv_sec * 1_000_000 + time.tv_usec;
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        })
        .sum()
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> Duration) -> Duration {
    let mut times = samples.iter().map(of).collect::<Vec<_>>();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
