//! TOML and JSON: files for people, and for programs that write for people.
//!
//! Both become the same tables ([`node`]), which flatten into leaves by path ([`flatten`]). A file
//! may include others and apply templates; the later of these wins:
//!
//! ```text
//! included files, in order  <  templates, in the order of `apply`  <  the file itself
//! ```
//!
//! A list (`disk`, `net`, `share`, `engine.<name>.args`) that the winner sets replaces the whole list.
//! What is not known here passes through as a key: the table of keys judges.

mod flatten;
pub(crate) mod json;
mod layer;
pub(crate) mod node;
mod page;
mod template;
mod toml;

use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use parador_config::{Diagnostic, Diagnostics, Severity, Tree};

use crate::fates::{Fate, Fates, fates};
use crate::format::{Exported, Format, Imported, Input, Load, Output};
use crate::text::{Text, one};
use layer::Layer;
use node::{Node, Table, Value, entry};
use template::Templates;

/// Every key has a place in a table.
pub(crate) const FATES: Fates = fates![("**", Fate::Mapped)];

/// How deep files may include files.
const MAX_DEPTH: usize = 16;
/// How many files one machine may be made of.
const MAX_FILES: usize = 256;

/// The syntax of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Toml,
    Json,
}

/// Reads a file, and those it includes.
pub(crate) fn import(syntax: Syntax, input: Input<'_>, load: Load<'_>) -> Result<Imported, Diagnostics> {
    let Input::Text { name, bytes } = input else {
        let format = if syntax == Syntax::Toml { Format::Toml } else { Format::Json };
        let message = format!("words of a command line are not {}", format.name());
        return Err(one(Diagnostic::new(message).hint("name a file, or `-`")));
    };
    let mut reader = Reader {
        load,
        diagnostics: Diagnostics::default(),
        templates: Templates::default(),
        files: 1,
        chain: vec![tidy(Path::new(name))],
    };
    let layer = reader.file(syntax, name, bytes);
    if reader.diagnostics.errors() > 0 {
        Err(reader.diagnostics)
    } else {
        Ok(Imported { tree: layer.into_tree(), losses: Vec::new() })
    }
}

/// Writes a file that says what `tree` says.
#[expect(clippy::unnecessary_wraps, reason = "the signature all formats share")]
pub(crate) fn export(syntax: Syntax, tree: &Tree) -> Result<Exported, Diagnostics> {
    let page = page::page(tree);
    let text = match syntax {
        Syntax::Toml => toml::write(&page),
        Syntax::Json => json::write(&page),
    };
    Ok(Exported { output: Output::Text(text), losses: page.losses })
}

struct Reader<'a> {
    load: Load<'a>,
    diagnostics: Diagnostics,
    templates: Templates,
    /// Files read so far.
    files: usize,
    /// The file being read, and those that include it, the first one first.
    chain: Vec<PathBuf>,
}

impl Reader<'_> {
    /// What a file says, with what it includes and applies.
    fn file(&mut self, syntax: Syntax, name: &str, bytes: &[u8]) -> Layer {
        let text = match Text::new(name, bytes) {
            Ok(text) => Rc::new(text),
            Err(wrong) => {
                for (severity, diagnostic) in wrong.shown() {
                    self.diagnostics.add(*severity, || diagnostic.clone());
                }
                return Layer::default();
            }
        };
        let parsed = match syntax {
            Syntax::Toml => toml::parse(&text, &mut self.diagnostics),
            Syntax::Json => json::parse(&text, &mut self.diagnostics),
        };
        let Some(table) = parsed else { return Layer::default() };
        let mut layer = self.included(syntax, &table);
        self.templates.define(&table, &mut self.diagnostics);
        for body in self.templates.applied(&table, &mut self.diagnostics) {
            layer.cover(flatten::flatten(&body, &mut self.diagnostics));
        }
        layer.cover(flatten::flatten(&table, &mut self.diagnostics));
        layer
    }

    /// What the files say that `table` includes.
    fn included(&mut self, syntax: Syntax, table: &Table) -> Layer {
        let mut layer = Layer::default();
        for node in entry(table, "include").map(Node::elements).unwrap_or_default() {
            match self.include(syntax, node) {
                Ok(upper) => layer.cover(upper),
                Err(diagnostic) => self.diagnostics.add(Severity::Error, || *diagnostic),
            }
        }
        layer
    }

    fn include(&mut self, syntax: Syntax, node: &Node) -> Result<Layer, Box<Diagnostic>> {
        let Value::Text(written) = &node.value else {
            let message = format!("{} names no file", node.what());
            return Err(Box::new(node.place.finding(message).hint("write include = [\"base.toml\"]")));
        };
        let folder = self.chain.last().and_then(|path| path.parent()).unwrap_or(Path::new(""));
        let path = tidy(&folder.join(written));
        if self.chain.contains(&path) {
            return Err(Box::new(node.place.finding("this file includes itself").hint(self.shown(&path))));
        }
        if self.chain.len() >= MAX_DEPTH || self.files >= MAX_FILES {
            let message = format!("more than {MAX_DEPTH} files deep, or more than {MAX_FILES} files");
            return Err(Box::new(node.place.finding(message).hint(self.shown(&path))));
        }
        let bytes = (self.load)(&path).map_err(|e| {
            let message = format!("cannot read {}", path.display().to_string().escape_debug());
            Box::new(node.place.finding(message).cause(&e))
        })?;
        self.files += 1;
        let syntax = match path.extension().and_then(|end| end.to_str()) {
            Some("json") => Syntax::Json,
            Some("toml") => Syntax::Toml,
            _ => syntax,
        };
        self.chain.push(path.clone());
        let layer = self.file(syntax, &path.to_string_lossy(), &bytes);
        self.chain.pop();
        Ok(layer)
    }

    /// Who includes whom, down to `path`.
    fn shown(&self, path: &Path) -> String {
        let names: Vec<String> = self
            .chain
            .iter()
            .map(PathBuf::as_path)
            .chain([path])
            .map(|path| path.display().to_string())
            .collect();
        names.join(" includes ").escape_debug().to_string()
    }
}

/// `path` without `.`, and without `..` where that can be said without looking.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        let named = matches!(tidied.components().next_back(), Some(Component::Normal(_)));
        match part {
            Component::CurDir => {}
            Component::ParentDir if named => drop(tidied.pop()),
            part => tidied.push(part),
        }
    }
    tidied
}
