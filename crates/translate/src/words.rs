//! The words of a command line: as they come, or from a file, split as a POSIX shell does.
//!
//! Only splitting: what a shell would look up, run or chain is an error.

use std::ops::Range;

use parador_config::{Diagnostic, Diagnostics, Origin};

use crate::format::Input;
use crate::text::{Text, one};

/// Words that may stand before the program's name.
static BEFORE: &[&str] = &["sudo", "doas", "exec", "nohup"];
/// Most words of a command line.
const MAX_WORDS: usize = 65_536;

/// One word of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What the program gets.
    pub(crate) text: String,
    /// Where it starts.
    pub(crate) origin: Origin,
}

/// The words of `input` after the program's name, if that comes first: its last part starts with
/// one of `programs`. A file holds one command; `#` begins a comment, and a backslash at the end of
/// a line continues it.
pub(crate) fn arguments(input: Input<'_>, programs: &[&str]) -> Result<Vec<Word>, Diagnostics> {
    let mut words = match input {
        Input::Text { name, bytes } => split(name, bytes)?,
        Input::Arguments { first, words } => words
            .iter()
            .enumerate()
            .map(|(index, text)| Word { text: text.clone(), origin: Origin::Argument(first + index) })
            .collect(),
    };
    let before = words.iter().take_while(|word| BEFORE.contains(&word.text.as_str())).count();
    let program = words.get(before).map_or("", |word| word.text.rsplit('/').next().unwrap_or_default());
    let named = !program.starts_with('-') && programs.iter().any(|name| program.starts_with(name));
    words.drain(..if named { before + 1 } else { 0 });
    Ok(words)
}

/// Whether `name` is one of `names`, which have spaces between them. One text costs a process one pointer
/// (docs/decisions/0017).
pub(crate) fn is_among(names: &str, name: &str) -> bool {
    names.split(' ').any(|other| other == name)
}

/// The words of the one command in a file.
pub(crate) fn split(name: &str, bytes: &[u8]) -> Result<Vec<Word>, Diagnostics> {
    let text = Text::new(name, bytes)?;
    let mut splitter = Splitter { text: &text, at: 0 };
    let mut words: Vec<Word> = Vec::new();
    let mut ended = false;
    while let Some(gap) = splitter.gap() {
        ended |= gap.newline && !words.is_empty();
        let start = splitter.at;
        if ended {
            return Err(one(text
                .finding(&(start..start + 1), "a second command")
                .hint("a file holds one; a `\\` at the end of a line continues it on the next")));
        }
        if words.len() == MAX_WORDS {
            return Err(one(text.finding(&(start..start + 1), format!("more than {MAX_WORDS} words"))));
        }
        let word = splitter.word().map_err(one)?;
        words.push(Word { text: word, origin: text.origin(start) });
    }
    Ok(words)
}

/// What lies between two words.
#[derive(Debug)]
struct Gap {
    /// Whether it ends a line.
    newline: bool,
}

#[derive(Debug)]
struct Splitter<'a> {
    text: &'a Text,
    at: usize,
}

