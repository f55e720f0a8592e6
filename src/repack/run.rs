//! The commands on the tables of one connection.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::model::{Events, TableName};
use crate::pg::{self, Session};
use crate::repack::compare::Compared;
use crate::repack::error::RepackError;
use crate::repack::job::Goal;
use crate::repack::options::{RepackOptions, Selection};
use crate::repack::report::{Outcome, TableReport};
use crate::repack::select;
use crate::repack::shadow;
use crate::repack::state::{self, RepackRow, RepackState};
use crate::repack::table_run::{run_table, verify_table};
use crate::repack::watch::THROTTLE;

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
    let chosen = select::select(&session, &options.selection, &options.rules).await?;
    session.close().await?;
    for (table, reason) in &chosen.left_out {
        events.info(format!("{table} is left out: {reason}"));
    }
    let mut reports = Vec::with_capacity(chosen.tables.len());
    for table in chosen.tables {
        if *stop.borrow() {
            break;
        }
        let report = run_table(options, &table.name, goal, events, stop.clone()).await;
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

/// Exchanges what is prepared: by asking the process that applies its changes, or here.
pub async fn swap(
    options: &RepackOptions,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableReport),
) -> Result<Vec<TableReport>, RepackError> {
    let mut reports = Vec::new();
    for row in unfinished(options).await? {
        let ready = row.prepared || row.state >= RepackState::CaughtUp;
        if !ready {
            continue;
        }
        let mut tries = ASK_AGAIN;
        let report = loop {
            if ask_running(options, &row, "swap").await? {
                events.info(format!(
                    "{}: asked the process that applies its changes, which goes by the options it was started with",
                    row.table
                ));
                break follow_swap(options, &row, stop).await?;
            }
            let report = run_table(options, &row.table, Goal::Swap, events, stop.clone()).await;
            tries -= 1;
            // It had lost its connection when it was looked for.
            if !report.other_works || tries == 0 || *stop.borrow() {
                break report;
            }
        };
        told(&report);
        reports.push(report);
    }
    Ok(reports)
}

/// Compares tables with their unfinished copies.
pub async fn verify(
    options: &RepackOptions,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableName, Compared, f64),
) -> Result<u64, RepackError> {
    let mut differences = 0;
    for table in &options.selection.tables {
        let began = Instant::now();
        let compared = Box::pin(verify_table(options, table, events, stop.clone())).await?;
        told(table, compared, began.elapsed().as_secs_f64());
        differences += compared.differences;
    }
    Ok(differences)
}

/// Undoes what is unfinished; a process that works on it is stopped first.
pub async fn abort(
    options: &RepackOptions,
    events: &Events,
    mut told: impl FnMut(&TableReport),
) -> Result<Vec<TableReport>, RepackError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let never = watch::channel(false).1;
    // Of a process that has more tables before it only this one is taken, unless everything is to be undone.
    let Selection { tables, schemas, .. } = &options.selection;
    let request = if tables.is_empty() && schemas.is_empty() { "yield all" } else { "yield" };
    let mut tables: Vec<TableName> = Vec::new();
    for row in unfinished(options).await? {
        if ask_running(options, &row, request).await? {
            let deadline = Instant::now() + LIMIT;
            while is_running(options, &row).await? && Instant::now() < deadline {
                sleep(Duration::from_millis(200)).await;
            }
        }
        tables.push(row.table);
    }
    let session = pg::connect(&options.connect).await?;
    let selection = select::with_partitions(&session, &options.selection).await?;
    session.close().await?;
    for name in &selection.tables {
        if !tables.contains(name) {
            tables.push(name.clone());
        }
    }
    let mut reports = Vec::new();
    for table in &tables {
        let report = run_table(options, table, Goal::Abort, events, never.clone()).await;
        told(&report);
        reports.push(report);
    }
    Ok(reports)
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
    shadow::ensure_schemas(&session).await?;
    Ok(session.close().await?)
}

/// Undoes every unfinished repack and removes our schemas; refused while a stream has its state there.
pub async fn drop_schema(options: &RepackOptions, events: &Events) -> Result<(), RepackError> {
    let everything = RepackOptions { selection: Selection::default(), ..options.clone() };
    let reports = abort(&everything, events, |_| {}).await?;
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

async fn is_running(options: &RepackOptions, row: &RepackRow) -> Result<bool, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let running = state::is_locked(&session, row.table_oid).await?;
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

/// Waits for what the process that was asked makes of it.
async fn follow_swap(
    options: &RepackOptions,
    row: &RepackRow,
    stop: &watch::Receiver<bool>,
) -> Result<TableReport, RepackError> {
    let session = pg::connect(&options.connect).await?;
    let mut report = TableReport::new(&row.table);
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
                report.reason =
                    Some("it failed and was undone; the process that worked on it has told why".to_owned());
            }
            _ if *stop.borrow() => report.reason = Some("interrupted; the other process goes on".to_owned()),
            _ if !running => {
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
