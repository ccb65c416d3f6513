//! Pointing at a setting, or at a part of it.

use crate::diagnose::Diagnostic;
use crate::origin::Origin;
use crate::printable::printable;
use crate::tree::Setting;

/// Marks `len` bytes of the key `path`, from `start`; if it was written in another spelling, as
/// many from its end.
pub(crate) fn at_key(
    diagnostic: Diagnostic,
    path: &str,
    setting: &Setting,
    start: usize,
    len: usize,
) -> Diagnostic {
    let spelt = setting.spelt(path).len();
    let start = spelt.saturating_sub(path.len().saturating_sub(start));
    at(diagnostic, path, setting, start, len.min(spelt - start))
}

/// Marks the value, and says what it was before it was expanded.
pub(crate) fn at_value(diagnostic: Diagnostic, path: &str, setting: &Setting) -> Diagnostic {
    let diagnostic = at_part(diagnostic, path, setting, 0, setting.written().len());
    if setting.written() == setting.value {
        return diagnostic;
    }
    let (written, value) = (printable(setting.written(), 60), printable(&setting.value, 60));
    diagnostic.note(format!("`{written}` is `{value}`"))
}

/// Marks `len` bytes of the value as it was written, from `start`.
pub(crate) fn at_part(
    diagnostic: Diagnostic,
    path: &str,
    setting: &Setting,
    start: usize,
    len: usize,
) -> Diagnostic {
    at(diagnostic, path, setting, setting.spelt(path).len() + 1 + start, len)
}

/// Where byte `start` of the value stands.
pub(crate) fn origin_of_part(path: &str, setting: &Setting, start: usize) -> Origin {
    origin(path, setting, setting.spelt(path).len() + 1 + start)
}

fn at(diagnostic: Diagnostic, path: &str, setting: &Setting, start: usize, len: usize) -> Diagnostic {
    let diagnostic = diagnostic.at(origin(path, setting, start));
    if setting.is_implied() {
        return diagnostic;
    }
    diagnostic.excerpt(&format!("{}={}", setting.spelt(path), setting.written()), start, len)
}

/// Where byte `start` of `key=value` stands, or the setting as a whole if it was not written so.
fn origin(path: &str, setting: &Setting, start: usize) -> Origin {
    if !setting.is_assignment() || setting.is_implied() {
        return setting.origin.clone();
    }
    let key = setting.spelt(path).len();
    let value = start.checked_sub(key + 1).and_then(|start| setting.written().get(..start));
    setting.origin.shifted(value.map_or(start, |before| key + 1 + before.chars().count()))
}
