//! `doctor --bundle`: everything support needs, in one file. No secret, no row of anybody's.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::words;
use crate::cli::report::Failure;
use crate::cli::run::Context;
use crate::cli::wiring::block_on;
use crate::config::{Connection, Settings};
use crate::doctor::{DatabaseState, Report, Work};

/// Lines of the log that go into a bundle.
const LOG_LINES: usize = 500;

/// Said before anything is asked of a server.
pub(super) fn is_free(file: &Path) -> Result<(), Failure> {
    match file.symlink_metadata() {
        Ok(_) => Err(taken(file)),
        // Whatever else is wrong with it, writing tells.
        Err(_) => Ok(()),
    }
}

fn taken(file: &Path) -> Failure {
    Failure::usage(format!(
        "{} is there already, and is not replaced; name another file, or remove it",
        file.display()
    ))
}

/// Writes the bundle to a new file that only its owner can read.
pub(super) fn write(
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
        "doctor": words::document(reports),
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
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(file)),
        written => Ok(written.with_context(|| format!("cannot write {}", file.display()))?),
    }
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
        let inner = written.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or_default();
        match inner {
            // As short as this it is part of many words, and no secret.
            short if short.len() < 4 => text,
            long => text.replace(long, "(hidden)"),
        }
    })
}
