//! The long steps between the shadow and the swap. Each can be cut off at any moment.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalog::read_table;
use crate::model::{TableName, quote_ident};
use crate::pg::{self, Session};
use crate::repack::catch_up::{FollowSpec, Following};
use crate::repack::cleanup;
use crate::repack::compare::{self, CompareSpec, Compared, Extent};
use crate::repack::converge::{Convergence, Look};
use crate::repack::error::{RepackError, doing};
use crate::repack::indexes;
use crate::repack::lanes::{self, Decision};
use crate::repack::long_work::LongWork;
use crate::repack::options::{Selection, VerifyLevel};
use crate::repack::preflight;
use crate::repack::preflight::finding::Severity;
use crate::repack::rows::{self, RowsSpec};
use crate::repack::runner::Job;
use crate::repack::select;
use crate::repack::shadow;
use crate::repack::state::{self, RepackState};
use crate::repack::watch::Watch;

/// Everything that can be known before anything is written.
pub(crate) async fn preflight(job: &Job<'_>) -> Result<(), RepackError> {
    let definition = job.definition()?;
    let alone = Selection { tables: vec![job.table.clone()], ..Selection::default() };
    let chosen = select::select(&job.session, &alone, &job.options.rules).await?;
    let facts = chosen.tables.first().ok_or_else(|| RepackError::Missing { table: job.table.clone() })?;
    let findings = preflight::check(&job.session, job.options, facts).await?;
    let mut refused: Vec<String> = definition.inventory.refusals().iter().map(ToString::to_string).collect();
    for finding in findings {
        if finding.severity == Severity::Refuse {
            refused.push(finding.to_string());
        } else {
            job.events.warning(format!("{}: {finding}", job.table));
        }
    }
    if let Some(identity) = definition.plan.key.identity.as_ref().filter(|_| refused.is_empty()) {
        refused.push(format!(
            "table {}: its replica identity does not name the rows of a change; run: {}",
            job.table, identity.set
        ));
    }
    if refused.is_empty() { Ok(()) } else { Err(RepackError::Refused(refused)) }
}

/// Rows of the snapshot.
pub(crate) async fn copy_rows(job: &mut Job<'_>) -> Result<(), RepackError> {
    let began = Instant::now();
    let definition = job.definition()?;
    let settings = job.options.table_settings(job.table);
    let columns = &definition.plan.copy_columns;
    let spec = RowsSpec {
        table: job.table.clone(),
        shadow: job.shadow_name(),
        columns: columns.iter().map(|c| quote_ident(c)).collect(),
        expressions: columns
            .iter()
            .map(|c| match cleanup::rewrite(&definition.source, &settings, c) {
                Some(rewrite) => rewrite.replace("{}", &quote_ident(c)),
                None => quote_ident(c),
            })
            .collect(),
        order_by: job.rebuild.order_by.clone(),
        estimated_rows: definition.source.estimated_rows.into(),
    };
    if job.following.is_none() {
        job.following = Some(follow(job).await?);
    }
    let definition = job.definition()?;
    let Some(snapshot) = &job.snapshot else {
        return Err(RepackError::Internal("a copy without a snapshot".to_owned()));
    };
    job.events.info(format!("{}: copying {}", job.table, how_many(definition.source.estimated_rows.into())));
    let shown = job.shown;
    let copy = rows::copy(
        &job.options.connect,
        snapshot,
        &spec,
        job.options.run.jobs,
        &job.options.settings.throttle,
        job.events,
        shown,
    );
    let watch = control(job).await?;
    let mut following = job.following.take();
    let rows = Box::pin(watch.over(beside(&mut following, copy))).await;
    job.following = following;
    let rows = rows?;
    if let Some(snapshot) = job.snapshot.take() {
        // Vacuum may clean up behind it again.
        snapshot.release().await?;
    }
    state::set_progress(&job.session, job.oid, rows, began.elapsed().as_secs_f64(), None).await?;
    // This commit waits for the disk and so covers those of the copy, which did not.
    state::set_rows_copied(&job.session, job.oid).await?;
    job.report.rows_copied = rows;
    job.report.copy_seconds = began.elapsed().as_secs_f64();
    Ok(())
}

/// As the server estimates; a negative number is none.
fn how_many(estimated: f64) -> String {
    if estimated < 0.0 {
        return "its rows; how many is not known before the first ANALYZE".to_owned();
    }
    format!("about {estimated:.0} rows")
}

