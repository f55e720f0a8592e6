//! A source file as the rules see it: without comments, literals and test code.

use std::path::{Path, PathBuf};

/// One file of `src/`, ready to be judged.
pub(crate) struct Source {
    /// Below `src/`: `apply/plan.rs`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text without comments, literals and test code, line for line.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = without_tests(&without_prose(text));
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Reads every file below `src`.
    pub(crate) fn read_all(src: &Path) -> Vec<Self> {
        let mut files = Vec::new();
        rust_files(src, &mut files);
        files.sort();
        let name = |path: &Path| path.strip_prefix(src).unwrap().to_str().unwrap().to_owned();
        let sources =
            files.iter().map(|path| Self::new(&name(path), &std::fs::read_to_string(path).unwrap()));
        let mut sources: Vec<Self> = sources.collect();
        let tests: Vec<String> = sources.iter().flat_map(Self::test_modules).collect();
        for source in &mut sources {
            // Test code as a whole: nothing in it is the product's.
            if tests.iter().any(|test| {
                source.path == format!("{test}.rs") || source.path.starts_with(&format!("{test}/"))
            }) {
                source.code.clear();
            }
        }
        sources
    }

    /// The files that `#[cfg(test)] mod name;` leads to, without `.rs`: `apply/plan/tests`.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self.path.strip_suffix("/mod.rs") {
            Some(folder) => folder,
            None => self.path.trim_end_matches(".rs"),
        };
        let prose_free = without_prose(&self.text);
        let behind = prose_free.split("#[cfg(test)]").skip(1);
        behind
            .filter_map(|code| {
                code.trim_start().trim_start_matches("pub(crate) ").strip_prefix("mod ")?.split_once(';')
            })
            .filter(|(name, _)| !name.contains(char::is_whitespace))
            .map(|(name, _)| format!("{folder}/{name}"))
            .collect()
    }

    /// The room, `None` for `lib.rs` and `main.rs`.
    pub(crate) fn room(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        (first != "main.rs" && first != "lib.rs").then(|| first.trim_end_matches(".rs"))
    }

    /// How many `super::` lead from the file's module to the crate root.
    pub(crate) fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    pub(crate) fn problem(&self, line: usize, rule: &str) -> String {
        format!("src/{}:{line}: {rule}", self.path)
    }

    /// A problem for every line of code that has one of the words.
    pub(crate) fn each_line_with(&self, words: &[&str], rule: impl Fn(&str) -> String) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, line) in self.code.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                problems.push(self.problem(number + 1, &rule(word)));
            }
        }
        problems
    }
}

/// Every `.rs` file below a directory.
pub(crate) fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// True when `word` stands in `line` and is no part of a longer name.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Blanks comments and the insides of string and character literals; keeps every line break and the outer quotes.
fn without_prose(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = prose_end(&letters, at);
        if end == at {
            out.push(letters[at]);
            at += 1;
            continue;
        }
        for (place, letter) in letters.iter().enumerate().take(end).skip(at) {
            let outer = *letter == '"' && (place == at || place == end - 1);
            out.push(if outer || *letter == '\n' { *letter } else { ' ' });
        }
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn prose_end(letters: &[char], at: usize) -> usize {
    let find = |from: usize, stop: &[char]| {
        let place = (from..letters.len()).find(|place| letters[*place..].starts_with(stop));
        place.map_or(letters.len(), |place| place + stop.len())
    };
    let in_name = at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_');
    match letters[at..] {
        ['/', '/', ..] => find(at, &['\n']) - 1,
        ['/', '*', ..] => {
            let (mut depth, mut place) = (1, at + 2);
            while depth > 0 && place < letters.len() {
                match letters[place..] {
                    ['/', '*', ..] => (depth, place) = (depth + 1, place + 2),
                    ['*', '/', ..] => (depth, place) = (depth - 1, place + 2),
                    _ => place += 1,
                }
            }
            place
        }
        ['r', '"' | '#', ..] if !in_name || letters[at - 1] == 'b' => {
            let hashes = letters[at + 1..].iter().take_while(|letter| **letter == '#').count();
            if letters.get(at + 1 + hashes) != Some(&'"') {
                return at;
            }
            let mut stop = vec!['"'];
            stop.extend(std::iter::repeat_n('#', hashes));
            find(at + 2 + hashes, &stop)
        }
        ['"', ..] => quoted_end(letters, at, '"'),
        // A lifetime has no closing quote one letter later.
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted_end(letters, at, '\''),
        _ => at,
    }
}

fn quoted_end(letters: &[char], at: usize, quote: char) -> usize {
    let mut place = at + 1;
    while place < letters.len() && letters[place] != quote {
        place += if letters[place] == '\\' { 2 } else { 1 };
    }
    (place + 1).min(letters.len())
}

/// Blanks items behind `#[cfg(test)]`, from the attribute to the closing brace or semicolon.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let (mut depth, mut end) = (0, out.len());
        for (at, letter) in out[start..].char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = start + at + 1;
                break;
            }
        }
        let blank: String =
            out[start..end].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_literals_and_test_items_are_blanked_line_for_line() {
        let text = "a /* b\n/* c */ */ d\n\"e\\\"f\" r#\"g\"\nh\"# 'i' '\\'' <'j> // k\n#[cfg(test)]\nmod t { fn l() {} }\nm";
        let code = Source::new("x.rs", text).code;
        let squeezed: Vec<String> = code.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(squeezed, ["a", "d", "\"\"", "<'j>", "", "", "m"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn files_behind_cfg_test_are_found() {
        let text = "#[cfg(test)]\nmod golden;\n// #[cfg(test)] mod no;\n#[cfg(test)]\nmod inner { const A: u8 = 1; }\nmod product;";
        assert_eq!(Source::new("decode/mod.rs", text).test_modules(), ["decode/golden"]);
        assert_eq!(Source::new("decode/reader.rs", text).test_modules(), ["decode/reader/golden"]);
    }
}
