//! The tree itself, as a file of `key=value` lines.

use std::fmt::Write;

use parador_config::{Diagnostics, Source, Tree};

use crate::fates::{Fate, Fates, fates};
use crate::format::{Exported, Imported, Input, Loss, Output};

/// Every key is itself.
pub(crate) const FATES: Fates = fates![("**", Fate::Mapped)];

pub(crate) fn import(input: Input<'_>) -> Result<Imported, Diagnostics> {
    let (tree, diagnostics) = match input {
        Input::Text { name, bytes } => Tree::from_sources(&[Source::File { name, bytes }]),
        Input::Arguments { first, words } => {
            let options: Vec<_> = words
                .iter()
                .enumerate()
                .map(|(index, text)| Source::Option { argument: first + index, text })
                .collect();
            Tree::from_sources(&options)
        }
    };
    if diagnostics.errors() > 0 { Err(diagnostics) } else { Ok(Imported { tree, losses: Vec::new() }) }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(tree: &Tree) -> Result<Exported, Diagnostics> {
    let mut settings = tree.in_order();
    settings.sort_by_key(|(key, _)| *key);
    let mut text = String::new();
    let mut losses = Vec::new();
    for (key, setting) in settings {
        if setting.value.contains(['\n', '\r']) {
            let what = format!("{key}={}", setting.value.escape_debug());
            let why = "a value is one line of text".to_owned();
            losses.push(Loss { what, why, origin: Some(setting.origin.clone()) });
        } else {
            let _ = writeln!(text, "{key}={}", setting.raw());
        }
    }
    Ok(Exported { output: Output::Text(text), losses })
}

#[cfg(test)]
mod tests {
    use parador_config::Origin;

    use super::*;

    #[test]
    fn a_line_break_cannot_set_another_key() {
        let mut tree = Tree::default();
        tree.set("boot.cmdline", "quiet\ncpus=9", Origin::Argument(1));
        tree.set("name", "web", Origin::Argument(1));
        let exported = export(&tree).unwrap();
        assert_eq!(exported.output.to_string(), "name=web\n");
        assert_eq!(exported.losses[0].what, "boot.cmdline=quiet\\ncpus=9");
    }
}
