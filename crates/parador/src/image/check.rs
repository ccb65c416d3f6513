//! `parador image check`: what is wrong with a zoned image, and how it is made whole.

use std::fmt::Write;
use std::io::{BufRead, IsTerminal};
use std::path::Path;

use parador_block::zoned::Condition;
use parador_block::zoned::image::{Check, Severity};
use parador_config::Diagnostic;

use super::words::Words;
use super::{Ended, Outcome, Wrong, open, print};

/// Zones that are named one by one.
const NAMED: usize = 20;

pub(super) fn run(words: &Words) -> Outcome {
    let path = words.file()?;
    let repair = words.has("--repair");
    if words.has("--yes") && !repair {
        return Err(words.usage("--yes is for --repair"));
    }
    let image = open::locked(path, !repair)?;
    let check = Check::of(&image.file).map_err(|e| open::not_usable(path, &e))?;
    print(&told(path, &check))?;
    let worst = check.worst().unwrap_or(Severity::Trace);
    match (worst, repair) {
        (Severity::Trace, _) => return Ok(Ended::Done),
        (Severity::Spare | Severity::Loss, false) => return Ok(Ended::Damaged),
        (Severity::Spare, true) => {}
        (Severity::Loss, true) if words.has("--yes") => {}
        (Severity::Loss, true) if std::io::stdin().is_terminal() => {
            eprint!("Repair it? What is gone stays gone. [y/N] ");
            let mut answer = String::new();
            let _ = std::io::stdin().lock().read_line(&mut answer);
            if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
                return Ok(Ended::Damaged);
            }
        }
        (Severity::Loss, true) => {
            eprintln!("hint: keep a copy of it as it is, then say --repair --yes");
            return Ok(Ended::Damaged);
        }
    }
    check
        .repair(&image.file)
        .map_err(|e| Wrong::Host(Diagnostic::new(format!("cannot repair {}", path.display())).cause(&e)))?;
    print(&format!("{}: repaired\n", path.display()))?;
    Ok(Ended::Repaired)
}

/// What was found, and what a repair would make of it.
fn told(path: &Path, check: &Check) -> String {
    let name = path.display();
    let mut text = String::new();
    for finding in check.findings() {
        let label = match finding.severity() {
            Severity::Trace => "note",
            Severity::Spare => "damaged, nothing lost",
            Severity::Loss => "damaged",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {label}: {finding}");
    }
    for (zone, condition) in check.changes().iter().take(NAMED) {
        let becomes = match condition {
            Condition::Full => "full: its data stays, where it was written to is not known",
            _ => "offline: its data is not in the file any more",
        };
        let _ = writeln!(text, "{name}: a repair makes zone {zone} {becomes}");
    }
    if check.changes().len() > NAMED {
        let _ = writeln!(text, "{name}: and so for {} more zones", check.changes().len() - NAMED);
    }
    match check.worst() {
        None => {
            let _ = writeln!(text, "{name}: clean");
        }
        Some(Severity::Trace) => {
            let _ = writeln!(text, "{name}: clean: the next to open it sees to that");
        }
        Some(Severity::Spare | Severity::Loss) => {}
    }
    text
}
