//! A reader of the JSON that wal2json writes: it walks over one object and never builds a tree.
//!
//! Values stay places in the frame. What is inside a string is unescaped only where it has to be.

use std::borrow::Cow;

use crate::decode::cursor::Problem;
use crate::model::Lsn;

/// A string's place in the frame, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) start: usize,
    pub(super) end: usize,
    /// A backslash is in it.
    pub(super) escaped: bool,
}

/// A value that is neither an object nor an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Null,
    /// `true` or `false`: its first letter is what PostgreSQL prints.
    Bool {
        start: usize,
    },
    Number {
        start: usize,
        end: usize,
    },
    Text(Text),
}

/// Walks over a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

const SYNTAX: Problem = Problem::Truncated("a JSON value");

impl<'a> Json<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Json { bytes, at: 0 }
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not blank.
    pub(super) fn peek(&mut self) -> Result<u8, Problem> {
        self.blank();
        self.bytes.get(self.at).copied().ok_or(SYNTAX)
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        match self.peek()? {
            found if found == byte => {
                self.at += 1;
                Ok(())
            }
            found => Err(Problem::Unknown { what: "byte in JSON", value: found }),
        }
    }

    /// After an element: true when another one follows, false when `close` ended the list.
    pub(super) fn more(&mut self, close: u8) -> Result<bool, Problem> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            found if found == close => {
                self.at += 1;
                Ok(false)
            }
            found => Err(Problem::Unknown { what: "byte in JSON", value: found }),
        }
    }

    /// After `open`: true when the list has an element.
    pub(super) fn any(&mut self, close: u8) -> Result<bool, Problem> {
        if self.peek()? == close {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// `"name":`.
    pub(super) fn key(&mut self) -> Result<&'a [u8], Problem> {
        let text = self.string()?;
        self.expect(b':')?;
        Ok(self.raw(text))
    }

    pub(super) fn raw(&self, text: Text) -> &'a [u8] {
        self.bytes.get(text.start..text.end).unwrap_or_default()
    }

    pub(super) fn string(&mut self) -> Result<Text, Problem> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).ok_or(SYNTAX)?;
            let found = memchr::memchr2(b'"', b'\\', rest).ok_or(SYNTAX)?;
            self.at += found;
            if rest.get(found) == Some(&b'"') {
                let end = self.at;
                self.at += 1;
                return Ok(Text { start, end, escaped });
            }
            escaped = true;
            self.at += 2;
        }
    }

    pub(super) fn scalar(&mut self) -> Result<Scalar, Problem> {
        match self.peek()? {
            b'"' => Ok(Scalar::Text(self.string()?)),
            b'n' => self.word(b"null").map(|_| Scalar::Null),
            b't' => self.word(b"true").map(|start| Scalar::Bool { start }),
            b'f' => self.word(b"false").map(|start| Scalar::Bool { start }),
            b'-' | b'+' | b'.' | b'0'..=b'9' => {
                let start = self.at;
                while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') = self.bytes.get(self.at) {
                    self.at += 1;
                }
                Ok(Scalar::Number { start, end: self.at })
            }
            value => Err(Problem::Unknown { what: "byte in JSON", value }),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<usize, Problem> {
        let start = self.at;
        if !self.bytes.get(start..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(SYNTAX);
        }
        self.at += word.len();
        Ok(start)
    }

    /// Passes over any value, however deep (the depth is that of the frame's brackets, kept as a number).
    pub(super) fn skip(&mut self) -> Result<(), Problem> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(SYNTAX)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => {
                    self.scalar()?;
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, what: &'static str) -> Result<i64, Problem> {
        match self.scalar()? {
            Scalar::Number { start, end } => {
                let text = self.bytes.get(start..end).and_then(|b| std::str::from_utf8(b).ok());
                text.and_then(|t| t.parse().ok()).ok_or(Problem::TooLarge(what))
            }
            _ => Err(Problem::Truncated(what)),
        }
    }

    pub(super) fn boolean(&mut self, what: &'static str) -> Result<bool, Problem> {
        match self.scalar()? {
            Scalar::Bool { start } => Ok(self.bytes.get(start) == Some(&b't')),
            _ => Err(Problem::Truncated(what)),
        }
    }

    /// A string's content as text; borrowed where nothing is escaped.
    pub(super) fn text(&self, text: Text, what: &'static str) -> Result<Cow<'a, str>, Problem> {
        let bytes = match text.escaped {
            false => Cow::Borrowed(self.raw(text)),
            true => Cow::Owned(unescape(self.raw(text), what)?),
        };
        match bytes {
            Cow::Borrowed(bytes) => {
                std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Problem::NotUtf8(what))
            }
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Problem::NotUtf8(what)),
        }
    }

    /// A string that must be there.
    pub(super) fn text_of(&mut self, what: &'static str) -> Result<Cow<'a, str>, Problem> {
        let text = self.string()?;
        self.text(text, what)
    }

    /// A string with a position in it.
    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, Problem> {
        self.text_of(what)?.parse().map_err(|_| Problem::Truncated(what))
    }
}

/// What a string's bytes mean. PostgreSQL's `escape_json` writes `\b \f \n \r \t \" \\` and `\u00XX` for other control
/// characters; everything else stands for itself.
pub(super) fn unescape(raw: &[u8], what: &'static str) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let letter = *escape.get(1).ok_or(Problem::Truncated(what))?;
        let mut used = 2;
        match letter {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'"' | b'\\' | b'/' => out.push(letter),
            b'u' => {
                let digits = escape.get(2..6).and_then(|d| std::str::from_utf8(d).ok());
                let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
                // A surrogate is never written: characters beyond ASCII stand for themselves.
                let character = code.and_then(char::from_u32).ok_or(Problem::Truncated(what))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                used = 6;
            }
            value => return Err(Problem::Unknown { what: "escape in JSON", value }),
        }
        rest = escape.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_mean_what_postgres_wrote() {
        for (raw, meant) in [
            ("plain é", "plain é"),
            (r#"a\tb\nc\"d\\e"#, "a\tb\nc\"d\\e"),
            (r"\u0001\b\f\r\/", "\u{1}\u{8}\u{c}\r/"),
            (r"\\u0041", r"\u0041"),
        ] {
            assert_eq!(unescape(raw.as_bytes(), "x").unwrap(), meant.as_bytes(), "{raw}");
        }
        for broken in [r"\", r"\u12", r"\ud800", r"\q"] {
            assert!(unescape(broken.as_bytes(), "x").is_err(), "{broken}");
        }
    }

    #[test]
    fn anything_is_passed_over_as_a_whole() {
        let text = r#" {"a":[1,{"b":"]}\""},null,[]],"c":-1e+5} ,"#;
        let mut json = Json::new(text.as_bytes());
        json.skip().unwrap();
        assert_eq!(json.peek().unwrap(), b',');
        for cut in 0..text.len() - 3 {
            assert!(Json::new(&text.as_bytes()[..cut]).skip().is_err(), "{cut}");
        }
    }

    #[test]
    fn numbers_keep_their_text() {
        let mut json = Json::new(b"1.500,");
        assert_eq!(json.scalar().unwrap(), Scalar::Number { start: 0, end: 5 });
        assert_eq!(Json::new(b"-12 ").number("n").unwrap(), -12);
        assert!(Json::new(b"99999999999999999999").number("n").is_err());
    }
}
