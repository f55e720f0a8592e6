//! The house rules a compiler does not check: floors, purity, file length, who may open sockets.
//!
//! Reads `src/**/*.rs` as text. Comments, literals and `#[cfg(test)]` items are blanked first, so that a rule speaks of
//! what the product does. It is no parser: a macro that builds a path escapes it, and reviewers see that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Every room with its floor, as `src/lib.rs` draws them. A room uses rooms on lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("cli", 8),
    ("config", 7),
    ("service", 6),
    ("repack", 5),
    ("modes", 5),
    ("notify", 5),
    ("flow", 4),
    ("capture", 3),
    ("copy", 3),
    ("apply", 3),
    ("verify", 3),
    ("catalog", 2),
    ("pg", 1),
    ("decode", 1),
    ("sql", 1),
    ("cluster", 1),
    ("metrics", 1),
    ("model", 0),
];

/// What decides and never acts: a folder ends in `/`. A file that is not there yet costs nothing.
const PURE: &[&str] = &[
    "model/",
    "sql/",
    "decode/",
    "metrics/",
    "catalog/table_def.rs",
    "catalog/ddl.rs",
    "catalog/diff.rs",
    "capture/assemble.rs",
    "capture/publish.rs",
    "copy/chunk.rs",
    "apply/route.rs",
    "apply/plan.rs",
    "apply/plan/",
    "apply/coalesce.rs",
    "apply/logdel.rs",
    "apply/progress.rs",
    "apply/encode.rs",
    "flow/start.rs",
    "flow/handover.rs",
];

/// What a pure file must not say, and why.
const IMPURE: &[(&str, &str)] = &[
    ("async", "waits"),
    ("await", "waits"),
    ("tokio", "waits"),
    ("tokio_postgres", "knows a client"),
    ("crate::pg", "knows a client"),
    ("Instant::now", "reads a clock"),
    ("SystemTime::now", "reads a clock"),
    ("Timestamp::now", "reads a clock"),
    ("Zoned::now", "reads a clock"),
    ("std::env", "reads the environment"),
    ("std::fs", "touches files"),
    ("std::net", "touches the network"),
    ("std::process", "starts programs"),
    ("std::thread", "starts threads"),
    ("rand", "is not repeatable"),
    ("tracing", "writes log lines"),
];

/// Only `pg` speaks to servers; `cluster` looks for free ports.
const SOCKETS: &[&str] =
    &["TcpStream", "UnixStream", "TcpSocket", "tokio_postgres::connect", "Config::connect", "connect_raw"];

const LONGEST_FILE: usize = 500;

/// One file of `src/`, ready to be judged.
struct Source {
    /// Below `src/`: `apply/plan.rs`.
    path: String,
    text: String,
    /// The text without comments, literals and test code, line for line.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        // `#[cfg(test)] mod tests;` leads to a file that is test code as a whole.
        let test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let code = if test { String::new() } else { without_tests(&without_prose(text)) };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The room, `None` for `lib.rs` and `main.rs`.
    fn room(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        (first != "main.rs" && first != "lib.rs").then(|| first.trim_end_matches(".rs"))
    }

    /// How many `super::` lead from the file's module to the crate root.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    fn problem(&self, line: usize, rule: &str) -> String {
        format!("src/{}:{line}: {rule}", self.path)
    }

    /// A problem for every line of code that has one of the words.
    fn each_line_with(&self, words: &[&str], rule: impl Fn(&str) -> String) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, line) in self.code.lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                problems.push(self.problem(number + 1, &rule(word)));
            }
        }
        problems
    }
}