/// Indexes, and everything else that needs no lock on the table.
pub(crate) async fn build_indexes(job: &mut Job<'_>) -> Result<(), RepackError> {
    let began = Instant::now();
    let watch = control(job).await?;
    let mut following = job.following.take();
    let settings = &job.options.settings;
    let plan = &job.definition()?.plan;
    let long = LongWork::default();
    let work = async {
        let workers = settings.index_workers.unwrap_or(job.options.run.jobs);
        let memory = settings.maintenance_work_mem.as_deref();
        indexes::build(&job.options.connect, &job.session, &plan.indexes, workers, memory, &long).await?;
        finish_shadow(job).await
    };
    let built = Box::pin(watch.over(beside(&mut following, work))).await;
    job.following = following;
    if built.is_err() {
        long.cancel().await;
    }
    built?;
    job.report.index_seconds = began.elapsed().as_secs_f64();
    Ok(())
}

/// In one transaction with the state that says so.
async fn finish_shadow(job: &Job<'_>) -> Result<(), RepackError> {
    let plan = &job.definition()?.plan;
    let session = pg::connect(&job.options.connect).await?;
    let begin = "BEGIN; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '10s'; SET LOCAL synchronous_commit = on";
    session.batch_execute(begin).await?;
    for statement in &plan.finish {
        session
            .batch_execute(statement)
            .await
            .map_err(doing(format!("`{statement}` on the shadow of {}", job.table)))?;
    }
    state::set_state(&session, job.oid, RepackState::IndexesBuilt).await?;
    session.batch_execute("COMMIT").await.map_err(doing("committing the finished shadow"))?;
    session.close().await?;
    Ok(())
}

/// Sets the visibility map, and the statistics unless they are not wanted: an index-only scan would be slow right after the
/// swap, a plan without statistics bad.
async fn vacuum(job: &Job<'_>, long: &LongWork) -> Result<(), RepackError> {
    let vacuum = if job.options.settings.analyze_tables { "VACUUM (ANALYZE)" } else { "VACUUM" };
    let session = long.session(&job.options.connect).await?;
    let sql = format!("{vacuum} {}", job.shadow_name());
    session.batch_execute(&sql).await.map_err(doing("vacuuming the shadow"))?;
    session.close().await?;
    Ok(())
}

/// A distance in time below which the rest is left to the cut-over.
fn near(max_lock: Duration) -> Duration {
    (max_lock / 4).min(Duration::from_millis(500))
}

/// Applies changes until few are left.
pub(crate) async fn catch_up(job: &mut Job<'_>, state_now: Option<RepackState>) -> Result<(), RepackError> {
    let began = Instant::now();
    if job.following.is_none() {
        job.following = Some(follow(job).await?);
    }
    let mut following = job.following.take();
    let long = LongWork::default();
    let vacuumed = match &following {
        Some(now) if !now.is_open() && state_now == Some(RepackState::IndexesBuilt) => {
            let watch = control(job).await?;
            Box::pin(watch.over(beside(&mut following, vacuum(job, &long)))).await
        }
        _ => Ok(()),
    };
    job.following = following;
    if vacuumed.is_err() {
        long.cancel().await;
    }
    vacuumed?;
    if let Some(following) = &job.following {
        following.open();
    }
    converge(job).await?;
    if state_now.is_some_and(|state| state < RepackState::CaughtUp) {
        state::set_state(&job.session, job.oid, RepackState::CaughtUp).await?;
        job.report.catch_up_seconds = began.elapsed().as_secs_f64();
    }
    job.report.changes_replayed = shadow::replayed(&job.session, &job.slot).await?;
    Ok(())
}

/// Does `work` while changes are read; ends with them.
pub(crate) async fn beside<T>(
    following: &mut Option<Following>,
    work: impl Future<Output = Result<T, RepackError>>,
) -> Result<T, RepackError> {
    let Some(following) = following else { return work.await };
    tokio::select! {
        biased;
        error = following.ended() => Err(error),
        result = work => result,
    }
}