impl Splitter<'_> {
    fn rest(&self) -> &str {
        &self.text.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Skips a backslash with the end of its line.
    fn continuation(&mut self) -> bool {
        let end = ["\\\n", "\\\r\n"].into_iter().find(|end| self.rest().starts_with(end));
        self.at += end.map_or(0, str::len);
        end.is_some()
    }

    /// Goes to the next word; `None` at the end.
    fn gap(&mut self) -> Option<Gap> {
        let mut gap = Gap { newline: false };
        loop {
            if self.continuation() {
                continue;
            }
            match self.peek()? {
                '\n' => gap.newline = true,
                ' ' | '\t' | '\r' => {}
                '#' => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    continue;
                }
                _ => return Some(gap),
            }
            self.next();
        }
    }

    /// Takes the word that starts here.
    fn word(&mut self) -> Result<String, Diagnostic> {
        let mut word = String::new();
        if self.peek() == Some('~') {
            return Err(self.not_here(1, "`~` stands for a home folder", "write the path in full"));
        }
        loop {
            if self.continuation() {
                continue;
            }
            match self.peek() {
                None | Some(' ' | '\t' | '\r' | '\n') => return Ok(word),
                Some('\'') => self.single(&mut word)?,
                Some('"') => self.double(&mut word)?,
                Some('\\') => {
                    self.next();
                    word.push(self.next().ok_or_else(|| self.open(self.at - 1, "`\\` at the end"))?);
                }
                Some('$') => self.dollar(&mut word)?,
                Some('`') => return Err(self.command(1)),
                Some(c @ (';' | '&' | '|' | '<' | '>' | '(' | ')')) => {
                    let hint =
                        "a file holds one command and its words; quote it if the program should get it";
                    return Err(self.not_here(1, &format!("`{c}` is for a shell"), hint));
                }
                Some(c) => {
                    word.push(c);
                    self.next();
                }
            }
        }
    }

    fn single(&mut self, word: &mut String) -> Result<(), Diagnostic> {
        let start = self.at;
        self.next();
        let Some(len) = self.rest().find('\'') else { return Err(self.open(start, "`'` is not closed")) };
        word.push_str(&self.rest()[..len]);
        self.at += len + 1;
        Ok(())
    }

    fn double(&mut self, word: &mut String) -> Result<(), Diagnostic> {
        let start = self.at;
        self.next();
        loop {
            if self.continuation() {
                continue;
            }
            match self.peek() {
                None => return Err(self.open(start, "`\"` is not closed")),
                Some('"') => break,
                Some('$') => {
                    self.dollar(word)?;
                    continue;
                }
                Some('`') => return Err(self.command(1)),
                Some('\\') => {
                    self.next();
                    match self.peek() {
                        Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                        _ => {
                            word.push('\\');
                            continue;
                        }
                    }
                }
                Some(c) => word.push(c),
            }
            self.next();
        }
        self.next();
        Ok(())
    }

    /// A dollar sign stands for itself before a blank and the like.
    fn dollar(&mut self, word: &mut String) -> Result<(), Diagnostic> {
        let rest = &self.rest()[1..];
        let name = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').count();
        match rest.chars().next() {
            Some('(') => return Err(self.command(2)),
            Some('{') => {
                let len = rest.find('}').map_or(2, |end| end + 2);
                return Err(self.variable(len));
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => return Err(self.variable(2)),
            _ if name > 0 => return Err(self.variable(1 + name)),
            _ => word.push('$'),
        }
        self.next();
        Ok(())
    }

    fn variable(&self, len: usize) -> Diagnostic {
        let hint = "write what it stands for, or quote it with `'` if the program should get it";
        self.not_here(len, "a variable of a shell", hint)
    }

    fn command(&self, len: usize) -> Diagnostic {
        self.not_here(len, "a command within the command", "write what it would print")
    }

    fn not_here(&self, len: usize, what: &str, hint: &str) -> Diagnostic {
        let range: Range<usize> = self.at..self.at + len;
        self.text.finding(&range, format!("{what}, and nothing is looked up or run here")).hint(hint)
    }

    fn open(&self, start: usize, what: &str) -> Diagnostic {
        self.text.finding(&(start..start + 1), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split("f", text.as_bytes()).unwrap().into_iter().map(|word| word.text).collect()
    }

    fn wrong(text: &str) -> String {
        split("f", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn words_come_with_their_places() {
        let text =
            "#!/bin/sh\n# a machine\nbhyve -c 2 \\\n  -s 3,virtio-blk,'/vm/a b' \\\n\t\"é\" -H # end\n";
        let words = split("f", text.as_bytes()).unwrap();
        let places: Vec<String> = words.iter().map(|word| format!("{} {}", word.text, word.origin)).collect();
        let expected = [
            "bhyve f:3:1",
            "-c f:3:7",
            "2 f:3:10",
            "-s f:4:3",
            "3,virtio-blk,/vm/a b f:4:6",
            "é f:5:2",
            "-H f:5:6",
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn the_programs_name_goes() {
        let line = |text: &str| -> Vec<String> {
            let words = arguments(Input::Text { name: "f", bytes: text.as_bytes() }, &["qemu-system-"]);
            words.unwrap().into_iter().map(|word| word.text).collect()
        };
        assert_eq!(line("sudo /usr/bin/qemu-system-x86_64 -m 4G"), ["-m", "4G"]);
        assert_eq!(line("-m 4G"), ["-m", "4G"]);
        let words = ["qemu-system-x86_64".to_owned(), "-m".to_owned()];
        let words = arguments(Input::Arguments { first: 7, words: &words }, &["qemu-system-"]).unwrap();
        assert_eq!(words, [Word { text: "-m".to_owned(), origin: Origin::Argument(8) }]);
    }

    #[test]
    fn quotes_are_those_of_a_shell() {
        assert_eq!(
            texts(r#"a''b "c\"\\\x" d\ e '\' '' $ "5$""#),
            ["ab", r#"c"\\x"#, "d e", "\\", "", "$", "5$"]
        );
        assert_eq!(texts("a\\\r\nb \"c\\\nd\" e#f\r\n"), ["ab", "cd", "e#f"]);
        assert_eq!(texts(r#"{"a":1} *.img [x]"#), ["{a:1}", "*.img", "[x]"]);
        assert!(texts(" \n# nothing\n").is_empty());
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused_with_its_place() {
        assert_eq!(
            wrong("vm -m \"${MEMORY}M\"\n"),
            "error: a variable of a shell, and nothing is looked up or run here\n  --> f:1:8\n   \
             | vm -m \"${MEMORY}M\"\n   |        ^^^^^^^^^\n\
             hint: write what it stands for, or quote it with `'` if the program should get it\n"
        );
        for text in ["a $b", "a $1", "a $@", "a $(b)", "a `b`", "\"`b`\"", "\"$(b)\""] {
            assert!(wrong(text).contains("nothing is looked up or run here"), "{text}");
        }
        for text in ["a; b", "a & b", "a | b", "a > b", "(a)", "~/a"] {
            assert!(wrong(text).contains("nothing is looked up or run here"), "{text}");
        }
        assert!(wrong("a\nb").contains("a second command\n  --> f:2:1"));
        assert!(wrong("a 'b").contains("`'` is not closed\n  --> f:1:3"));
        assert!(wrong("a \"b").contains("`\"` is not closed\n  --> f:1:3"));
        assert!(wrong("a \\").contains("`\\` at the end\n  --> f:1:3"));
    }

    #[test]
    fn a_megabyte_is_split_or_refused() {
        assert_eq!(texts(&"x".repeat(1 << 20)).len(), 1);
        assert!(wrong(&"x ".repeat(1 << 19)).contains("more than 65536 words"));
        assert!(wrong(&"'".repeat((1 << 20) + 1)).len() < 400);
    }

    proptest::proptest! {
        /// Where both take a line, they take it the same way.
        #[test]
        fn words_are_those_of_another_splitter(line in "[a-c \\t\\\\'\"#=,]{0,40}") {
            let ours = split("f", line.as_bytes()).ok();
            let ours = ours.map(|words| words.into_iter().map(|word| word.text).collect());
            proptest::prop_assert_eq!(ours, shlex::split(&line));
        }

        #[test]
        fn a_quoted_word_comes_back(words in proptest::collection::vec("(?s)[^\\x00]{0,20}", 1..5)) {
            let line = shlex::try_join(words.iter().map(String::as_str)).unwrap();
            proptest::prop_assert_eq!(texts(&line), words.clone());
            let ours = crate::format::Output::Arguments(words.clone()).to_string();
            proptest::prop_assert_eq!(texts(&ours), words);
        }

        #[test]
        fn any_text_is_split_or_refused(text in "(?s).{0,200}") {
            let _ = split("f", text.as_bytes());
        }
    }
}