fn floor_of(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn problems_of(source: &Source) -> Vec<String> {
    let mut problems = floors(source);
    problems.extend(purity(source));
    if source.text.lines().count() > LONGEST_FILE {
        problems.push(source.problem(
            LONGEST_FILE + 1,
            "no file is longer than 500 lines: split it by what changes together",
        ));
    }
    if !matches!(source.room(), None | Some("cli")) {
        problems
            .extend(source.each_line_with(&["anyhow"], |_| {
                "anyhow stays in cli: a room has its own error type".into()
            }));
    }
    if !matches!(source.room(), Some("pg" | "cluster")) {
        problems.extend(source.each_line_with(SOCKETS, |word| format!("{word}: only pg opens sockets")));
    }
    problems.extend(panics(source));
    for (number, line) in source.text.lines().enumerate() {
        for word in ["TODO", "FIXME", "XXX"].into_iter().filter(|word| has_word(line, word)) {
            problems.push(source.problem(number + 1, &format!("{word}: do it, or open an issue")));
        }
    }
    problems
}

fn floors(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let Some(own) = floor_of(room) else {
        return vec![source.problem(
            1,
            &format!("room {room} has no floor: name it in src/lib.rs and in FLOORS of tests/layering.rs"),
        )];
    };
    let mut problems = Vec::new();
    for (line, other) in named_rooms(&source.code, source.depth()) {
        match floor_of(&other) {
            _ if other == room => {}
            Some(floor) if floor < own => {}
            Some(floor) if floor == own => problems.push(source.problem(
                line,
                &format!(
                    "{room} names its neighbour {other}, both on floor {own}: let a higher floor join them"
                ),
            )),
            Some(floor) => problems.push(source.problem(
                line,
                &format!("{room} (floor {own}) names {other} (floor {floor}): a room uses lower floors only"),
            )),
            None => problems.push(
                source.problem(line, &format!("crate::{other} is no room: name the room it comes from")),
            ),
        }
    }
    problems
}

/// The rooms named by `crate::…`, `crate::{…}` and a chain of `super::` that reaches the crate root, with their lines.
fn named_rooms(code: &str, depth: usize) -> Vec<(usize, String)> {
    let climb = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in ["crate::", climb.as_str()] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(heads(&code[at + start.len()..]).into_iter().map(|room| (line, room)));
        }
    }
    found
}

/// The first names after `crate::`: one, or of a group `{a::b, c}` each.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![leading_name(rest)];
    };
    let (mut depth, mut expect, mut names) = (0, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect = true,
            _ if expect && (letter.is_alphabetic() || letter == '_') => {
                names.push(leading_name(&group[at..]));
                expect = false;
            }
            _ => {}
        }
    }
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

fn purity(source: &Source) -> Vec<String> {
    let pure = PURE.iter().any(|entry| match entry.strip_suffix('/') {
        Some(_) => source.path.starts_with(entry),
        None => source.path == *entry,
    });
    if !pure {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (word, why) in IMPURE {
        problems.extend(source.each_line_with(&[word], |word| format!("{word} in a pure file: it {why}")));
    }
    problems
}

fn panics(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        // `.expect(` alone is also what parsers call a method.
        for word in
            [".unwrap()", ".expect(\"", ".expect(&", "panic!("].into_iter().filter(|word| line.contains(word))
        {
            problems.push(
                source.problem(
                    number + 1,
                    &format!("{word} outside tests: return an error that says what to do"),
                ),
            );
        }
    }
    problems
}

