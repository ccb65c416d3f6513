//! What no key can say, as `engine.libvirt.arg.<n>`: an element or an attribute, after the path of
//! the element it is in.
//!
//! ```text
//! <seclabel type='none'/>                  in <domain>
//! devices <sound model='ich9'/>            in <devices>
//! os/type machine='pc'                     an attribute of <type>
//! domain type='bhyve'                      an attribute of <domain>
//! ```
//!
//! Only what has one place comes back to it. The rest of a disk is not kept: there are many disks.

use std::collections::BTreeMap;

use parador_config::Origin;

use super::print;
use super::xml::{self, Element};
use crate::format::Loss;
use crate::text::Text;

/// The path of the outermost element.
const ROOT: &str = "domain";
/// Longest that is kept, in bytes: with its path it has to fit into the value of a key.
const MAX_LENGTH: usize = 60 * 1024;
/// Most that is kept of a document, and put back into one.
pub(super) const MAX_COUNT: usize = 4096;
/// Longest that a message repeats, in characters.
const MAX_SHOWN: usize = 80;

/// Namespaces that libvirt itself declares for elements in `<domain>`.
pub(super) static NAMESPACES: &[(&str, &str)] = &[
    ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0"),
    ("bhyve", "http://libvirt.org/schemas/domain/bhyve/1.0"),
];

/// What nobody took.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// What can come back, and where it was.
    pub(super) kept: Vec<(String, Origin)>,
    /// What cannot.
    pub(super) losses: Vec<Loss>,
}

impl Rest {
    /// What nobody took of the document `root`.
    pub(super) fn of(root: &Element, text: &Text) -> Self {
        let mut rest = Self::default();
        rest.walk(root, text, &Way { path: String::new(), open: Vec::new(), one: true });
        rest
    }

    /// Walks through `element`, which was taken.
    fn walk(&mut self, element: &Element, text: &Text, way: &Way<'_>) {
        let origin = || text.origin(element.place.start);
        for attribute in element.attributes.iter().filter(|a| a.is_left() && a.declares().is_none()) {
            let written = print::attribute(&attribute.name, &attribute.value);
            if way.one && !attribute.name.contains(':') && self.has_room(&written) {
                let path = if way.path.is_empty() { ROOT } else { &way.path };
                self.kept.push((format!("{path} {written}"), origin()));
            } else {
                self.lose(&format!("<{} {written}>", element.name), "there is no key for it", origin());
            }
        }
        if element.has_text_left() {
            let written = print::fragment(&Element::new(&element.name).saying(element.text.trim()));
            self.lose(&written, "there is no key for this text", origin());
        }
        let mut open = way.open.clone();
        open.push(element);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for child in &element.children {
            *counts.entry(&child.name).or_default() += 1;
        }
        for child in &element.children {
            if child.is_left() {
                self.leave(child, text, &open, way);
                continue;
            }
            let one = way.one && way.path != "devices" && counts.get(child.name.as_str()) == Some(&1);
            let path =
                if way.path.is_empty() { child.name.clone() } else { format!("{}/{}", way.path, child.name) };
            self.walk(child, text, &Way { path, open: open.clone(), one });
        }
    }

    /// Keeps `element`, or loses it.
    fn leave(&mut self, element: &Element, text: &Text, open: &[&Element], way: &Way<'_>) {
        let origin = text.origin(element.place.start);
        let written = print::fragment(&with_namespaces(element, open));
        let why = if !way.one {
            "there is no key for it"
        } else if !self.has_room(&written) {
            "there is too much that would have to be kept"
        } else if is_mixed(element) {
            "text between elements cannot be kept"
        } else {
            let space = if way.path.is_empty() { "" } else { " " };
            self.kept.push((format!("{}{space}{written}", way.path), origin));
            return;
        };
        self.lose(&written, why, origin);
    }

    fn has_room(&self, written: &str) -> bool {
        written.len() < MAX_LENGTH && self.kept.len() < MAX_COUNT
    }

    fn lose(&mut self, what: &str, why: &str, origin: Origin) {
        self.losses.push(Loss { what: shown(what), why: why.to_owned(), origin: Some(origin) });
    }
}

/// The way to an element.
struct Way<'a> {
    /// Names below `<domain>`.
    path: String,
    /// The elements around it.
    open: Vec<&'a Element>,
    /// Whether each of them is the only one of its name in the one around it.
    one: bool,
}

