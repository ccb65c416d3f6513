//! XML, as much of it as a description of a machine needs: elements, attributes and text. There are
//! no document types, so there is nothing that could grow or be fetched.

use std::cell::Cell;
use std::error::Error;
use std::ops::Range;

use parador_config::{Diagnostic, Diagnostics};
use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::text::{Text, one};

/// Longest document, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// How deep elements may nest.
const MAX_DEPTH: usize = 64;
/// How many elements a document may have.
const MAX_ELEMENTS: usize = 65_536;
/// How many attributes an element may have: comparing them with each other takes time.
const MAX_ATTRIBUTES: usize = 64;

/// An element. What a reader takes of it is marked, so that the rest can be told.
#[derive(Debug, Clone, Default)]
pub(super) struct Element {
    /// As it was written, with its prefix.
    pub(super) name: String,
    pub(super) attributes: Vec<Attribute>,
    pub(super) children: Vec<Element>,
    /// All text that is directly in it.
    pub(super) text: String,
    /// The bytes of its start tag.
    pub(super) place: Range<usize>,
    taken: Cell<bool>,
    text_taken: Cell<bool>,
}

/// An attribute of an element.
#[derive(Debug, Clone, Default)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) value: String,
    taken: Cell<bool>,
}

impl Attribute {
    /// Whether nobody took it.
    pub(super) fn is_left(&self) -> bool {
        !self.taken.get()
    }

    /// The prefix it declares, if it declares one.
    pub(super) fn declares(&self) -> Option<&str> {
        if self.name == "xmlns" { Some("") } else { self.name.strip_prefix("xmlns:") }
    }
}

impl Element {
    /// An element without content.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Adds a child.
    pub(super) fn and(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    /// Adds text.
    pub(super) fn saying(mut self, text: impl AsRef<str>) -> Self {
        self.text.push_str(text.as_ref());
        self
    }

    /// Sets an attribute, unless it has it already; returns whether it had not.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) -> bool {
        let new = self.attr(name).is_none();
        if new {
            let attribute = Attribute { name: name.to_owned(), value: value.into(), ..Attribute::default() };
            self.attributes.push(attribute);
        }
        new
    }

    /// The first child called `name`, made if there is none.
    pub(super) fn child_mut(&mut self, name: &str) -> &mut Element {
        let index = self.children.iter().position(|child| child.name == name).unwrap_or_else(|| {
            self.children.push(Element::new(name));
            self.children.len() - 1
        });
        &mut self.children[index]
    }

    /// The value of an attribute, left where it is.
    pub(super) fn attr(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|found| found.value.as_str())
    }

    /// The value of an attribute, taken.
    pub(super) fn take(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|attribute| attribute.name == name)?;
        found.taken.set(true);
        Some(&found.value)
    }

    /// Takes an attribute if it has the value `value`, which says nothing new.
    pub(super) fn take_if(&self, name: &str, value: &str) -> bool {
        self.attr(name) == Some(value) && self.take(name).is_some()
    }

    /// The first child called `name`, left where it is.
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child called `name`, taken; what is in it is not.
    pub(super) fn enter(&self, name: &str) -> Option<&Element> {
        let child = self.child(name)?;
        child.taken.set(true);
        Some(child)
    }

    /// All children called `name`, left where they are.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Takes the element itself, and not what is in it.
    pub(super) fn taken(&self) -> &Self {
        self.taken.set(true);
        self
    }

    /// Takes the element with everything in it.
    pub(super) fn take_all(&self) {
        self.taken.set(true);
        self.text_taken.set(true);
        self.attributes.iter().for_each(|attribute| attribute.taken.set(true));
        self.children.iter().for_each(Element::take_all);
    }

    /// Its text as one line, left where it is: as it is written, but without the blanks around it if
    /// it spans lines. `None` if it is more than one line, or has none.
    pub(super) fn line(&self) -> Option<&str> {
        let text = if self.text.contains('\n') { self.text.trim() } else { &self.text };
        (!text.is_empty() && !text.contains(['\n', '\r'])).then_some(text)
    }

    /// Its text as one line, taken.
    pub(super) fn take_line(&self) -> Option<&str> {
        let text = self.line()?;
        self.text_taken.set(true);
        Some(text)
    }

    /// Whether nobody took it.
    pub(super) fn is_left(&self) -> bool {
        !self.taken.get()
    }

    /// Whether it has text that nobody took.
    pub(super) fn has_text_left(&self) -> bool {
        !self.text_taken.get() && !self.text.trim().is_empty()
    }
}

/// The one element that `text` is.
pub(super) fn parse(text: &Text) -> Result<Element, Diagnostics> {
    Parser { text, reader: Reader::from_str(&text.text), open: Vec::new(), elements: 0 }.run()
}

