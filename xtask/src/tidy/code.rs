//! Rust source without its words: what is left when comments and literals are blanked out.

/// `source` with the insides of comments, strings and characters replaced by spaces. Lines stay
/// where they are. Good enough to find names and keywords; it is not a compiler.
pub(super) fn code_of(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut last = ' ';
    while let Some(c) = rest.chars().next() {
        let blank = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if !is_word(last)
            && (rest.starts_with("r\"") || rest.starts_with("r#") || rest.starts_with("br"))
        {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let length = if blank == 0 { c.len_utf8() } else { blank };
        let (taken, after) = rest.split_at(length);
        if blank == 0 {
            out.push_str(taken);
            last = c;
        } else {
            out.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            last = ' ';
        }
        rest = after;
    }
    out
}

/// The part of `code` (see [`code_of`]) before its module of unit tests, which style puts last.
pub(super) fn without_tests(code: &str) -> &str {
    code.find("\n#[cfg(test)]\nmod ").map_or(code, |end| &code[..=end])
}

/// Whether `code` has `word` with no letter, digit or underscore on either side.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_word)
            && !code[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string at the start of `text`; 0 if there is none (`r#type` is a name).
fn raw_string(text: &str) -> usize {
    let prefix = text.find('r').map_or(0, |at| at + 1);
    let hashes = text[prefix..].bytes().take_while(|byte| *byte == b'#').count();
    let open = prefix + hashes;
    if !text[open..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open + 1..].find(&close).map_or(text.len(), |at| open + 1 + at + close.len())
}

/// The length of the character literal at the start of `text`; 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            text[from..].find('\'').map_or(0, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let source = "let a = \"unsafe \\\" x\"; // unsafe\nlet b = '\"'; /* a /* b */ c\n */ d::<'a>(r#\"un\"safe\"#);\n";
        let code = code_of(source);
        assert!(!code.contains("safe"));
        assert!(code.contains("let b ="));
        assert!(code.contains("d::<'a>("));
        assert_eq!(code.lines().count(), source.lines().count());
        assert_eq!(code_of("for r in '\\u{41}'..b'\\'' {}").matches('{').count(), 1);
        assert_eq!(code_of("r#type + br\"x\""), "r#type +      ");
    }

    #[test]
    fn a_word_is_whole() {
        assert!(has_word("a unsafe{", "unsafe"));
        assert!(!has_word("not_unsafe unsafer", "unsafe"));
    }

    #[test]
    fn unit_tests_are_the_last_module() {
        assert_eq!(without_tests("fn a() {}\n\n#[cfg(test)]\nmod tests {}\n"), "fn a() {}\n\n");
        assert_eq!(without_tests("fn a() {}\n"), "fn a() {}\n");
    }
}