/// `text`, not too long for a message.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn is_mixed(element: &Element) -> bool {
    (!element.children.is_empty() && !element.text.trim().is_empty()) || element.children.iter().any(is_mixed)
}

/// `element` with the declarations of the prefixes that it uses and the elements around it declare.
fn with_namespaces(element: &Element, open: &[&Element]) -> Element {
    let mut whole = element.clone();
    for (declaration, value) in declarations(open) {
        let prefix = declaration.strip_prefix("xmlns:").unwrap_or_default();
        if uses(element, prefix) && !NAMESPACES.contains(&(prefix, value)) {
            whole.set(declaration, value);
        }
    }
    whole
}

/// The namespaces that `open` declare, the innermost of a name first.
fn declarations<'a>(open: &[&'a Element]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let attributes: Vec<_> = open.iter().rev().flat_map(|element| &element.attributes).collect();
    attributes
        .into_iter()
        .filter(|a| a.name.starts_with("xmlns:"))
        .map(|a| (a.name.as_str(), a.value.as_str()))
}

fn uses(element: &Element, prefix: &str) -> bool {
    let own = |name: &str| name.split_once(':').is_some_and(|(found, _)| found == prefix);
    own(&element.name)
        || element.attributes.iter().any(|a| own(&a.name))
        || element.children.iter().any(|child| uses(child, prefix))
}

/// Puts `kept` back into the document `root`, or says why that cannot be.
pub(super) fn put_back(root: &mut Element, kept: &str) -> Result<(), String> {
    let at = kept.find(['<', ' ']).ok_or("it is neither an element nor an attribute")?;
    let (path, written) = kept.split_at(at);
    let written = written.trim_start();
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ROOT)).collect();
    if let Some(part) = parts.iter().find(|part| !xml::is_name(part)) {
        return Err(format!("`{}` is no name of an element", shown(part)));
    }
    let is_element = written.starts_with('<');
    let text = if is_element { written.to_owned() } else { format!("<x {written}/>") };
    let text = Text::new("", text.as_bytes()).map_err(|_| "it is no text")?;
    let read = xml::parse(&text).map_err(|_| "it is not well-formed XML")?;
    let parent = parts.iter().fold(&mut *root, |element, part| element.child_mut(part));
    if is_element {
        if parts.is_empty() && parent.child(&read.name).is_some() {
            return Err(format!("there is a `<{}>` from other keys", read.name));
        }
        parent.children.push(read);
        return Ok(());
    }
    for attribute in read.attributes {
        if !parent.set(&attribute.name, attribute.value) {
            return Err(format!("`{}` is set by other keys", attribute.name));
        }
    }
    Ok(())
}

/// Declares on `root` the prefixes of libvirt's own namespaces that are used in it.
pub(super) fn declare(root: &mut Element) {
    for (prefix, space) in NAMESPACES {
        if root.children.iter().any(|child| uses(child, prefix)) {
            root.set(&format!("xmlns:{prefix}"), *space);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kept: &[&str]) -> Result<String, String> {
        let mut root = Element::new("domain").and(Element::new("name").saying("web")).with("type", "kvm");
        kept.iter().try_for_each(|kept| put_back(&mut root, kept))?;
        Ok(print::fragment(&root))
    }

    #[test]
    fn what_was_kept_goes_back_to_its_place() {
        let kept = [
            "devices <sound/>",
            "devices <sound/>",
            "os/type machine='pc'",
            "domain id='1'",
            "<pm a='&lt;'/>",
        ];
        let put = put(&kept).unwrap();
        let devices = "<devices><sound/><sound/></devices><os><type machine='pc'/></os>";
        assert_eq!(
            put,
            format!("<domain type='kvm' id='1'><name>web</name>{devices}<pm a='&lt;'/></domain>")
        );
    }

    #[test]
    fn what_cannot_go_back_says_why() {
        for (kept, why) in [
            ("", "neither an element nor an attribute"),
            ("devices", "neither an element nor an attribute"),
            ("<a", "not well-formed"),
            ("devices <a></b>", "not well-formed"),
            ("dev'ices <a/>", "no name of an element"),
            ("<name>other</name>", "there is a `<name>` from other keys"),
            ("domain type='xen'", "`type` is set by other keys"),
            ("os a='1'/><b c='2'", "not well-formed"),
        ] {
            let found = put(&[kept]).unwrap_err();
            assert!(found.contains(why), "{kept}: {found}");
        }
    }
}
