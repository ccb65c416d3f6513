//! Templates: parts of a file with parameters.
//!
//! ```toml
//! [template.web]
//! params = ["root", "bridge=br0"]      # the second has a default
//! disk = ["/vm/%(param.root)"]
//! net = "%(param.bridge)"
//! ```
//!
//! `apply = [{template="web", root="a.img"}]` stands for those keys, with every `%(param.…)` in
//! them replaced. Other references stay as they are, for the tree to expand.

use std::collections::BTreeMap;

use parador_config::{Diagnostic, Diagnostics, Severity};

use crate::structured::flatten::{DIRECTIVES, MAX_VALUE};
use crate::structured::node::{Key, Node, Place, Table, Value, entry};

/// Most bytes that templates may stand for in one machine. An entry counts as [`ENTRY`] and its text.
const MAX_ADDED: usize = 4 << 20;
const ENTRY: usize = 16;

/// Templates by name.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    defined: BTreeMap<String, Template>,
    added: usize,
}

#[derive(Debug, Clone)]
struct Template {
    /// Parameters with their defaults.
    params: Vec<(String, Option<String>)>,
    body: Table,
}

impl Templates {
    /// Defines what `[template.*]` in `table`, the top of a file, defines; the last definition of a
    /// name counts.
    pub(crate) fn define(&mut self, table: &Table, diagnostics: &mut Diagnostics) {
        let Some(node) = entry(table, "template") else { return };
        let Value::Table(templates) = &node.value else {
            let message = format!("{} defines no template", node.what());
            return wrong(diagnostics, node.place.finding(message).hint("write [template.web] and its keys"));
        };
        for (name, node) in templates {
            let Value::Table(body) = &node.value else {
                let message = format!("{} is no template", node.what());
                wrong(diagnostics, node.place.finding(message).hint("write [template.web] and its keys"));
                continue;
            };
            for (key, _) in body.iter().filter(|(key, _)| DIRECTIVES.contains(&key.name.as_str())) {
                wrong(diagnostics, key.place.finding(format!("`{}` inside a template", key.name)));
            }
            let params = match entry(body, "params").map(params).transpose() {
                Ok(params) => params.unwrap_or_default(),
                Err(diagnostic) => {
                    wrong(diagnostics, *diagnostic);
                    continue;
                }
            };
            let body = body.iter().filter(|(key, _)| key.name != "params").cloned().collect();
            self.defined.insert(name.name.clone(), Template { params, body });
        }
    }

    /// What each element of `apply` in `table`, the top of a file, stands for.
    pub(crate) fn applied(&mut self, table: &Table, diagnostics: &mut Diagnostics) -> Vec<Table> {
        let mut bodies = Vec::new();
        for node in entry(table, "apply").map(Node::elements).unwrap_or_default() {
            bodies.extend(self.apply(node, diagnostics));
            if self.added > MAX_ADDED {
                let message = format!("templates stand for more than {MAX_ADDED} bytes");
                wrong(diagnostics, node.place.finding(message));
                break;
            }
        }
        bodies
    }

    fn apply(&mut self, node: &Node, diagnostics: &mut Diagnostics) -> Option<Table> {
        let none = Vec::new();
        let (name, arguments) = match &node.value {
            Value::Text(_) => (Some(node), &none),
            Value::Table(table) => (entry(table, "template"), table),
            Value::Bare(_) | Value::List(_) | Value::Odd(_) => (None, &none),
        };
        let Some((name, Value::Text(called))) = name.map(|name| (name, &name.value)) else {
            let hint = "write the name of a template, or {template=\"web\", root=\"a.img\"}";
            wrong(diagnostics, node.place.finding("this names no template").hint(hint));
            return None;
        };
        let Some(template) = self.defined.get(called) else {
            let known: Vec<&str> = self.defined.keys().map(String::as_str).collect();
            let hint = if known.is_empty() {
                "none is defined; [template.web] begins one".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            wrong(diagnostics, name.place.finding(format!("there is no template `{called}`")).hint(hint));
            return None;
        };
        let before = diagnostics.errors();
        let arguments: Vec<&(Key, Node)> =
            arguments.iter().filter(|(key, _)| key.name != "template").collect();
        let values = values(called, &template.params, &arguments, node, diagnostics);
        if diagnostics.errors() > before {
            return None;
        }
        let mut filler = Filler { values, added: self.added, diagnostics };
        let body = filler.table(&template.body);
        self.added = filler.added;
        (diagnostics.errors() == before).then_some(body)
    }
}

fn wrong(diagnostics: &mut Diagnostics, diagnostic: Diagnostic) {
    diagnostics.add(Severity::Error, || diagnostic);
}

/// Parameters: `["root", "bridge=br0"]`.
fn params(node: &Node) -> Result<Vec<(String, Option<String>)>, Box<Diagnostic>> {
    let one = |element: &Node| {
        let Value::Text(text) = &element.value else { return None };
        let (name, default) = match text.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (text.as_str(), None),
        };
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (!name.is_empty() && name != "template" && name.chars().all(letter))
            .then(|| (name.to_owned(), default))
    };
    let mut params = Vec::new();
    for element in node.elements() {
        let hint = "params is a list of names, with their defaults: [\"root\", \"bridge=br0\"]";
        let param =
            one(element).ok_or_else(|| Box::new(element.place.finding("this is no parameter").hint(hint)))?;
        params.push(param);
    }
    Ok(params)
}

