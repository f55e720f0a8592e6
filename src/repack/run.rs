//! The commands on the tables of one connection.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::model::{Events, TableName};
use crate::pg::{self, Session};
pub use crate::repack::abort::abort;
use crate::repack::compare::Compared;
use crate::repack::error::RepackError;
use crate::repack::job::Goal;
use crate::repack::options::{RepackOptions, Selection};
use crate::repack::preflight;
use crate::repack::report::{Outcome, TableReport};
use crate::repack::select;
use crate::repack::shadow;
use crate::repack::state::{self, RepackRow, RepackState};
use crate::repack::table_run::{run_table, verify_table};
use crate::repack::watch::{THROTTLE, unless_stopped};

/// Rebuilds the selected tables, most bloat first, or prepares them. One that fails does not stop the rest. `told` hears of
/// each as it is done.
///
/// # Errors
/// The selection could not be made. What goes wrong with a table is in its report.
pub async fn repack(
    options: &RepackOptions,
    goal: Goal,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableReport),
) -> Result<Vec<TableReport>, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let choosing = select::select(&session, &options.selection, &options.rules);
    let chosen = unless_stopped(session.canceller(), stop, async { Ok(choosing.await?) }).await?;
    let begun = if chosen.missing.is_empty() { Vec::new() } else { all_unfinished(&session).await? };
    session.close().await?;
    for (table, reason) in &chosen.left_out {
        events.info(format!("{table} is left out: {reason}"));
    }
    let mut reports = Vec::with_capacity(chosen.tables.len());
    let mut tables = Vec::with_capacity(chosen.tables.len());
    for missing in chosen.missing {
        // One that was renamed or dropped since its repack began has something to be removed.
        match begun.iter().find(|row| row.table.to_string() == missing.asked) {
            Some(row) => tables.push(row.table.clone()),
            None => {
                let report = TableReport::refused(missing.asked, missing.reason);
                told(&report);
                reports.push(report);
            }
        }
    }
    tables.extend(chosen.tables.into_iter().map(|table| table.name));
    for table in &tables {
        if *stop.borrow() {
            break;
        }
        let report = run_table(options, table, goal, events, stop.clone()).await;
        told(&report);
        let ends = report.ends_run;
        reports.push(report);
        if ends {
            break;
        }
    }
    Ok(reports)
}

/// How often a process that applies changes is looked for that has the table each time it could be taken over.
const ASK_AGAIN: u32 = 3;

/// Exchanges what is prepared: by asking the process that applies its changes, or here. A table that was named for this run and is
/// not prepared has its report too.
pub async fn swap(
    options: &RepackOptions,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableReport),
) -> Result<Vec<TableReport>, RepackError> {
    let rows = unfinished(options).await?;
    let session = pg::connect(&options.connect).await?;
    let selection = select::with_partitions(&session, &options.selection).await?;
    session.close().await?;
    let named = if selection.typed { selection.tables } else { Vec::new() };
    let is_ready = |row: &&RepackRow| row.prepared || row.state >= RepackState::CaughtUp;
    let mut reports = Vec::new();
    let mut add = |report: TableReport| {
        told(&report);
        reports.push(report);
    };
    for row in rows.iter().filter(is_ready) {
        add(swap_one(options, row, events, stop).await?);
    }
    for table in named.iter().filter(|table| !rows.iter().filter(is_ready).any(|row| row.table == **table)) {
        add(run_table(options, table, Goal::Swap, events, stop.clone()).await);
    }
    Ok(reports)
}

async fn swap_one(
    options: &RepackOptions,
    row: &RepackRow,
    events: &Events,
    stop: &watch::Receiver<bool>,
) -> Result<TableReport, RepackError> {
    let mut tries = ASK_AGAIN;
    loop {
        if ask_running(options, row, "swap").await? {
            events.info(format!(
                "{}: asked the process that applies its changes, which goes by the options it was started with",
                row.table
            ));
            return follow_swap(options, row, stop).await;
        }
        let report = run_table(options, &row.table, Goal::Swap, events, stop.clone()).await;
        tries -= 1;
        // It had lost its connection when it was looked for.
        if !report.other_works || tries == 0 || *stop.borrow() {
            return Ok(report);
        }
    }
}

/// Compares tables with their unfinished copies, of a partitioned table each partition; `told` hears how each ended.
///
/// # Errors
/// The tables could not be looked up.
pub async fn verify(
    options: &RepackOptions,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableName, Result<Compared, RepackError>, f64),
) -> Result<(), RepackError> {
    let session = pg::connect(&options.connect).await?;
    let selection = select::with_partitions(&session, &options.selection).await?;
    session.close().await?;
    for table in &selection.tables {
        let began = Instant::now();
        let compared = Box::pin(verify_table(options, table, events, stop.clone())).await;
        let ends = matches!(compared, Err(RepackError::Stopped));
        told(table, compared, began.elapsed().as_secs_f64());
        if ends {
            break;
        }
    }
    Ok(())
}

/// The request that limits the WAL rate of a running copy, in bytes a second; `None`: no limit.
pub fn throttle_request(limit: Option<u64>) -> String {
    let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
    format!("{THROTTLE} {limit}")
}