/// True when `word` stands in `line` and is no part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Blanks comments and the insides of string and character literals; keeps every line break and the quotes.
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
        for letter in &letters[at..end] {
            out.push(if matches!(letter, '\n' | '"') { *letter } else { ' ' });
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
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

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files.sort();
    files
        .iter()
        .map(|path| {
            Source::new(
                path.strip_prefix(&src).unwrap().to_str().unwrap(),
                &std::fs::read_to_string(path).unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_house_keeps_its_rules() {
    let sources = sources();
    assert!(sources.len() > 10, "the sources were not found");
    let problems: Vec<String> = sources.iter().flat_map(problems_of).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn tests_and_benches_are_no_longer_than_sources() {
    let mut files = Vec::new();
    rust_files(&root().join("tests"), &mut files);
    rust_files(&root().join("benches"), &mut files);
    let long: Vec<_> = files
        .iter()
        .filter(|path| std::fs::read_to_string(path).unwrap().lines().count() > LONGEST_FILE)
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST_FILE} lines: {long:?}");
}

#[test]
fn every_room_stands_in_the_floor_plan_and_in_the_architecture() {
    let plan = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let drawing: String = plan.lines().filter(|line| line.starts_with("//!")).collect();
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).ok();
    for room in sources().iter().filter_map(|source| source.room().map(str::to_owned)) {
        assert!(has_word(&drawing, &room), "src/lib.rs: the floor plan does not name {room}");
        if let Some(text) = &architecture {
            assert!(has_word(text, &room), "ARCHITECTURE.md does not name the room {room}");
        }
    }
}

/// The checker finds what it is there for: a bad sample and a word of the complaint, or a good sample and nothing.
#[test]
fn the_checker_sees_what_it_should() {
    let long = "//\n".repeat(501);
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("apply/lane.rs", "use crate::model::Lsn;\nuse crate::pg::Session;", None),
        (
            "apply/lane.rs",
            "\nuse crate::capture::Slot;",
            Some("src/apply/lane.rs:2: apply names its neighbour capture"),
        ),
        ("capture/slot.rs", "fn f() { crate::apply::go() }", Some("neighbour apply")),
        (
            "pg/tls.rs",
            "use crate::{model::Lsn, flow::{self, Job}};",
            Some("pg (floor 1) names flow (floor 4)"),
        ),
        ("pg/mod.rs", "use super::config::Options;", Some("names config")),
        ("pg/tls.rs", "use super::super::config::Options;", Some("names config")),
        ("pg/tls.rs", "use super::connect::Session;\npub(in crate::pg) fn f() {}", None),
        ("flow/mod.rs", "use crate::Everything;", Some("crate::Everything is no room")),
        ("cellar/mod.rs", "", Some("room cellar has no floor")),
        (
            "flow/mod.rs",
            "// use crate::cli::Args;\nconst A: &str = \"crate::cli\"; /* crate::cli /* */ crate::cli */",
            None,
        ),
        (
            "flow/mod.rs",
            "const A: &str = r#\"a \" crate::cli\"#; fn f<'a>(x: &'a str) -> char { '\"' }",
            None,
        ),
        ("model/lsn.rs", "#[cfg(test)]\nmod tests {\n use crate::cli::A; fn t() { x.unwrap() } }", None),
        (
            "model/lsn.rs",
            "#[cfg(test)]\nmod tests;\nfn f() { x.unwrap() }",
            Some("src/model/lsn.rs:3: .unwrap()"),
        ),
        ("model/lsn.rs", "fn f() { x.expect(\"never\") }", Some("outside tests")),
        ("decode/reader.rs", "fn f() { self.expect(b',')?; }", None),
        ("model/lsn.rs", "async fn f() {}", Some("async in a pure file: it waits")),
        ("apply/plan.rs", "let t = Instant::now();", Some("reads a clock")),
        ("apply/applier.rs", "let t = Instant::now();", None),
        ("sql/quote.rs", "use std::env;", Some("environment")),
        ("decode/pgoutput.rs", "tracing::debug!(x);", Some("log lines")),
        ("model/operand.rs", "fn operand() {}", None),
        ("flow/mod.rs", "use anyhow::Result;", Some("anyhow stays in cli")),
        ("cli/mod.rs", "use anyhow::Result;", None),
        ("copy/worker.rs", "tokio_postgres::connect(c).await", Some("only pg opens sockets")),
        ("pg/connect.rs", "TcpStream::connect(a).await", None),
        ("flow/mod.rs", "// TODO later", Some("open an issue")),
        ("flow/mod.rs", "// METHODOLOGY and TODOS", None),
        ("flow/mod.rs", &long, Some("500 lines")),
    ];
    for (path, text, expected) in cases {
        let problems = problems_of(&Source::new(path, text));
        match expected {
            None => assert!(problems.is_empty(), "{path}: {text}\nwas refused: {problems:?}"),
            Some(word) => {
                assert!(
                    problems.len() == 1 && problems[0].contains(word),
                    "{path}: {text}\nexpected {word:?}: {problems:?}"
                );
            }
        }
    }
}