/// The value of each parameter of the template `called`, which `node` applies.
fn values(
    called: &str,
    params: &[(String, Option<String>)],
    arguments: &[&(Key, Node)],
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> =
        params.iter().filter_map(|(name, default)| Some((name.clone(), default.clone()?))).collect();
    for (key, argument) in arguments {
        if !params.iter().any(|(name, _)| *name == key.name) {
            let names: Vec<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
            let hint =
                format!("it has: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
            let message = format!("the template `{called}` has no parameter `{}`", key.name);
            wrong(diagnostics, key.place.finding(message).hint(hint));
        } else if let Some(value) = argument.scalar() {
            values.insert(key.name.clone(), value.to_owned());
        } else {
            wrong(diagnostics, argument.place.finding(format!("a parameter cannot be {}", argument.what())));
        }
    }
    for (name, _) in params.iter().filter(|(name, _)| !values.contains_key(name)) {
        if !arguments.iter().any(|(key, _)| key.name == *name) {
            let message = format!("the template `{called}` needs the parameter `{name}`");
            wrong(diagnostics, node.place.finding(message).hint(format!("add `{name}=\"…\"`")));
        }
    }
    values
}

/// Puts values in place of `%(param.…)`.
struct Filler<'a> {
    values: BTreeMap<String, String>,
    /// What was made so far, of [`MAX_ADDED`].
    added: usize,
    diagnostics: &'a mut Diagnostics,
}

impl Filler<'_> {
    fn table(&mut self, table: &Table) -> Table {
        let mut filled = Table::new();
        for (key, node) in table {
            if self.added > MAX_ADDED {
                break;
            }
            let name = self.text(&key.name, &key.place);
            filled.push((Key { name, place: key.place.clone() }, self.node(node)));
        }
        filled
    }

    fn node(&mut self, node: &Node) -> Node {
        let value = match &node.value {
            Value::Text(text) => Value::Text(self.text(text, &node.place)),
            Value::List(elements) => Value::List(elements.iter().map(|node| self.node(node)).collect()),
            Value::Table(table) => Value::Table(self.table(table)),
            other @ (Value::Bare(_) | Value::Odd(_)) => other.clone(),
        };
        Node { place: node.place.clone(), value }
    }

    /// `text` with values in place of its parameters. `%%` and `\%` begin none.
    fn text(&mut self, text: &str, place: &Place) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['%', '\\'])
            && filled.len() <= MAX_VALUE
        {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            let param = rest.strip_prefix("%(param.").and_then(|rest| rest.split_once(')'));
            if let Some((name, after)) = param {
                rest = after;
                match self.values.get(name) {
                    Some(value) => filled.push_str(value),
                    None => {
                        let message = format!("the template has no parameter `{}`", name.escape_debug());
                        wrong(self.diagnostics, place.finding(message));
                    }
                }
            } else {
                let escape = rest.starts_with("%%") || rest.starts_with("\\%");
                let (taken, after) = rest.split_at(if escape { 2 } else { 1 });
                filled.push_str(taken);
                rest = after;
            }
        }
        filled.push_str(rest);
        self.added += ENTRY + filled.len();
        filled
    }
}
