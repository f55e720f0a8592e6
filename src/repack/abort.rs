//! `abort`: undoes what is unfinished. A process that works on a table is asked to let go of it first; one that does not react is ended.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::model::{Events, TableName};
use crate::pg;
use crate::repack::error::RepackError;
use crate::repack::job::Goal;
use crate::repack::options::{RepackOptions, Selection};
use crate::repack::report::TableReport;
use crate::repack::run::unfinished;
use crate::repack::select;
use crate::repack::shadow::relation_oid;
use crate::repack::state::{self, RepackRow, RepackState};
use crate::repack::table_run::run_table;

/// How long a process has to hear the request; it looks twice a second, but not under its locks.
const HEARS: Duration = Duration::from_secs(10);
/// How long one that has heard it, or has swapped and cleans up, has to end.
const ENDS: Duration = Duration::from_secs(60);
/// How long its session has to end once the server was told to.
const GONE: Duration = Duration::from_secs(10);
/// How often a process is looked for that has the table again when it could be taken over.
const TRIES: u32 = 3;
/// A wait is spoken of when it is longer than this.
const SILENT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Undoes what is unfinished; a process that works on it is stopped first. `stop` ends the wait for that process.
pub async fn abort(
    options: &RepackOptions,
    events: &Events,
    stop: &watch::Receiver<bool>,
    mut told: impl FnMut(&TableReport),
) -> Result<Vec<TableReport>, RepackError> {
    // Of a process that has more tables before it only this one is taken, unless everything is to be undone.
    let Selection { tables, schemas, .. } = &options.selection;
    let request = if tables.is_empty() && schemas.is_empty() { "yield all" } else { "yield" };
    let mut tables: Vec<(TableName, Option<RepackRow>)> = Vec::new();
    for row in unfinished(options).await? {
        tables.push((row.table.clone(), Some(row)));
    }
    let session = pg::connect(&options.connect).await?;
    let selection = select::with_partitions(&session, &options.selection).await?;
    let known = state::exists(&session).await?;
    for name in &selection.tables {
        if tables.iter().any(|(table, _)| table == name) {
            continue;
        }
        // It may have had another name when its repack began.
        let row = match relation_oid(&session, name).await? {
            Some(oid) if known => state::read_begun(&session, oid).await?,
            _ => None,
        };
        tables.push((name.clone(), row));
    }
    session.close().await?;
    let mut reports = Vec::new();
    for (table, row) in &tables {
        let mut tries = TRIES;
        let report = loop {
            let waited = match row {
                Some(row) => let_go(options, row, request, events, stop).await,
                None => Ok(()),
            };
            let report = match waited {
                Ok(()) => run_table(options, table, Goal::Abort, events, stop.clone()).await,
                Err(error) => TableReport::failed(table, &error),
            };
            tries -= 1;
            // It had lost its connection when it was looked for.
            if !report.other_works || tries == 0 {
                break report;
            }
        };
        told(&report);
        let interrupted = report.interrupted;
        reports.push(report);
        if interrupted {
            break;
        }
    }
    Ok(reports)
}

/// Waits until no process works on the table.
async fn let_go(
    options: &RepackOptions,
    row: &RepackRow,
    request: &str,
    events: &Events,
    stop: &watch::Receiver<bool>,
) -> Result<(), RepackError> {
    let (table, oid) = (&row.table, row.table_oid);
    let session = pg::connect(&options.connect).await?;
    let began = Instant::now();
    let (mut asked, mut told, mut ended): (bool, bool, Option<Instant>) = (false, false, None);
    while let Some((pid, who)) = state::holder(&session, oid).await? {
        if !asked {
            state::set_request(&session, oid, Some(request)).await?;
            asked = true;
        }
        if *stop.borrow() {
            // Else it would be heard when nobody undoes anything any more.
            state::set_request(&session, oid, None).await?;
            return Err(RepackError::Stopped);
        }
        let waited = began.elapsed();
        if !told && waited > SILENT {
            events.info(format!("{table}: waiting for the process that works on it ({who})"));
            told = true;
        }
        let heard = state::read_request(&session, oid).await?.is_none();
        let cleaning = state::read(&session, oid).await?.is_some_and(|row| row.state == RepackState::Swapped);
        let limit = if heard || cleaning { ENDS } else { HEARS };
        match ended {
            Some(at) if at.elapsed() > GONE => {
                return Err(RepackError::Running { table: table.clone() });
            }
            None if waited > limit => {
                events.warning(format!(
                    "{table}: the process that works on it has not reacted for {} s; its session is ended ({who})",
                    limit.as_secs()
                ));
                state::end_holder(&session, oid, pid).await?;
                ended = Some(Instant::now());
            }
            _ => {}
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(session.close().await?)
}
