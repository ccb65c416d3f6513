//! Elements as text: on lines of their own, or all on one.

use super::xml::Element;

/// A document, indented as libvirt does it.
pub(super) fn document(root: &Element) -> String {
    let mut out = String::new();
    element(&mut out, root, Some(0));
    out
}

/// An element on one line. Text between children moves before them.
pub(super) fn fragment(root: &Element) -> String {
    let mut out = String::new();
    element(&mut out, root, None);
    out
}

/// An attribute as it stands in a tag.
pub(super) fn attribute(name: &str, value: &str) -> String {
    let mut out = format!("{name}='");
    escape(&mut out, value, true);
    out.push('\'');
    out
}

fn element(out: &mut String, element: &Element, depth: Option<usize>) {
    let indent = |out: &mut String| out.extend(std::iter::repeat_n("  ", depth.unwrap_or(0)));
    indent(out);
    out.push('<');
    out.push_str(&element.name);
    for each in &element.attributes {
        out.push(' ');
        out.push_str(&attribute(&each.name, &each.value));
    }
    let text = if element.children.is_empty() { element.text.as_str() } else { element.text.trim() };
    if element.children.is_empty() && text.is_empty() {
        out.push_str("/>");
    } else {
        out.push('>');
        escape(out, text, depth.is_none());
        if !element.children.is_empty() {
            if depth.is_some() {
                out.push('\n');
            }
            for child in &element.children {
                self::element(out, child, depth.map(|depth| depth + 1));
            }
            indent(out);
        }
        out.push_str("</");
        out.push_str(&element.name);
        out.push('>');
    }
    if depth.is_some() {
        out.push('\n');
    }
}

fn escape(out: &mut String, text: &str, on_one_line: bool) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' if on_one_line => out.push_str("&apos;"),
            '\n' if on_one_line => out.push_str("&#10;"),
            '\t' if on_one_line => out.push_str("&#9;"),
            // A reader makes a line feed of it.
            '\r' => out.push_str("&#13;"),
            _ => out.push(c),
        }
    }
}
