//! Events of the libraries, as lines on standard error.
//!
//! One level for all of them and no state per span: what is left out is what costs memory.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::Instant;

use parador_config::Checked;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Name of the environment variable that sets the level unless the machine's description does.
const VARIABLE: &str = "PARADOR_LOG";

/// What is logged: as the description says, or the environment, or `default`.
pub(crate) fn level(keys: &Checked, default: LevelFilter) -> LevelFilter {
    let set = keys.word("log.level").map(str::to_owned).or_else(|| std::env::var(VARIABLE).ok());
    set.and_then(|level| level.parse().ok()).unwrap_or(default)
}

/// Writes events of `level` and worse to standard error from now on.
pub(crate) fn start(level: LevelFilter) {
    // Refused only if it was done before; then it is done.
    let _ = tracing::subscriber::set_global_default(Lines { level, start: Instant::now() });
}

struct Lines {
    level: LevelFilter,
    start: Instant,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let elapsed = self.start.elapsed();
        let mut line = Line(format!(
            "[{:4}.{:06}] {:5} {}:",
            elapsed.as_secs(),
            elapsed.subsec_micros(),
            metadata.level(),
            metadata.target()
        ));
        event.record(&mut line);
        line.0.push('\n');
        // One write, so that lines of different threads stay whole. If it fails there is nobody to tell.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let start = self.0.len();
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        // A guest's words can be among them: nothing a terminal would obey passes.
        if self.0[start..].chars().any(char::is_control) {
            let clean: String = self.0[start..].chars().flat_map(printable).collect();
            self.0.truncate(start);
            self.0.push_str(&clean);
        }
    }
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_is_written() {
        let text: String = "a\u{1b}[2J\n".chars().flat_map(printable).collect();
        assert_eq!(text, "a\\u{1b}[2J\\n");
    }
}
