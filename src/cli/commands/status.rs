//! `status`.

use std::io::IsTerminal as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::repack::repack_failure;
use crate::cli::args::StatusArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, repack_of, streams};
use crate::flow::view::{StreamView, TableView};
use crate::flow::{StreamOptions, status_read};
use crate::repack::view::{self, RepackView};
use crate::service::shutdown::Shutdown;
use crate::service::status_file;

#[derive(Serialize)]
struct Document {
    version: u32,
    streams: Vec<StreamView>,
    repacks: Vec<RepackView>,
}

/// Shows every stream of the configuration, once or every second.
pub fn run(context: &Context, args: &StatusArgs) -> Result<Exit, Failure> {
    block_on(async {
        if !args.watch {
            show(context, false).await?;
            return Ok(Exit::Done);
        }
        let shutdown = Shutdown::listen().map_err(|e| Failure::from(anyhow::Error::new(e)))?;
        let clear = std::io::stdout().is_terminal() && !context.output.json;
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = shutdown.stop.clone();
        let watching = async {
            loop {
                tick.tick().await;
                show(context, clear).await?;
            }
        };
        tokio::select! {
            result = watching => result,
            // Interrupting it is how it ends.
            _ = stop.wait_for(|stop| *stop) => Ok(Exit::Done),
        }
    })
}

async fn show(context: &Context, clear: bool) -> Result<(), Failure> {
    let all = all_streams(context);
    let reads = all.iter().map(|options| {
        let running = status_file::read(&context.streams_folder(), &options.key.source, &options.key.target);
        status_read::read(options, running)
    });
    let streams = join_all(reads).await;
    let (repacks, unread) = all_repacks(context).await;
    // "Nothing" is an answer only of those that could be asked.
    if let Some(failure) = unread.filter(|_| streams.is_empty() && repacks.is_empty()) {
        return Err(failure);
    }
    if context.output.json {
        context.output.document(&Document { version: 1, streams, repacks })?;
        return Ok(());
    }
    let mut text = if clear { "\u{1b}[2J\u{1b}[H".to_owned() } else { String::new() };
    if streams.is_empty() && repacks.is_empty() {
        text.push_str(&format!("{} replicates and repacks nothing yet\n", context.settings.file.display()));
    }
    for stream in &streams {
        text.push_str(&describe(stream));
    }
    for repack in &repacks {
        text.push_str(&describe_repack(repack));
    }
    context.output.text(&text)?;
    Ok(())
}

fn all_streams(context: &Context) -> Vec<StreamOptions> {
    context.settings.connections.values().flat_map(|source| streams(&context.settings, source)).collect()
}

/// Of every connection that answers; the others are told.
async fn all_repacks(context: &Context) -> (Vec<RepackView>, Option<Failure>) {
    let reads = context.settings.connections.values().map(|connection| async move {
        let options = repack_of(connection);
        view::read(&options).await.map_err(|error| {
            tracing::warn!("{}: repacks cannot be read: {error}", connection.name);
            repack_failure(error)
        })
    });
    let (mut repacks, mut unread) = (Vec::new(), None);
    for read in join_all(reads).await {
        match read {
            Ok(views) => repacks.extend(views),
            Err(failure) => unread = unread.or(Some(failure)),
        }
    }
    (repacks, unread)
}

fn describe_repack(repack: &RepackView) -> String {
    let running = if repack.running { "" } else { ", no process works on it" };
    let mut text = format!("{}: repack of {}  {}{running}\n", repack.connection, repack.table, repack.state);
    let eta = repack.eta_seconds.map(|s| format!(", about {s:.0} s left")).unwrap_or_default();
    let unsigned = |bytes: i64| size(u64::try_from(bytes).unwrap_or(0));
    text.push_str(&format!(
        "  {} of about {} rows copied{eta}, {} changes applied, lag {}, WAL kept {}\n",
        repack.rows_copied,
        repack.rows_total,
        repack.changes_replayed,
        unsigned(repack.lag_bytes),
        unsigned(repack.retained)
    ));
    if repack.attempt > 0 {
        let pids: Vec<String> = repack.blocked_by.iter().map(ToString::to_string).collect();
        let by =
            if pids.is_empty() { String::new() } else { format!(", blocked by pid {}", pids.join(", ")) };
        text.push_str(&format!("  swap attempt {}{by}\n", repack.attempt));
    }
    for (label, value) in [("the copy rests", &repack.throttled_by), ("error", &repack.error)] {
        if let Some(value) = value {
            text.push_str(&format!("  {label}: {value}\n"));
        }
    }
    text
}

