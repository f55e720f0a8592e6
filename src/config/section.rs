//! Reading typed values out of a section of a parsed file, keeping the place of everything that is wrong.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::not_built::{NOT_BUILT, Part, not_built_key, not_built_value};
use super::reader::Reader;

/// A string value after `env:` and `file:` have been followed.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) line: usize,
    /// Where it came from when that is not the configuration itself; then the text is never shown.
    origin: Option<String>,
}

impl Text {
    /// The value for a message: itself, or where it came from.
    pub(super) fn shown(&self) -> String {
        self.origin.clone().unwrap_or_else(|| format!("\"{}\"", self.text))
    }
}

/// One table of the file, and which of its keys were asked for.
pub(super) struct Section<'r, 'd> {
    pub(super) reader: &'r Reader<'r>,
    pub(super) part: Part,
    /// Name for messages (`connections.prod`); empty at the top.
    pub(super) name: String,
    pub(super) line: usize,
    table: &'d DeTable<'d>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'r, 'd> Section<'r, 'd> {
    pub(super) fn new(
        reader: &'r Reader<'r>,
        part: Part,
        name: impl Into<String>,
        line: usize,
        table: &'d DeTable<'d>,
    ) -> Self {
        Section { reader, part, name: name.into(), line, table, asked: RefCell::default() }
    }

    /// The key with its section.
    pub(super) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The line of a key, or of the section where the key is left out.
    pub(super) fn line_of(&self, key: &str) -> usize {
        let found = self.table.iter().find(|(k, _)| k.get_ref() == key);
        found.map_or(self.line, |(k, _)| self.reader.line_of(k.span().start))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.iter().any(|(k, _)| k.get_ref() == key)
    }

    /// Reports `key`: problem; advice, at the key's line.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.reader.error(self.line_of(key), self.path(key), problem, advice);
    }

    /// Warns about `key`, at the key's line.
    pub(super) fn warn(&self, key: &str, problem: impl Into<String>, advice: impl Into<String>) {
        self.reader.warn(self.line_of(key), self.path(key), problem, advice);
    }

    /// The raw value and its line; asking for a key makes it a known one.
    pub(super) fn raw(&self, key: &'static str) -> Option<(&'d DeValue<'d>, usize)> {
        self.asked.borrow_mut().insert(key);
        let (key, value) = self.table.iter().find(|(k, _)| k.get_ref() == key)?;
        Some((value.get_ref(), self.reader.line_of(key.span().start)))
    }

