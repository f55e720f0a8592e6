//! The house rules a compiler does not check: floors, purity, file length, who may open sockets.
//!
//! Reads `src/**/*.rs` as text. Comments, literals and `#[cfg(test)]` items are blanked first, so that a rule speaks of
//! what the product does. It is no parser: a macro that builds a path escapes it, and reviewers see that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;

use source::{Source, has_word, rust_files};

#[path = "layering/source.rs"]
mod source;

/// Every room with its floor, as `src/lib.rs` draws them. A room uses rooms on lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("cli", 8),
    ("config", 7),
    ("service", 6),
    ("doctor", 6),
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
    "capture/trigger/ddl.rs",
    "capture/trigger/rows.rs",
    "copy/chunk.rs",
    "apply/route.rs",
    "apply/plan.rs",
    "apply/plan/",
    "apply/coalesce.rs",
    "apply/lanes.rs",
    "apply/logdel.rs",
    "apply/progress.rs",
    "apply/encode.rs",
    "verify/spec.rs",
    "verify/layout.rs",
    "verify/sql.rs",
    "verify/chunk.rs",
    "verify/digest.rs",
    "verify/judge.rs",
    "flow/start.rs",
    "flow/stop_reason.rs",
    "flow/handover.rs",
    "doctor/finding.rs",
    "doctor/platform.rs",
    "doctor/remedies.rs",
    "doctor/server.rs",
    "doctor/statements.rs",
    "repack/alignment.rs",
    "repack/bloat.rs",
    "repack/cleanup.rs",
    "repack/converge.rs",
    "repack/preflight/dependents.rs",
    "repack/preflight/finding.rs",
    "repack/preflight/key.rs",
    "repack/preflight/large_objects.rs",
    "repack/preflight/limits.rs",
    "repack/preflight/space.rs",
    "repack/dependents/checks.rs",
    "repack/dependents/column_order.rs",
    "repack/dependents/columns.rs",
    "repack/dependents/defaults.rs",
    "repack/dependents/foreign_keys.rs",
    "repack/dependents/functions.rs",
    "repack/dependents/grants.rs",
    "repack/dependents/indexes.rs",
    "repack/dependents/inheritance.rs",
    "repack/dependents/matviews.rs",
    "repack/dependents/others.rs",
    "repack/dependents/partitions.rs",
    "repack/dependents/policies.rs",
    "repack/dependents/publications.rs",
    "repack/dependents/rules.rs",
    "repack/dependents/sequences.rs",
    "repack/dependents/statistics.rs",
    "repack/dependents/table.rs",
    "repack/dependents/triggers.rs",
    "repack/dependents/views.rs",
    "repack/dry_run.rs",
    "repack/fingerprint.rs",
    "repack/lanes.rs",
    "repack/plan.rs",
    "repack/plan/",
    "repack/rebuild.rs",
    "repack/retries.rs",
    "repack/throttle.rs",
    "repack/window.rs",
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    Source::read_all(&root().join("src"))
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