async fn follow(job: &Job<'_>) -> Result<Following, RepackError> {
    let definition = job.definition()?;
    let shadow = read_table(&job.session, &job.shadow_name())
        .await?
        .ok_or_else(|| RepackError::Internal(format!("{} has gone", job.shadow_name())))?;
    let settings = job.options.table_settings(job.table);
    let rewrites = definition
        .plan
        .copy_columns
        .iter()
        .filter_map(|c| Some((c.clone(), cleanup::rewrite(&definition.source, &settings, c)?)))
        .collect();
    let key = definition.plan.key_columns();
    let decision = lanes::decide(&lanes::read(&job.session, job.oid, key).await?, job.options.run.jobs);
    let spec = FollowSpec {
        connect: &job.options.connect,
        slot: &job.slot,
        queue: job.queue,
        source: &definition.source,
        shadow: &shadow,
        key,
        rewrites,
        max_changes: usize::try_from(job.options.settings.max_replay_rows).unwrap_or(usize::MAX),
        lanes: decision.lanes,
        allow_lossy_numbers: job.options.settings.capture.allow_lossy_numbers,
    };
    let following = Following::start(&job.session, &spec).await?;
    job.events.info(format!("{}: {}", job.table, who_applies(following.lanes(), &decision)));
    Ok(following)
}

/// How many sessions apply changes, and why not as many as `--jobs` asks for.
fn who_applies(lanes: usize, decision: &Decision) -> String {
    let now = if lanes == 1 {
        "one session applies changes".to_owned()
    } else {
        format!("{lanes} sessions apply changes")
    };
    match &decision.reason {
        _ if lanes != decision.lanes => format!(
            "{now}, as before: another number ({}) takes over in a later run, when all have come equally far",
            decision.lanes
        ),
        Some(reason) => format!("{now}: {reason}"),
        None => now,
    }
}

/// Waits until a mark set now arrives soon; says how it goes every `check_time`.
pub(crate) async fn converge(job: &mut Job<'_>) -> Result<(), RepackError> {
    let check_time = job.options.settings.check_time.max(Duration::from_millis(100));
    let soon = near(job.options.run.max_lock);
    let watch = control(job).await?;
    let Some(mut following) = job.following.take() else {
        return Err(RepackError::Internal("nobody applies changes".to_owned()));
    };
    let table = job.table;
    let events = job.events;
    let result = watch
        .over(async {
            let mut convergence = Convergence::new(following.reads_queue());
            loop {
                let began = Instant::now();
                let mark = following.mark().await?;
                let before = following.left(mark).await?;
                if following.reached(mark, began + check_time).await? {
                    if began.elapsed() <= soon {
                        return Ok(());
                    }
                    continue;
                }
                let rest = following.left(mark).await?;
                let now = following.left(following.mark().await?).await?;
                let look = Look { before, rest, now, span: began.elapsed() };
                events.info(format!("{table}: {}", convergence.forecast(&look)));
                if convergence.gives_up(&look) {
                    return Err(RepackError::NotConverging {
                        table: table.clone(),
                        seconds: convergence.seconds_without_gain(),
                        behind: convergence.smallest(),
                    });
                }
            }
        })
        .await;
    drop(watch);
    job.following = Some(following);
    job.shown.caught_up.fetch_or(result.is_ok(), Ordering::Relaxed);
    result
}

/// The watch, without borrowing the whole job.
pub(crate) async fn control<'w>(job: &Job<'w>) -> Result<Watch<'w>, RepackError> {
    let session = pg::connect(&job.options.connect).await?;
    Ok(Watch {
        session,
        table: job.table,
        oid: job.oid,
        slot: job.slot.clone(),
        max_retained_wal: job.options.settings.max_retained_wal,
        stop: job.stop.clone(),
        shown: job.shown,
    })
}

/// Compares the table and its shadow.
pub(crate) async fn verify(job: &mut Job<'_>) -> Result<(), RepackError> {
    let extent = match job.options.run.verify {
        VerifyLevel::Off => None,
        VerifyLevel::Sample => Some(Extent::Sample),
        VerifyLevel::Full => Some(Extent::All),
    };
    if let Some(extent) = extent {
        let compared = compare_now(job, extent).await?;
        if let Some(Compared { differences: differences @ 1.., .. }) = compared {
            return Err(RepackError::Differs { table: job.table.clone(), differences });
        }
        // Also where there is no key to compare by.
        job.shown.compared.fetch_or(extent == Extent::All, Ordering::Relaxed);
    }
    state::set_state(&job.session, job.oid, RepackState::Verified).await
}