    /// Reports what is left: keys that are not built, and keys that do not exist.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let (name, line) = (key.get_ref().as_ref(), self.reader.line_of(key.span().start));
            if asked.contains(name) {
                continue;
            }
            if let Some(entry) = not_built_key(self.part, name) {
                self.reader.not_built(line, self.path(name), entry);
                continue;
            }
            let later = NOT_BUILT.iter().filter(|n| n.part == self.part && n.value.is_none()).map(|n| n.key);
            let advice = match nearest(name, asked.iter().copied().chain(later)) {
                Some(known) => format!("did you mean \"{known}\"?"),
                None => "remove it".to_owned(),
            };
            // rpcl ignored what it did not know, so its configurations may hold such keys.
            if self.reader.rpcl && self.part != Part::Replicate {
                self.reader.warn(line, self.path(name), "unknown key, so it has no effect", advice);
            } else {
                self.reader.error(line, self.path(name), "unknown key", advice);
            }
        }
    }

    fn wrong_type(&self, key: &str, wanted: &str, found: &DeValue<'_>) {
        self.error(key, format!("expected {wanted}, found {}", kind(found)), "");
    }

    /// Follows `env:` and `file:`; reports what cannot be followed.
    fn follow(&self, key: &str, line: usize, text: &str) -> Option<Text> {
        if let Some(name) = text.strip_prefix("env:") {
            let found = self.reader.environment.var(name);
            if found.is_none() {
                let problem = format!("the environment variable \"{name}\" is not set");
                self.reader.error(line, self.path(key), problem, "set it, or write the value here");
            }
            let origin = Some(format!("the value of environment variable {name}"));
            return found.map(|text| Text { text, line, origin });
        }
        if let Some(name) = text.strip_prefix("file:") {
            let path = self.file_path(name);
            match self.reader.environment.read(&path) {
                Ok(mut text) => {
                    // Editors end a file with a newline that is no part of the secret.
                    if text.ends_with('\n') {
                        text.pop();
                        if text.ends_with('\r') {
                            text.pop();
                        }
                    }
                    let origin = Some(format!("the content of file {}", path.display()));
                    return Some(Text { text, line, origin });
                }
                Err(error) => {
                    let problem = format!("cannot read the file {}: {error}", path.display());
                    self.reader.error(
                        line,
                        self.path(key),
                        problem,
                        "make it readable, or write the value here",
                    );
                    return None;
                }
            }
        }
        Some(Text { text: text.to_owned(), line, origin: None })
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<Text> {
        let (value, line) = self.raw(key)?;
        match value {
            DeValue::String(text) => self.follow(key, line, text),
            other => {
                self.wrong_type(key, "a string", other);
                None
            }
        }
    }

    /// A string that `parse` understands; `wanted` says what it should be ("a size like \"20GB\"").
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let parsed = parse(&text.text);
        if parsed.is_none() {
            self.error(key, format!("{} is not {wanted}", text.shown()), "");
        }
        parsed
    }

    /// A string that is not empty.
    pub(super) fn name_text(&self, key: &'static str) -> Option<String> {
        let text = self.text(key)?;
        if text.text.is_empty() {
            self.error(key, "is empty", "give a value, or remove the key");
            return None;
        }
        Some(text.text)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some(&(_, value)) = choices.iter().find(|(word, _)| *word == text.text) {
            return Some(value);
        }
        if let Some(entry) = not_built_value(self.part, key, &text.text) {
            self.reader.not_built(text.line, self.path(key), entry);
            return None;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let advice = format!("use one of: {}", words.join(", "));
        self.error(key, format!("{} is not a value it can have", text.shown()), advice);
        None
    }

    /// A whole number of `range`; a string where it comes from `env:` or `file:`, or rpcl wrote it.
    pub(super) fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (value, line) = self.raw(key)?;
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let (number, shown) = match value {
            DeValue::Integer(number) => {
                (u64::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string())
            }
            DeValue::String(text) => {
                let text = self.follow(key, line, text)?;
                if text.origin.is_none() && !self.reader.rpcl {
                    self.wrong_type(key, &wanted, value);
                    return None;
                }
                (text.text.parse().ok(), text.shown())
            }
            other => {
                self.wrong_type(key, &wanted, other);
                return None;
            }
        };
        let number = number.filter(|n| range.contains(n));
        if number.is_none() {
            self.error(key, format!("{shown} is not {wanted}"), "");
        }
        number
    }

    /// true or false; a string where it comes from `env:` or `file:`.
    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let (value, line) = self.raw(key)?;
        match value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(text) => {
                let text = self.follow(key, line, text)?;
                let value = match text.text.as_str() {
                    "true" if text.origin.is_some() => Some(true),
                    "false" if text.origin.is_some() => Some(false),
                    _ => None,
                };
                if value.is_none() {
                    self.error(
                        key,
                        format!("{} is not true or false", text.shown()),
                        "write it without quotes",
                    );
                }
                value
            }
            other => {
                self.wrong_type(key, "true or false", other);
                None
            }
        }
    }

    /// As [`Section::boolean`], and in rpcl's words: "yes" and "no".
    pub(super) fn switch(&self, key: &'static str) -> Option<bool> {
        let Some((DeValue::String(text), line)) = self.raw(key) else { return self.boolean(key) };
        let text = self.follow(key, line, text)?;
        let value = match text.text.as_str() {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        };
        if value.is_none() {
            self.error(
                key,
                format!("{} is not yes or no", text.shown()),
                "write true or false, without quotes",
            );
        }
        value
    }

    /// A list of strings, each understood by `parse`. One bad element makes the list `None`, after all were
    /// looked at.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let (value, _) = self.raw(key)?;
        let DeValue::Array(items) = value else {
            self.wrong_type(key, "a list of strings", value);
            return None;
        };
        let parsed: Vec<Option<T>> = items
            .iter()
            .map(|item| {
                // A list may run over several lines: name the element's own.
                let line = self.reader.line_of(item.span().start);
                let DeValue::String(text) = item.get_ref() else {
                    let problem = format!("expected a list of strings, found {} in it", kind(item.get_ref()));
                    self.reader.error(line, self.path(key), problem, "");
                    return None;
                };
                let text = self.follow(key, line, text)?;
                let parsed = parse(&text.text);
                if parsed.is_none() {
                    let problem = format!("{} is not {wanted}", text.shown());
                    self.reader.error(line, self.path(key), problem, "");
                }
                parsed
            })
            .collect();
        parsed.into_iter().collect()
    }

    /// True when the key holds a list without elements.
    pub(super) fn list_is_empty(&self, key: &'static str) -> bool {
        matches!(self.raw(key), Some((DeValue::Array(items), _)) if items.is_empty())
    }

    /// The string as it stands in the file.
    pub(super) fn literal(&self, key: &'static str) -> Option<&'d str> {
        self.raw(key).and_then(|(value, _)| value.as_str())
    }

    /// A path; see [`Section::file_path`].
    pub(super) fn path_value(&self, key: &'static str) -> Option<PathBuf> {
        self.name_text(key).map(|text| self.file_path(&text))
    }

    /// `~/` is the user's home; a relative path begins at the configuration file's folder.
    fn file_path(&self, text: &str) -> PathBuf {
        if let (Some(rest), Some(home)) = (text.strip_prefix("~/"), self.reader.environment.var("HOME")) {
            return Path::new(&home).join(rest);
        }
        self.reader.file.parent().unwrap_or(Path::new("")).join(text)
    }
}

/// What a value is, for a message.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
