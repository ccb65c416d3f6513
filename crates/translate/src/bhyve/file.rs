//! A bhyve_config(5) file: lines of `key=value`, comments in the first column, nothing else.

use parador_config::{Origin, Severity};

use super::options::Reading;
use crate::text::Text;

/// Sets what the file `name` sets. What bhyve itself would refuse or take otherwise, but can be
/// meant only one way, is taken and said.
pub(super) fn read(reading: &mut Reading, name: &str, bytes: &[u8]) {
    let text = match Text::new(name, bytes) {
        Ok(text) => text,
        Err(wrong) => {
            for (_, diagnostic) in wrong.shown() {
                reading.diagnostics.add(Severity::Error, || diagnostic.clone());
            }
            return;
        }
    };
    let mut start = 0;
    for line in text.text.split('\n') {
        read_line(reading, line, &text.origin(start));
        start += line.len() + 1;
    }
}

fn read_line(reading: &mut Reading, line: &str, origin: &Origin) {
    if line.is_empty() || line.starts_with('#') {
        return;
    }
    let body = line.strip_suffix('\r').unwrap_or(line);
    if body.len() < line.len() {
        let why = "bhyve takes the CR at the end of the line for a part of the value; here it is left out";
        reading.lose(body, why, origin);
    }
    let rest = body.trim_start_matches([' ', '\t']);
    if rest.is_empty() || (rest.starts_with('#') && rest.len() < body.len()) {
        if body.len() == line.len() {
            let why = "bhyve refuses this line: a comment starts in the first column, an empty line is empty";
            reading.lose(if rest.is_empty() { "a line of blanks" } else { body }, why, origin);
        }
        return;
    }
    if rest.len() < body.len() {
        reading.lose(
            body,
            "bhyve takes the blank before the key for a part of it; here it is left out",
            origin,
        );
    }
    if let Err(wrong) = reading.assign(rest, origin) {
        reading.wrong(wrong, body, origin);
    }
}