struct Parser<'t> {
    text: &'t Text,
    reader: Reader<&'t [u8]>,
    /// The elements that have begun and not ended; the outermost has no name.
    open: Vec<Element>,
    elements: usize,
}

impl Parser<'_> {
    fn run(mut self) -> Result<Element, Diagnostics> {
        self.check_text()?;
        self.open.push(Element::default());
        loop {
            let start = self.position();
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(e) => {
                    let at = usize::try_from(self.reader.error_position()).unwrap_or(usize::MAX);
                    return Err(
                        self.wrong(&(at..at + 1), "this is not well-formed XML", |it| it.cause(inner(&e)))
                    );
                }
            };
            let place = start..self.position();
            match event {
                Event::Start(tag) => {
                    let element = self.element(&tag, &place)?;
                    self.open.push(element);
                }
                Event::Empty(tag) => {
                    let element = self.element(&tag, &place)?;
                    self.close(element);
                }
                Event::End(_) => {
                    if let Some(element) = self.open.pop() {
                        self.close(element);
                    }
                }
                Event::Text(text) => self.add(&text.xml10_content(), &place)?,
                Event::CData(text) => self.add(&text.xml10_content(), &place)?,
                Event::GeneralRef(name) => {
                    let text = self.reference(&name, &place)?;
                    self.add(text.encode_utf8(&mut [0; 4]), &place)?;
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(decl) => {
                    if let Some(Ok(encoding)) = decl.encoding()
                        && !encoding.eq_ignore_ascii_case("utf-8")
                    {
                        let message = format!("the document says that it is in {encoding}");
                        return Err(self.wrong(&place, message, |it| it.hint("convert it to UTF-8")));
                    }
                }
                Event::DocType(_) => {
                    return Err(self.wrong(
                        &place,
                        "a document type in the description of a machine",
                        |it| it.hint("take it out: nothing that it defines is read"),
                    ));
                }
                Event::Eof => return self.end(),
            }
        }
    }

    /// What could be wrong with the text as a whole.
    fn check_text(&self) -> Result<(), Diagnostics> {
        let text = &self.text.text;
        if text.len() > MAX_BYTES {
            let message = format!("a document of {} bytes; the longest may have {MAX_BYTES}", text.len());
            return Err(self.wrong(&(0..1), message, |it| it));
        }
        match text.char_indices().find(|(_, c)| !is_character(*c)) {
            Some((at, c)) => {
                let message = format!("the character U+{:04X} cannot be in XML", u32::from(c));
                Err(self.wrong(&(at..at + 1), message, |it| it))
            }
            None => Ok(()),
        }
    }

    /// Everything has been read: the one element.
    fn end(mut self) -> Result<Element, Diagnostics> {
        if self.open.len() > 1 {
            let element = &self.open[self.open.len() - 1];
            let message = format!("`<{}>` has no end", element.name);
            return Err(self.wrong(&element.place, message, |it| it.hint("is the document all there?")));
        }
        let mut roots = std::mem::take(&mut self.open[0].children);
        match roots.len() {
            0 => Err(self.wrong(&(0..0), "there is no XML here", |it| it)),
            1 => Ok(roots.remove(0)),
            _ => Err(self.wrong(&roots[1].place, "a second element after the end of the document", |it| {
                it.hint("one file describes one machine")
            })),
        }
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX)
    }

    fn element(&mut self, tag: &BytesStart<'_>, place: &Range<usize>) -> Result<Element, Diagnostics> {
        self.elements += 1;
        if self.open.len() > MAX_DEPTH || self.elements > MAX_ELEMENTS {
            let message = if self.open.len() > MAX_DEPTH {
                format!("elements nest more than {MAX_DEPTH} deep")
            } else {
                format!("more than {MAX_ELEMENTS} elements")
            };
            return Err(self.wrong(place, message, |it| it));
        }
        let name = tag.name().as_ref().to_owned();
        let mut element = Element { name, place: place.clone(), ..Element::default() };
        self.check_name(&element.name, place)?;
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|e| {
                self.wrong(place, "an attribute is not well-formed", |it| it.cause(inner(&e)))
            })?;
            if element.attributes.len() == MAX_ATTRIBUTES {
                let message = format!("more than {MAX_ATTRIBUTES} attributes");
                return Err(self.wrong(place, message, |it| it));
            }
            let name = attribute.key.as_ref().to_owned();
            self.check_name(&name, place)?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|e| {
                self.wrong(place, format!("the value of `{name}` cannot be read"), |it| it.cause(&e))
            })?;
            if !value.chars().all(is_character) {
                let message = format!("the value of `{name}` has a character that cannot be in XML");
                return Err(self.wrong(place, message, |it| it));
            }
            element.attributes.push(Attribute { name, value: value.into_owned(), ..Attribute::default() });
        }
        Ok(element)
    }

    /// Names are written again, so they have to be names.
    fn check_name(&self, name: &str, place: &Range<usize>) -> Result<(), Diagnostics> {
        if is_name(name) {
            return Ok(());
        }
        let shown: String = name.chars().take(40).collect();
        Err(self.wrong(place, format!("`{shown}` is no name of an element or an attribute"), |it| it))
    }

    fn close(&mut self, element: Element) {
        if let Some(parent) = self.open.last_mut() {
            parent.children.push(element);
        }
    }

    fn add(&mut self, text: &str, place: &Range<usize>) -> Result<(), Diagnostics> {
        if self.open.len() == 1 && !text.trim().is_empty() {
            return Err(self.wrong(place, "text outside of the document's element", |it| {
                it.hint("is this an XML file?")
            }));
        }
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
        Ok(())
    }

    /// The character that a reference stands for.
    fn reference(&self, name: &BytesRef<'_>, place: &Range<usize>) -> Result<char, Diagnostics> {
        let named = match &**name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => name.resolve_char_ref().ok().flatten().filter(|c| is_character(*c)),
        };
        named.ok_or_else(|| {
            self.wrong(place, "a reference to nothing", |it| {
                it.hint("there are &amp; &lt; &gt; &quot; &apos; and numbers of characters such as &#65;")
            })
        })
    }

    fn wrong(
        &self,
        place: &Range<usize>,
        message: impl Into<String>,
        more: impl FnOnce(Diagnostic) -> Diagnostic,
    ) -> Diagnostics {
        one(more(self.text.finding(place, message)))
    }
}

