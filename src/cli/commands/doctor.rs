//! `doctor`: what the configured work needs, tried on the live servers, and what mends what is missing.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::cli::args::DoctorArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, capture_options, connect_options, repack_of, stream, streams};
use crate::config::{Connection, Settings};
use crate::doctor::{Check, DatabaseState, Level, Report, Work, examine};

/// Lines of the log that go into a bundle.
const LOG_LINES: usize = 500;

/// Examines the connections, one after the other.
pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit, Failure> {
    let connections = context.connections(args.connection.as_deref())?;
    let works: Vec<Work> = connections.iter().map(|c| work(&context.settings, c)).collect();
    let reports = block_on(async {
        let mut reports = Vec::with_capacity(works.len());
        for work in &works {
            reports.push(Box::pin(examine(work)).await);
        }
        Ok(reports)
    })?;
    if let Some(file) = &args.bundle {
        write_bundle(context, &connections, &works, &reports, file)?;
    }
    if context.output.json {
        context.output.document(&document(&reports))?;
    } else {
        context.output.text(&text(&reports))?;
        if let Some(file) = &args.bundle {
            context.output.text(&format!("everything for support is in {}\n", file.display()))?;
        }
    }
    Ok(if reports.iter().any(Report::is_failed) { Exit::Refused } else { Exit::Done })
}

/// A connection that feeds and gets nothing, or names tables of its own, is there for repack.
fn work(settings: &Settings, connection: &Connection) -> Work {
    let reads = streams(settings, connection);
    let writes: Vec<_> = settings
        .connections
        .values()
        .filter(|source| settings.entries_of(&source.name).any(|e| e.target == connection.name))
        .map(|source| stream(settings, source, connection))
        .collect();
    let selection = &connection.repack.selection;
    let named = !selection.tables.is_empty() || !selection.schemas.is_empty();
    let mut repack = repack_of(connection);
    repack.selection = selection.clone();
    let repack = (named || (reads.is_empty() && writes.is_empty())).then_some(repack);
    Work {
        name: connection.name.clone(),
        connect: connect_options(connection),
        capture: capture_options(connection, None),
        reads,
        writes,
        repack,
    }
}

fn document(reports: &[Report]) -> Value {
    let check = |check: &Check| {
        json!({
            "check": check.check,
            "ok": check.level != Level::Fail,
            "level": check.level.as_str(),
            "detail": check.detail,
            "remedy": check.remedy.as_ref().map(ToString::to_string),
            "statements": check.remedy.as_ref().map(|r| r.statements.clone()).unwrap_or_default(),
        })
    };
    let report = |report: &Report| {
        let checks: Vec<Value> = report.checks.iter().map(check).collect();
        json!({ "name": report.name, "capture": report.capture, "checks": checks })
    };
    json!({ "connections": reports.iter().map(report).collect::<Vec<_>>() })
}

fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let capture = report.capture.map_or_else(String::new, |c| format!("  changes are read from a {c}"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}{capture}", report.name);
        let width = report.checks.iter().map(|c| c.check.chars().count()).max().unwrap_or(0).min(34);
        for check in &report.checks {
            let _ =
                writeln!(text, "  {:<4}  {:<width$}  {}", check.level.as_str(), check.check, check.detail);
            if let Some(remedy) = check.remedy.as_ref().filter(|_| check.level != Level::Ok) {
                let _ = writeln!(text, "  {:<4}  {:<width$}  → {remedy}", "", "");
            }
        }
        text.push('\n');
    }
    let failed: Vec<&str> = reports.iter().filter(|r| r.is_failed()).map(|r| r.name.as_str()).collect();
    match failed.is_empty() {
        true => text.push_str("everything that is needed is there\n"),
        false => {
            let _ = writeln!(text, "something that is needed is missing: {}", failed.join(", "));
        }
    }
    text
}

/// Writes the bundle to a new file that only its owner can read.
fn write_bundle(
    context: &Context,
    connections: &[&Connection],
    works: &[Work],
    reports: &[Report],
    file: &Path,
) -> Result<(), Failure> {
    let states = block_on(async {
        let mut states = Vec::with_capacity(works.len());
        for work in works {
            states.push(DatabaseState::read(&work.name, &work.connect).await);
        }
        Ok(states)
    })?;
    let bundle = json!({
        "program": format!("repcloud {}", env!("CARGO_PKG_VERSION")),
        "written_at_unix": SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "configuration": configuration(&context.settings, connections),
        "doctor": document(reports),
        "databases": states.into_iter().map(|s| (s.name, Value::Object(s.topics))).collect::<Map<_, _>>(),
        "log": log_lines(&context.settings),
    });
    let text = serde_json::to_string_pretty(&bundle).context("cannot write the bundle as JSON")?;
    let text = without_secrets(text, &context.settings);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut out| out.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write {} (an existing file is not replaced)", file.display()))?;
    Ok(())
}

/// Field by field, so that a secret cannot come along.
fn configuration(settings: &Settings, connections: &[&Connection]) -> Value {
    let connection = |c: &&Connection| {
        json!({
            "name": c.name, "host": c.host, "port": c.port, "user": c.user, "database": c.database,
            "password": c.password.is_some(), "sslmode": c.sslmode.as_str(), "sslrootcert": c.sslrootcert.is_some(),
            "sslcert": c.sslcert.is_some(), "capture": c.capture.as_str(), "plugin": c.plugin.map(|p| format!("{p:?}")),
            "allow_lossy_numbers": c.allow_lossy_numbers, "slot_name": c.slot_name, "publication": c.publication,
            "max_retained_wal": c.max_retained_wal,
        })
    };
    let names: Vec<&str> = connections.iter().map(|c| c.name.as_str()).collect();
    let entries = connections.iter().flat_map(|c| settings.entries_of(&c.name)).map(|e| {
        let tables: Vec<String> = e.tables.iter().map(ToString::to_string).collect();
        json!({
            "source": e.source, "target": e.target, "mode": format!("{:?}", e.mode), "tables": tables,
            "target_table": e.target_table.as_ref().map(ToString::to_string), "columns": e.columns,
            // A condition may name a person.
            "condition": e.condition.is_some(), "key": e.key, "copy": e.copy,
        })
    });
    json!({
        "examined": names,
        "connections": connections.iter().map(connection).collect::<Vec<_>>(),
        "replicate": entries.collect::<Vec<_>>(),
    })
}

/// The end of the newest log file; log lines hold no secret and no row value.
fn log_lines(settings: &Settings) -> Vec<String> {
    let prefix = format!("repcloud_{}", settings.name);
    let newest = fs::read_dir(&settings.logging.log_dir).ok().and_then(|folder| {
        let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        folder.flatten().filter(ours).max_by_key(fs::DirEntry::file_name)
    });
    let text = newest.and_then(|entry| fs::read(entry.path()).ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES)).map(|line| (*line).to_owned()).collect()
}

/// A second look: whatever wrote a configured password somewhere, it does not get out.
fn without_secrets(text: String, settings: &Settings) -> String {
    let passwords = settings.connections.values().filter_map(|c| c.password.as_ref());
    passwords.fold(text, |text, password| {
        let written = serde_json::to_string(password.expose_secret()).unwrap_or_default();
        match written.trim_matches('"') {
            // As short as this it is part of many words, and no secret.
            short if short.len() < 4 => text,
            long => text.replace(long, "(hidden)"),
        }
    })
}