fn describe(stream: &StreamView) -> String {
    let state = word(&stream.state);
    let process = stream.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let mut text = format!("{} → {}  {state}{process}\n", stream.source, stream.target);
    let applied = stream.changes_applied;
    text.push_str(&match stream.capture.as_str() {
        "trigger" => format!(
            "  queues of {} take {}, {}, {applied} changes applied\n",
            stream.slot,
            size(stream.retained_wal_bytes),
            match stream.lag_seconds {
                ..=0.0 => "nothing waits in them".to_owned(),
                seconds => format!("the oldest change has waited at most {seconds:.1} s"),
            }
        ),
        _ => format!(
            "  slot {} ({}), WAL kept {}, lag {} and {:.1} s, {applied} changes applied\n",
            stream.slot,
            stream.slot_status.as_deref().unwrap_or("not there"),
            size(stream.retained_wal_bytes),
            size(stream.lag_bytes),
            stream.lag_seconds
        ),
    });
    text.push_str(&format!(
        "  received {}, applied {}, confirmed {}\n",
        stream.received_lsn, stream.applied_lsn, stream.confirmed_lsn
    ));
    if let Some(seconds) = stream.seconds_to_slot_loss {
        text.push_str(&format!("  at the present rate the slot is lost in {seconds:.0} s\n"));
    }
    if let Some(error) = &stream.error {
        text.push_str(&format!("  error: {error}\n"));
    }
    text.push_str(&match stream.tables.as_slice() {
        [] => "  no table: none was taken in yet, or all were dropped from the stream\n".to_owned(),
        tables => format!("{}\n", table(tables)),
    });
    text
}

fn table(tables: &[TableView]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_HORIZONTAL_ONLY);
    table.set_header([
        "source table",
        "target table",
        "mode",
        "state",
        "first rows",
        "changes",
        "conflicts",
        "error",
    ]);
    for row in tables {
        let rows = match row.rows_total.max(row.rows_copied) {
            total if row.state == "copying" => format!("{} of about {total}", row.rows_copied),
            _ => row.rows_copied.to_string(),
        };
        table.add_row([
            row.source_table.as_str(),
            &row.target_table,
            &row.mode,
            &row.state,
            &rows,
            &row.changes_applied.to_string(),
            &row.conflicts.to_string(),
            row.error.as_deref().unwrap_or_default(),
        ]);
    }
    table
}

/// A state as JSON writes it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn size(bytes: u64) -> String {
    match bytes {
        ..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} kB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{} MB", bytes >> 20),
        _ => format!("{} GB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::view::StreamState;

    #[test]
    fn an_empty_status_has_the_contracts_keys() {
        let document = Document { version: 1, streams: vec![StreamView::default()], repacks: Vec::new() };
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json["repacks"], serde_json::json!([]));
        assert_eq!(json["streams"][0]["state"], "stopped");
        assert_eq!(json["streams"][0]["applied_lsn"], "0/0");
    }

    #[test]
    fn a_person_reads_state_lag_and_error() {
        let view = StreamView {
            source: "a".into(),
            target: "b".into(),
            state: StreamState::CatchingUp,
            lag_bytes: 20 << 20,
            error: Some("target: connection refused".into()),
            ..StreamView::default()
        };
        let text = describe(&view);
        for part in ["a → b  catching_up", "lag 20 MB", "error: target: connection refused", "no table: "] {
            assert!(text.contains(part), "{text}");
        }
    }
}
