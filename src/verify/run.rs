//! The two comparisons: row by row, and of numbers of rows.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::catalog::table_def::TableDef;
use crate::model::Lsn;
use crate::pg::Session;
use crate::verify::error::{Place, VerifyError};
use crate::verify::judge::{CountLook, CountVerdict, judge_counts};
use crate::verify::layout::{self, Walk};
use crate::verify::recheck::{LONGEST_PAUSE, Work};
use crate::verify::side::{Server, Side};
use crate::verify::spec::{Progress, VerifyOptions, VerifyOutcome, VerifySpec};
use crate::verify::sql::{Hash, SideSql};
use crate::verify::{hashed, ordered};

/// Compares two tables row by row, while a stream may be running between them.
///
/// Both sessions serve this comparison alone while it runs; their settings (`row_security`, `jit`, read-only transactions
/// and the like) stay changed. `wait_applied` returns once everything that was committed on the source before the position
/// it is given is visible on the target; where no stream runs, it returns at once. The text of its error says why it
/// cannot wait, without row values; its time is limited by [`VerifyOptions::wait_limit`].
///
/// # Errors
/// A table or column is missing, a server or a wait failed or took too long. Differences are no error.
pub async fn verify<'a, W, F>(
    source: &'a Session,
    target: &'a Session,
    spec: &VerifySpec,
    options: &VerifyOptions,
    wait_applied: W,
    progress: impl FnMut(Progress) + Send + 'a,
) -> Result<VerifyOutcome, VerifyError>
where
    W: FnMut(Lsn) -> F + Send + 'a,
    F: Future<Output = Result<(), String>> + Send + 'a,
{
    let started = Instant::now();
    let (mut work, walk) = prepare(source, target, spec, options, wait_applied, progress).await?;
    match walk {
        Walk::Ordered => ordered::walk(&mut work).await?,
        Walk::HashedKey | Walk::HashedRow => hashed::walk(&mut work).await?,
    }
    work.finish().await?;
    if !work.pending.is_empty() {
        work.outcome.complete = false;
    }
    work.report();
    work.outcome.seconds = started.elapsed().as_secs_f64();
    Ok(work.outcome)
}

/// Compares numbers of rows only, with the same protocol: a target that has as many rows as the source had at some moment
/// of the look is equal. `missing` or `extra` is the difference.
///
/// # Errors
/// As [`verify`].
pub async fn count<'a, W, F>(
    source: &'a Session,
    target: &'a Session,
    spec: &VerifySpec,
    options: &VerifyOptions,
    wait_applied: W,
    progress: impl FnMut(Progress) + Send + 'a,
) -> Result<VerifyOutcome, VerifyError>
where
    W: FnMut(Lsn) -> F + Send + 'a,
    F: Future<Output = Result<(), String>> + Send + 'a,
{
    let started = Instant::now();
    let (mut work, _) = prepare(source, target, spec, options, wait_applied, progress).await?;
    let attempts = options.attempts.max(2);
    let mut looks = Vec::new();
    let mut pause = options.back_off;
    for attempt in 1..=attempts {
        let before = work.source.count().await?;
        work.pass().await?;
        let target = work.target.count().await?;
        let after = work.source.count().await?;
        work.outcome.rows = after.rows;
        looks.push(CountLook { before, target, after });
        match judge_counts(&looks, attempt < attempts) {
            CountVerdict::Equal => break,
            CountVerdict::Differs(kind, rows) => {
                work.outcome.count(kind, rows);
                break;
            }
            CountVerdict::Unsettled => work.outcome.unsettled = 1,
            CountVerdict::Again if attempt > 1 => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            CountVerdict::Again => {}
        }
        work.report();
    }
    work.report();
    work.outcome.seconds = started.elapsed().as_secs_f64();
    Ok(work.outcome)
}

async fn prepare<'a, W, F>(
    source: &'a Session,
    target: &'a Session,
    spec: &VerifySpec,
    options: &VerifyOptions,
    mut wait_applied: W,
    progress: impl FnMut(Progress) + Send + 'a,
) -> Result<(Work<'a>, Walk), VerifyError>
where
    W: FnMut(Lsn) -> F + Send + 'a,
    F: Future<Output = Result<(), String>> + Send + 'a,
{
    let limit = options.statement_limit;
    let source = Server::new(Place::Source, &spec.source, source, limit).await?;
    let target = Server::new(Place::Target, &spec.target, target, limit).await?;
    let (ours, theirs) = (source.definition().await?, target.definition().await?);
    let same_encoding = source.encoding().await? == target.encoding().await?;
    let layout = layout::plan(spec, &ours, &theirs, same_encoding)?;
    let hash = match (source.hash().await?, target.hash().await?) {
        (Hash::Md5, Hash::Md5) => Hash::Md5,
        _ => Hash::Sha256,
    };
    let live = spec.deleted_column.as_deref().map(|column| layout::is_null(&theirs, column));
    let source_sql = SideSql::new(&layout, &ours, spec.condition.as_deref(), hash);
    let target_sql = SideSql::new(&layout, &theirs, live.as_deref(), hash);
    let work = Work {
        source: Side::new(source, source_sql, options.scan_limit),
        target: Side::new(target, target_sql, options.scan_limit),
        options: options.clone(),
        keyed: !layout.key.is_empty(),
        estimated_rows: estimate(&ours),
        outcome: VerifyOutcome::new(),
        wait: Box::new(move |lsn| Box::pin(wait_applied(lsn))),
        progress: Box::new(progress),
        pending: VecDeque::new(),
    };
    Ok((work, layout.walk))
}

/// The planner's estimate, `None` when the table was never analysed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate; `as` saturates")]
fn estimate(table: &TableDef) -> Option<u64> {
    (table.estimated_rows >= 0.0).then_some(table.estimated_rows as u64)
}