/// Asks the processes that repack tables of this connection to pause, go on, stop or slow down; returns the tables whose process was
/// asked.
pub async fn control(options: &RepackOptions, request: &str) -> Result<Vec<TableName>, RepackError> {
    let mut asked = Vec::new();
    for row in unfinished(options).await? {
        if ask_running(options, &row, request).await? {
            asked.push(row.table);
        }
    }
    Ok(asked)
}

/// Makes schemas and state tables.
pub async fn create_schema(options: &RepackOptions) -> Result<(), RepackError> {
    let session = pg::connect(&options.connect).await?;
    // Says whose schema it is where our role may not even look into it.
    state::exists(&session).await?;
    if let Err(error) = shadow::ensure_schemas(&session).await {
        let findings = preflight::check_rights(&session).await.unwrap_or_default();
        let reasons: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(if reasons.is_empty() { error } else { RepackError::Refused(reasons) });
    }
    Ok(session.close().await?)
}

/// Undoes every unfinished repack and removes our schemas; refused while a stream has its state there.
pub async fn drop_schema(options: &RepackOptions, events: &Events) -> Result<(), RepackError> {
    let everything = RepackOptions { selection: Selection::default(), ..options.clone() };
    let never = watch::channel(false).1;
    let reports = abort(&everything, events, &never, |_| {}).await?;
    let failed: Vec<String> = reports
        .iter()
        .filter(|r| r.outcome != Outcome::Aborted && r.outcome != Outcome::Swapped)
        .map(|r| format!("{} could not be undone: {}", r.table, r.reason.as_deref().unwrap_or_default()))
        .collect();
    if !failed.is_empty() {
        return Err(RepackError::NotUndone(failed));
    }
    let session = pg::connect(&options.connect).await?;
    shadow::drop_schemas(&session).await?;
    Ok(session.close().await?)
}

/// Unfinished repacks that the selection speaks of; without tables and schemas: all.
pub async fn unfinished(options: &RepackOptions) -> Result<Vec<RepackRow>, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let rows = if state::exists(&session).await? { state::read_all(&session).await? } else { Vec::new() };
    let selection = select::with_partitions(&session, &options.selection).await?;
    session.close().await?;
    let Selection { tables, schemas, .. } = &selection;
    let all = tables.is_empty() && schemas.is_empty();
    let wanted = |row: &RepackRow| {
        row.is_unfinished() && (all || tables.contains(&row.table) || schemas.contains(&row.table.schema))
    };
    Ok(rows.into_iter().filter(wanted).collect())
}

/// All unfinished repacks; none where our role may not see them, which pre-flight says.
async fn all_unfinished(session: &Session) -> Result<Vec<RepackRow>, RepackError> {
    let there = match state::exists(session).await {
        Err(RepackError::Refused(_)) => false,
        there => there?,
    };
    let mut rows = if there { state::read_all(session).await? } else { Vec::new() };
    rows.retain(RepackRow::is_unfinished);
    Ok(rows)
}

async fn is_running(options: &RepackOptions, row: &RepackRow) -> Result<bool, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let running = state::holder(&session, row.table_oid).await?.is_some();
    session.close().await?;
    Ok(running)
}

/// True when a process works on the table and was asked.
async fn ask_running(options: &RepackOptions, row: &RepackRow, request: &str) -> Result<bool, RepackError> {
    if !is_running(options, row).await? {
        return Ok(false);
    }
    let session: Session = pg::connect(&options.connect).await?;
    let asked = state::set_request(&session, row.table_oid, Some(request)).await?;
    session.close().await?;
    Ok(asked)
}

/// How long a process that has ended may take to say why.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Waits for what the process that was asked makes of it.
async fn follow_swap(
    options: &RepackOptions,
    row: &RepackRow,
    stop: &watch::Receiver<bool>,
) -> Result<TableReport, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let mut report = TableReport::new(&row.table);
    let mut ended: Option<Instant> = None;
    loop {
        // Looked at before the state is read: what a process that has ended left is its last word.
        let running = is_running(options, row).await?;
        let now = state::read(&session, row.table_oid).await?;
        let Some(now) = now else { break };
        report.rows_copied = now.rows_copied;
        report.changes_replayed = u64::try_from(now.changes).unwrap_or(0);
        (report.bytes_before, report.bytes_after, report.lock_ms) =
            (now.bytes_before, now.bytes_after, now.lock_ms);
        report.swap_attempts = u32::try_from(now.attempt).unwrap_or(0).max(1);
        match now.state {
            RepackState::Cleaned => report.outcome = Outcome::Swapped,
            RepackState::Abandoned => {
                report.outcome = Outcome::Aborted;
                let why = "it was undone; the process that worked on it, or `repcloud abort`, has told why";
                report.reason = Some(why.to_owned());
            }
            _ if *stop.borrow() => {
                report.interrupted = true;
                report.reason = Some("interrupted; the other process goes on".to_owned());
            }
            // It writes down why it ended, or undoes it, on another session than the one that was seen.
            _ if !running
                && (now.error.is_some() || ended.get_or_insert_with(Instant::now).elapsed() > LAST_WORD) =>
            {
                report.reason =
                    Some(now.error.unwrap_or_else(|| "the process that worked on it has ended".to_owned()));
            }
            _ => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        }
        break;
    }
    session.close().await?;
    Ok(report)
}
