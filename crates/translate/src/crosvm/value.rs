//! The values of crosvm's options: `a,ro,id="x,y",list=[1,2]`.

use parador_config::Diagnostic;

use crate::parts::{Part, Value, is_list};
use crate::words::Word;

/// The parts of `value`; the first one is `first` if it has no name.
pub(super) fn parts(first: &str, value: &Word) -> Result<Vec<Part>, Diagnostic> {
    let mut parts = Vec::new();
    let mut rest = value.text.as_str();
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let quoted = rest.starts_with(['"', '\'']);
        let (name, text);
        if rest[end..].starts_with('=') && !quoted {
            name = rest[..end].replace('_', "-");
            (text, rest) = one(&rest[end + 1..])?;
        } else if parts.is_empty() && !first.is_empty() {
            name = first.to_owned();
            (text, rest) = one(rest)?;
        } else {
            name = rest[..end].replace('_', "-");
            text = "true".to_owned();
            rest = rest[end..].strip_prefix(',').unwrap_or_default();
        }
        parts.push(Part { name, value: Value::Text(text), origin: value.origin.clone() });
    }
    Ok(parts)
}

/// The value that `text` starts with, and what follows its comma.
fn one(text: &str) -> Result<(String, &str), Diagnostic> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let mut depth = 0_usize;
        let ends = |c: char| {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        };
        let end = text.find(ends).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), text[end..].strip_prefix(',').unwrap_or_default()));
    };
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, c)) = letters.next() {
        match c {
            '\\' => value.extend(letters.next().map(|(_, c)| c)),
            c if c == quote => {
                let rest = &text[at + 1..];
                return match rest.strip_prefix(',') {
                    Some(rest) => Ok((value, rest)),
                    None if rest.is_empty() => Ok((value, rest)),
                    None => Err(Diagnostic::new(format!("a `,` is missing after `{quote}` in `{text}`"))),
                };
            }
            c => value.push(c),
        }
    }
    Err(Diagnostic::new(format!("`{quote}` is not closed in `{text}`")))
}

/// `value`, in quotes if it needs them; a list has none.
pub(super) fn quoted(value: &str) -> String {
    if is_list(value) || !(value.is_empty() || value.contains([',', '[', ']', '"', '\'', '=', '\\', ' '])) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use parador_config::Origin;

    use super::*;

    fn read(first: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let word = Word { text: text.to_owned(), origin: Origin::Argument(1) };
        let parts = parts(first, &word).map_err(|wrong| wrong.message().to_owned())?;
        Ok(parts.into_iter().map(|part| (part.name, part.value.shown())).collect())
    }

    fn pairs(parts: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        Ok(parts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_first_part_may_leave_its_name_out_and_a_bare_one_is_true() {
        assert_eq!(
            read("path", "/a b,ro,block_size=512"),
            pairs(&[("path", "/a b"), ("ro", "true"), ("block-size", "512")])
        );
        assert_eq!(read("path", "\"a,b=c\",ro=false"), pairs(&[("path", "a,b=c"), ("ro", "false")]));
        assert_eq!(
            read("num-cores", "4,clusters=[[0,1],[2]],x"),
            pairs(&[("num-cores", "4"), ("clusters", "[[0,1],[2]]"), ("x", "true")])
        );
        assert_eq!(read("", "tap-name=t,vhost-net"), pairs(&[("tap-name", "t"), ("vhost-net", "true")]));
        assert_eq!(read("path", r#"id="a\"b\\c""#), pairs(&[("id", r#"a"b\c"#)]));
        for value in ["[a[b]", "[[1]", "[1][2]", "[]]", "[1,2]", "[[1],[2]]"] {
            assert_eq!(
                read("", &format!("id={},ro", quoted(value))),
                pairs(&[("id", value), ("ro", "true")])
            );
        }
        assert!(read("path", "\"a").is_err_and(|wrong| wrong.contains("is not closed")));
        assert!(read("path", "\"a\"b").is_err_and(|wrong| wrong.contains("is missing")));
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_value_comes_back(value in "[^\\x00]{1,20}") {
            let read = read("", &format!("id={},ro", quoted(&value)));
            proptest::prop_assert_eq!(read, pairs(&[("id", &value), ("ro", "true")]));
        }

        #[test]
        fn any_value_is_read_or_refused(value in "(?s).{0,40}") {
            let _ = read("path", &value);
        }
    }
}