/// For `verify`: applies what has come since, then compares all rows.
pub(crate) async fn compare_caught_up(
    job: &mut Job<'_>,
    state_now: Option<RepackState>,
) -> Result<Compared, RepackError> {
    catch_up(job, state_now).await?;
    let table = job.table;
    compare_now(job, Extent::All).await?.ok_or_else(|| {
        RepackError::Refused(vec![format!("{table} has no key by which rows could be compared")])
    })
}

/// `None`: there is no key to compare by.
async fn compare_now(job: &mut Job<'_>, extent: Extent) -> Result<Option<Compared>, RepackError> {
    let definition = job.definition()?;
    if definition.plan.key_columns().is_empty() {
        job.events.info(format!("{}: rows without a key are not compared", job.table));
        return Ok(None);
    }
    let settings = job.options.table_settings(job.table);
    let spec = CompareSpec {
        table: job.table.clone(),
        shadow: job.shadow_name(),
        key: definition.plan.key_columns().to_vec(),
        columns: definition
            .plan
            .copy_columns
            .iter()
            .map(|c| {
                let value = format!("s.{}", quote_ident(c));
                let rewrite = cleanup::rewrite(&definition.source, &settings, c);
                (c.clone(), rewrite.map_or(value.clone(), |r| r.replace("{}", &value)))
            })
            .collect(),
    };
    let watch = control(job).await?;
    let Some(mut following) = job.following.take() else {
        return Err(RepackError::Internal("nobody applies changes".to_owned()));
    };
    let session = pg::connect(&job.options.connect).await?;
    let result = watch.over(compare_beside(&session, &spec, extent, &mut following)).await;
    drop(watch);
    job.following = Some(following);
    let compared = result?;
    job.events.info(format!(
        "{}: {} rows compared, {} differences",
        job.table, compared.rows, compared.differences
    ));
    note_differences(job, extent, compared).await?;
    Ok(Some(compared))
}

/// Whoever is asked for the exchange later has to know of them, whatever becomes of this process. That a sample finds none proves nothing.
async fn note_differences(job: &Job<'_>, extent: Extent, compared: Compared) -> Result<(), RepackError> {
    let differences = compared.differences;
    if differences == 0 && extent == Extent::Sample {
        return Ok(());
    }
    let told = (differences > 0).then(|| format!("{differences} rows of the copy differ from the original"));
    state::set_differences(&job.session, job.oid, differences, told.as_deref()).await
}

/// How long one wait for the changes on their way may take while rows are compared.
const APPLIED_LIMIT: Duration = Duration::from_secs(120);

async fn compare_beside(
    session: &Session,
    spec: &CompareSpec,
    extent: Extent,
    following: &mut Following,
) -> Result<Compared, RepackError> {
    let waiter = following.waiter();
    let marker = following.marker();
    let applied = || {
        let (waiter, marker) = (waiter.clone(), marker.clone());
        async move {
            let mark = marker.mark().await?;
            if waiter.reached(mark, APPLIED_LIMIT).await {
                return Ok(());
            }
            Err(RepackError::TimedOut {
                what: "applying the changes on their way".to_owned(),
                seconds: APPLIED_LIMIT.as_secs(),
            })
        }
    };
    tokio::select! {
        biased;
        error = following.ended() => Err(error),
        result = compare::compare(session, spec, extent, applied) => result,
    }
}

/// Bytes of heap, TOAST and indexes.
pub(crate) async fn size(session: &Session, table: &TableName) -> Result<i64, RepackError> {
    let sql = "SELECT pg_catalog.pg_total_relation_size($1::text::pg_catalog.regclass)";
    Ok(session.query_one(sql, &[&table.to_string()]).await?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_never_analyzed_has_no_number_of_rows() {
        assert_eq!(how_many(0.0), "about 0 rows");
        assert_eq!(how_many(6000.4), "about 6000 rows");
        assert!(how_many(-1.0).contains("not known"), "{}", how_many(-1.0));
    }

    #[test]
    fn another_number_of_sessions_that_has_to_wait_is_said() {
        let decision = |lanes, reason: Option<&str>| Decision { lanes, reason: reason.map(str::to_owned) };
        assert_eq!(who_applies(1, &decision(1, None)), "one session applies changes");
        assert_eq!(who_applies(1, &decision(1, Some("no key"))), "one session applies changes: no key");
        assert_eq!(who_applies(2, &decision(2, None)), "2 sessions apply changes");
        let waits = who_applies(2, &decision(4, None));
        assert!(waits.starts_with("2 sessions apply changes, as before") && waits.contains("(4)"), "{waits}");
    }
}
