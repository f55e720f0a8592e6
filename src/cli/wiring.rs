//! From the configuration's words to the rooms' options.

mod repack;

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

#[allow(unused_imports)]
pub(crate) use repack::{repack, repack_of};

use super::report::{Exit, Failure};
use crate::apply::checkpoint::StreamKey;
use crate::apply::parked_store::ParkLimits;
use crate::apply::route::{Delivery, OnConflict};
use crate::capture::Plugin;
use crate::capture::auto::{Asked, CaptureOptions};
use crate::cli::args::CaptureArg;
use crate::config::{self, Connection, Login, ReplicateEntry, Settings};
use crate::flow::{EntryOptions, FlowError, StreamOptions};
use crate::model::{Events, JobEvent};
use crate::pg::{ConnectOptions, SslMode, passfile};

/// How to reach a connection.
pub(crate) fn connect_options(connection: &Connection) -> ConnectOptions {
    let mut options =
        ConnectOptions::new(&connection.host, connection.port, &connection.user, &connection.database);
    options.password = connection.password.clone();
    options.sslmode = match connection.sslmode {
        config::SslMode::Disable => SslMode::Disable,
        config::SslMode::Allow => SslMode::Allow,
        config::SslMode::Prefer => SslMode::Prefer,
        config::SslMode::Require => SslMode::Require,
        config::SslMode::VerifyCa => SslMode::VerifyCa,
        config::SslMode::VerifyFull => SslMode::VerifyFull,
    };
    options.sslrootcert = connection.sslrootcert.clone();
    options.sslcert = connection.sslcert.clone();
    options.sslkey = connection.sslkey.clone();
    options.home = std::env::home_dir();
    options.application_name = format!("repcloud {}", connection.name);
    options.connect_timeout = Duration::from_secs(10);
    options.keepalives = Some(Duration::from_secs(15));
    options.tcp_user_timeout = Some(Duration::from_secs(60));
    options
}

/// How its changes are read; what was typed goes before what is configured.
pub(crate) fn capture_options(connection: &Connection, typed: Option<CaptureArg>) -> CaptureOptions {
    let asked = match (typed, connection.capture) {
        (Some(CaptureArg::Auto), _) | (None, config::Capture::Auto) => Asked::Auto,
        (Some(CaptureArg::Trigger), _) | (None, config::Capture::Trigger) => Asked::Trigger,
        (Some(CaptureArg::Slot), _) | (None, config::Capture::Slot) => Asked::Slot,
    };
    CaptureOptions {
        asked,
        plugin: connection.plugin.map(|plugin| match plugin {
            config::Plugin::Pgoutput => Plugin::Pgoutput,
            config::Plugin::Wal2json => Plugin::Wal2json,
        }),
        allow_lossy_numbers: connection.allow_lossy_numbers,
    }
}

/// The password file's answer for a login; an `Err` is a warning.
pub(crate) fn passfile_password(path: &Path, login: Login<'_>) -> Result<Option<SecretString>, String> {
    let found =
        passfile::lookup(path, &ConnectOptions::new(login.host, login.port, login.user, login.database));
    match found.warning {
        Some(warning) => Err(warning),
        None => Ok(found.password),
    }
}

/// The streams of `source`, one a target.
pub(crate) fn streams(settings: &Settings, source: &Connection) -> Vec<StreamOptions> {
    settings.targets_of(&source.name).into_iter().map(|target| stream(settings, source, target)).collect()
}

/// The stream of two connections; without entries when nothing is configured between them any more.
pub(crate) fn stream(settings: &Settings, source: &Connection, target: &Connection) -> StreamOptions {
    StreamOptions {
        key: StreamKey { source: source.name.clone(), target: target.name.clone() },
        source: connect_options(source),
        target: connect_options(target),
        capture: capture_options(source, None),
        slot_name: source.slot_name.clone(),
        publication: source.publication.clone(),
        max_retained_wal: source.max_retained_wal,
        park: park_limits(),
        entries: settings.entries_of(&source.name).filter(|e| e.target == target.name).map(entry).collect(),
        copy_workers: 2,
    }
}

/// The limits are not for tuning; the variables are for tests alone.
fn park_limits() -> ParkLimits {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let mut limits = ParkLimits::default();
    if let Some(changes) = number("REPCLOUD_PARK_CHANGES") {
        limits.changes = changes.into();
    }
    if let Some(seconds) = number("REPCLOUD_PARK_PAUSE_SECONDS") {
        limits.pause = Duration::from_secs(seconds.into());
    }
    limits
}

/// What a stream tells becomes log lines.
pub(crate) fn stream_events(key: &StreamKey) -> Events {
    let name = format!("{} → {}", key.source, key.target);
    Events::new(move |event| match event {
        JobEvent::Info(text) => tracing::info!("{name}: {text}"),
        JobEvent::Warning(text) => tracing::warn!("{name}: {text}"),
    })
}

/// What a repack tells becomes log lines.
pub(crate) fn connection_events(name: &str) -> Events {
    let name = name.to_owned();
    Events::new(move |event| match event {
        JobEvent::Info(text) => tracing::info!("{name}: {text}"),
        JobEvent::Warning(text) => tracing::warn!("{name}: {text}"),
    })
}

fn entry(entry: &ReplicateEntry) -> EntryOptions {
    EntryOptions {
        tables: entry.tables.clone(),
        target_table: entry.target_table.clone(),
        columns: entry.columns.clone(),
        condition: entry.condition.clone(),
        key: entry.key.clone(),
        delivery: match entry.mode {
            config::Mode::Dml => Delivery::Dml,
            config::Mode::Logdel => Delivery::LogDel,
        },
        deleted_column: entry.deleted_column.clone(),
        copy: entry.copy,
        all_indexes: entry.indexes,
        owner: entry.owner.clone(),
        grants: entry.grants.iter().map(grant).collect(),
        on_conflict: match entry.on_conflict {
            config::OnConflict::Stop => OnConflict::Stop,
            config::OnConflict::Log => OnConflict::Log,
            config::OnConflict::Overwrite => OnConflict::Overwrite,
        },
        insert_only: entry.publish == config::Publish::Insert,
    }
}

fn grant(grant: &config::Grant) -> String {
    let role = grant.role.as_deref().map_or_else(|| "public".to_owned(), crate::model::quote_ident);
    format!("{} to {role}", grant.privileges.join(", "))
}

/// A stream's failure as the command line tells it.
pub(crate) fn flow_failure(error: FlowError, source: &str) -> Failure {
    let exit = match &error {
        FlowError::Refused(_) => Exit::Refused,
        FlowError::Unfinished(_) => Exit::Partly,
        FlowError::NotReached => Exit::Interrupted,
        _ => Exit::Failed,
    };
    let hint = error.hint(source);
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .map_err(|e| Failure::from(anyhow::Error::new(e).context("cannot start the runtime")))?
        .block_on(work)
}
