//! A scenario: a shell script under `tests/scenarios/` whose first comment block says what it needs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;

/// What a scenario may ask for besides the `parador` binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Debian's kernel as shipped, `$BZIMAGE`.
    BzImage,
    /// The ELF kernel inside it, `$VMLINUX`.
    Vmlinux,
    /// The busybox archive, `$INITRAMFS`.
    Initramfs,
    /// The Debian root file system, `$ROOTFS`: a disk the scenario may write to.
    Rootfs,
    /// An archive whose init switches the guest off at once, `$POWEROFF`.
    Poweroff,
    /// This machine's QEMU, to run guests beside ours: `$QEMU`, `$QEMU_DATA`.
    Qemu,
    /// The qemu-storage-daemon of the Debian release before the stable one: `$STORAGE_DAEMON`.
    StorageDaemon,
    /// The program that judges zoned disks in a guest, `$JUDGE`.
    Judge,
}

/// What time is in the outer machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As it passes for us.
    Wall,
    /// One nanosecond an instruction, on one processor: figures repeat to about 1 %. Such a
    /// scenario always runs nested.
    Virtual,
    /// The same, and the outer kernel's timers wait for its tick: a guest with thousands of interrupts would
    /// stand still otherwise (docs/decisions/0004).
    VirtualTicks,
}

/// One scenario, as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The file's or folder's name without `.sh`.
    pub name: String,
    /// The script.
    pub script: PathBuf,
    /// Files beside the script, for a scenario that is a folder: they go to `$LAB`.
    pub files: Vec<PathBuf>,
    /// What the script needs.
    pub needs: Vec<Need>,
    /// How long it may take, outer boot included.
    pub timeout: Duration,
    /// How long its long form may take, if it has one.
    pub long: Option<Duration>,
    /// The outer machine's memory in MiB.
    pub memory_mib: u32,
    /// What time is in there.
    pub clock: Clock,
    /// The profile that `parador` is built with: `lab`, or `release` where it is measured.
    pub profile: String,
}

/// A bound for what is stuck. A scenario takes a tenth of it on an idle machine.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1500);
const DEFAULT_MEMORY_MIB: u32 = 1536;

/// The folder with all scenarios.
pub(super) fn folder() -> PathBuf {
    command::root().join("tests/scenarios")
}

/// The names of all scenarios, sorted.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("scenario.sh").exists() {
            names.push(name);
        } else if let Some(name) = name.strip_suffix(".sh") {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

impl Scenario {
    /// Reads the scenario called `name`.
    pub fn open(name: &str) -> Result<Scenario> {
        let alone = folder().join(format!("{name}.sh"));
        let inside = folder().join(name);
        let (script, files) = if alone.is_file() {
            (alone, Vec::new())
        } else if inside.join("scenario.sh").is_file() {
            let files = fs::read_dir(&inside)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            (inside.join("scenario.sh"), files)
        } else {
            bail!("there is no scenario `{name}`\nhint: there are {}", names()?.join(", "));
        };
        let mut scenario = Scenario::read(name, script)?;
        scenario.files = files.into_iter().filter(|file| !file.ends_with("scenario.sh")).collect();
        Ok(scenario)
    }

    /// Reads `script` as the scenario called `name`.
    pub fn read(name: &str, script: PathBuf) -> Result<Scenario> {
        let text =
            fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
        let mut scenario = parse(&text).with_context(|| format!("in the head of {}", script.display()))?;
        scenario.name = name.to_owned();
        scenario.script = script;
        Ok(scenario)
    }
}

/// Reads the declarations: comment lines `# key: value` before the first line of code.
fn parse(text: &str) -> Result<Scenario> {
    let mut scenario = Scenario {
        name: String::new(),
        script: PathBuf::new(),
        files: Vec::new(),
        needs: Vec::new(),
        timeout: DEFAULT_TIMEOUT,
        long: None,
        memory_mib: DEFAULT_MEMORY_MIB,
        clock: Clock::Wall,
        profile: "lab".to_owned(),
    };
    for line in text.lines().map_while(|line| line.strip_prefix('#')) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "needs" => scenario.needs = value.split_whitespace().map(need).collect::<Result<_>>()?,
            "timeout" => scenario.timeout = seconds(key, value)?,
            "long" => scenario.long = Some(seconds(key, value)?),
            "memory" => {
                scenario.memory_mib =
                    value.parse().with_context(|| format!("`memory: {value}` is not in MiB"))?;
            }
            "profile" => scenario.profile = value.to_owned(),
            "clock" => {
                scenario.clock = match value {
                    "wall" => Clock::Wall,
                    "virtual" => Clock::Virtual,
                    "virtual ticks" => Clock::VirtualTicks,
                    _ => bail!("`clock: {value}` is not wall, virtual or virtual ticks"),
                };
            }
            // A sentence with a colon in it.
            _ if key.contains(' ') => {}
            _ => bail!("`{key}` is not one of needs, timeout, long, memory, clock, profile"),
        }
    }
    Ok(scenario)
}

fn seconds(key: &str, value: &str) -> Result<Duration> {
    let seconds = value.parse().with_context(|| format!("`{key}: {value}` is not in seconds"))?;
    Ok(Duration::from_secs(seconds))
}

fn need(word: &str) -> Result<Need> {
    Ok(match word {
        "bzimage" => Need::BzImage,
        "vmlinux" => Need::Vmlinux,
        "initramfs" => Need::Initramfs,
        "rootfs" => Need::Rootfs,
        "poweroff" => Need::Poweroff,
        "qemu" => Need::Qemu,
        "storage-daemon" => Need::StorageDaemon,
        "judge" => Need::Judge,
        _ => bail!(
            "`needs: {word}` is not one of bzimage, vmlinux, initramfs, rootfs, poweroff, qemu, storage-daemon, judge"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_declares_and_the_rest_does_not() {
        let text = "# Boots it: twice.\n#\n# needs: bzimage rootfs\n# timeout: 60\n# long: 600\n\necho\n# memory: 9\n";
        let scenario = parse(text).unwrap();
        assert_eq!(scenario.needs, [Need::BzImage, Need::Rootfs]);
        assert_eq!(scenario.timeout, Duration::from_secs(60));
        assert_eq!(scenario.long, Some(Duration::from_secs(600)));
        assert_eq!(scenario.memory_mib, DEFAULT_MEMORY_MIB);
    }

    #[test]
    fn a_misspelt_declaration_is_an_error() {
        for text in ["# need: bzimage\n", "# needs: bzimages\n", "# timeout: 2m\n", "# memory: lots\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_scenario_of_the_tree_can_be_read() {
        for name in names().unwrap() {
            Scenario::open(&name).unwrap();
        }
    }
}