/// What an error says last, where each one repeats the next.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    error.source().map_or(error, inner)
}

/// Whether `c` may be in a document (XML 1.0, 2.2).
pub(super) fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r')
        || (c >= ' ' && !matches!(c, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}'))
}

/// Whether `name` is a name, with at most one prefix.
pub(super) fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut parts = name.split(':');
    let part =
        |part: &str| part.starts_with(|c: char| c.is_alphabetic() || c == '_') && part.chars().all(good);
    parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Element, String> {
        parse(&Text::new("f", text.as_bytes()).unwrap()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn text_comes_from_characters_references_and_cdata() {
        let root = read(
            "<?xml version='1.0' encoding='UTF-8'?>\n<!-- a -->\n<a b='&lt;&#65;&quot;'>x &amp; <![CDATA[<y>]]>&#x42;<c/></a>\n",
        );
        let root = root.unwrap();
        assert_eq!((root.attr("b"), root.text.as_str()), (Some("<A\""), "x & <y>B"));
        assert_eq!(root.children[0].name, "c");
    }

    #[test]
    fn what_is_not_one_document_is_refused_with_its_place() {
        for (text, message) in [
            ("", "there is no XML here"),
            ("name=web", "text outside"),
            ("<a>\n  <b>\n</a>", "not well-formed"),
            ("<a>\n  <b>", "`<b>` has no end\n  --> f:2:3"),
            ("<a/>\n<b/>", "a second element after the end of the document\n  --> f:2:1"),
            ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "a document type"),
            ("<a>\n &x;</a>", "a reference to nothing\n  --> f:2:2"),
            ("<a b='1' b='2'/>", "an attribute is not well-formed"),
            ("<a b=1/>", "an attribute is not well-formed"),
            ("<a b='&x;'/>", "the value of `b` cannot be read"),
            ("<a>\u{1}</a>", "the character U+0001"),
            ("<a>&#1;</a>", "a reference to nothing"),
            ("<a b='&#1;'/>", "a character that cannot be in XML"),
            ("<1a/>", "`1a` is no name"),
            ("<?xml version='1.0' encoding='latin1'?><a/>", "says that it is in latin1"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(message), "{text}: {wrong}");
        }
    }

    #[test]
    fn nothing_nests_or_grows_without_a_bound() {
        let deep = "<a>".repeat(1 << 18);
        assert!(read(&deep).unwrap_err().contains("nest more than 64 deep"));
        let wide = format!("<a>{}</a>", "<b/>".repeat(1 << 18));
        assert!(read(&wide).unwrap_err().contains("more than 65536 elements"));
        let attributes: String = (0..100_000).map(|n| format!(" a{n}=''")).collect();
        assert!(read(&format!("<a{attributes}/>")).unwrap_err().contains("more than 64 attributes"));
        assert!(read(&"x".repeat(MAX_BYTES + 1)).unwrap_err().contains("the longest may have"));
    }
}
