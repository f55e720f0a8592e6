//! First rows: target tables made, rows copied under one snapshot by several sessions, indexes built after the rows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::apply::checkpoint::{self, StreamKey, TableState};
use crate::apply::route::Delivery;
use crate::apply::target_relation;
use crate::apply::writers;
use crate::catalog::ddl::{TargetDdl, TargetOptions, target_ddl};
use crate::catalog::{ColumnDef, read_table, read_types};
use crate::copy::CopyError;
use crate::copy::chunk::{PageRange, split};
use crate::copy::format::choose_format;
use crate::copy::indexes::{build_indexes, drop_stale};
use crate::copy::target::{self, analyze, empty_table, prepare_table};
use crate::copy::worker::{CopySpec, copy_chunk, read_heap};
use crate::flow::copy_order;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::leaves;
use crate::flow::locked::patiently;
use crate::flow::options::StreamOptions;
use crate::flow::slot::{HeldSnapshot, import};
use crate::flow::status::Board;
use crate::flow::work::{TableWork, new_record};
use crate::model::{Events, Lsn, Oid, TableName};
use crate::pg::{self, ConnectOptions, Session};

/// The statements that make `work`'s target table.
async fn ddl(source: &Session, work: &TableWork) -> Result<TargetDdl, FlowError> {
    let types = read_types(source, &type_oids(&[work])).await?;
    Ok(target_ddl(&work.source, &types, &target_options(work))?)
}

fn type_oids(work: &[&TableWork]) -> Vec<Oid> {
    let oids: BTreeSet<Oid> = work.iter().flat_map(|w| &w.source.columns).map(|c| c.type_oid).collect();
    oids.into_iter().collect()
}

fn target_options(work: &TableWork) -> TargetOptions {
    TargetOptions {
        name: work.target.clone(),
        columns: work.entry.columns.clone(),
        key: work.entry.key.clone(),
        deleted_column: (work.entry.delivery == Delivery::LogDel).then(|| work.entry.deleted_column.clone()),
        all_indexes: work.entry.all_indexes,
        owner: work.entry.owner.clone(),
        grants: work.entry.grants.clone(),
    }
}

/// Checks that missing target tables can be made; nothing is changed.
pub(crate) async fn check_ddl(
    source: &Session,
    target: &Session,
    work: &[&TableWork],
) -> Result<(), FlowError> {
    if work.is_empty() {
        return Ok(());
    }
    let types = read_types(source, &type_oids(work)).await?;
    for work in work {
        let ddl = target_ddl(&work.source, &types, &target_options(work))?;
        target::check_requirements(target, &ddl).await?;
    }
    Ok(())
}

/// Marks the table as ours, copying; then makes it, or empties what an unfinished copy left. In this order: after a
/// crash in between the table is still known to be ours and unfinished.
pub(crate) async fn begin(
    target: &Session,
    source: &Session,
    key: &StreamKey,
    work: &TableWork,
    at: Lsn,
    empty: bool,
    events: &Events,
) -> Result<(), FlowError> {
    let existing = read_table(target, &work.target).await?;
    let known = checkpoint::read_tables(target, key).await?;
    let before = known.into_iter().find(|r| r.target_table == work.target.to_string());
    let mut record = new_record(work, TableState::Copying, at);
    record.made_by_us = existing.is_none() || before.is_some_and(|b| b.made_by_us);
    checkpoint::write_table(target, key, &record).await?;
    leaves::record(target, key, work).await?;
    match existing {
        None => {
            let ddl = ddl(source, work).await?;
            prepare_table(target, &ddl).await?;
            for left_out in &ddl.left_out {
                events.warning(format!(
                    "{}: {} is left out: {}",
                    work.target, left_out.object, left_out.reason
                ));
            }
        }
        Some(_) if empty => {
            patiently(target, &work.target, events, async || empty_table(target, &work.target).await).await?;
            if record.made_by_us {
                let ddl = ddl(source, work).await?;
                let dropped =
                    patiently(target, &work.target, events, async || drop_stale(target, &ddl).await).await?;
                dropped.into_iter().for_each(|told| events.warning(told));
            }
        }
        Some(_) => {}
    }
    Ok(target_relation::record(target, key, &work.target, None).await?)
}

/// Lets the target's planner know tables that were just copied. Beside the stream, which does not need it: when the
/// stream ends first, the server finishes the table it is at, and autovacuum does the others.
pub(crate) async fn analyze_all(options: &ConnectOptions, tables: &[TableName], events: &Events) {
    if tables.is_empty() {
        return;
    }
    let work = async {
        let target = pg::connect(options).await.map_err(FlowError::Target)?;
        for table in tables {
            analyze(&target, table).await?;
        }
        target.close().await.map_err(FlowError::Target)
    };
    let outcome: Result<(), FlowError> = work.await;
    if let Err(error) = outcome {
        events.warning(format!("ANALYZE after the first copy failed, autovacuum will do it: {error}"));
    }
}

/// What ended a copy, and the target table that it is about where it is about one.
#[derive(Debug)]
pub(crate) struct CopyFailed {
    pub(crate) table: Option<TableName>,
    pub(crate) error: FlowError,
}

impl<E: Into<FlowError>> From<E> for CopyFailed {
    fn from(error: E) -> Self {
        CopyFailed { table: None, error: error.into() }
    }
}

impl CopyFailed {
    /// Names the table.
    pub(crate) fn of(table: &TableName) -> impl FnOnce(FlowError) -> CopyFailed {
        move |error| CopyFailed { table: Some(table.clone()), error }
    }

    /// Names the table; a source table that went away meanwhile is one whose target stands aside.
    fn of_work(work: &TableWork, options: &StreamOptions) -> impl FnOnce(FlowError) -> CopyFailed {
        move |error| match error {
            FlowError::Copy(CopyError::Gone { .. }) if work.leaves.is_empty() => CopyFailed {
                table: Some(work.target.clone()),
                error: FlowError::SourceGone {
                    source_table: work.source.name.to_string(),
                    target_table: work.target.clone(),
                    source_name: options.key.source.clone(),
                },
            },
            error => CopyFailed { table: Some(work.target.clone()), error },
        }
    }
}

/// A snapshot of the source, held open by a session so that any number of others can import it.
#[derive(Debug)]
pub(crate) struct FirstRows {
    held: HeldSnapshot,
    at: Lsn,
    then: TableState,
}

/// Bytes of heap one chunk reads: small enough that many sessions share a table to its end, and that progress is seen;
/// a chunk costs a transaction on both sides.
const CHUNK_BYTES: u64 = 8 << 20;

/// A copy in which nothing moves for so long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(300);

/// One chunk of one table.
struct Task {
    table: usize,
    range: PageRange,
    from: TableName,
}

/// A table on its way.
struct Progress<'a> {
    work: &'a TableWork,
    spec: Vec<(TableName, CopySpec)>,
    chunks: usize,
    left: AtomicUsize,
    rows: AtomicU64,
}

impl Progress<'_> {
    /// Rows there will be: as the source's statistics say, or as the part that was read tells.
    fn estimate(&self, rows: u64, left: usize) -> u64 {
        estimate(u64::try_from(self.work.rows_estimate()).unwrap_or(0), rows, left, self.chunks)
    }
}

fn estimate(statistics: u64, rows: u64, left: usize, chunks: usize) -> u64 {
    let (left, chunks) = (left as u64, chunks as u64);
    match statistics {
        _ if left == 0 => rows,
        0 => (rows * chunks).checked_div(chunks.saturating_sub(left)).unwrap_or(0),
        known => known.max(rows),
    }
}

impl FirstRows {
    /// Imports `exported` (a slot's snapshot) and exports it anew from a session of our own.
    pub(crate) async fn hold(options: &ConnectOptions, exported: &str, at: Lsn) -> Result<Self, FlowError> {
        Ok(FirstRows { held: HeldSnapshot::hold(options, exported).await?, at, then: TableState::Streaming })
    }

    /// Over a snapshot that we hold already; `at`: the tick that shows the same.
    pub(crate) fn held(held: HeldSnapshot, at: Lsn) -> Self {
        FirstRows { held, at, then: TableState::Streaming }
    }

    /// The state of a table whose rows are there: streaming, unless it is said here.
    pub(crate) fn then(self, then: TableState) -> Self {
        FirstRows { then, ..self }
    }

    /// The consistent point: changes of transactions that commit later are streamed, all others are in the snapshot.
    pub(crate) fn at(&self) -> Lsn {
        self.at
    }

    /// Lets go of the snapshot.
    pub(crate) async fn release(self) -> Result<(), FlowError> {
        self.held.release().await
    }

    /// Copies the rows of `work`, builds the indexes and marks each table as it is finished. Where foreign keys stay awake,
    /// a table waits for those that it refers to.
    pub(crate) async fn copy(
        &self,
        options: &StreamOptions,
        target: &Session,
        work: &[&TableWork],
        events: &Events,
        board: &Board,
    ) -> Result<(), CopyFailed> {
        if facts::may_use_replica_role(target).await? {
            return self.copy_wave(options, target, work, &[], events, board).await;
        }
        let mut references = Vec::with_capacity(work.len());
        for work in work {
            let definition = read_table(target, &work.target).await?;
            let constraints = definition.map(|d| d.constraints).unwrap_or_default();
            references
                .push((work.target.clone(), constraints.into_iter().filter_map(|c| c.references).collect()));
        }
        for wave in copy_order::waves(&references) {
            let tables: Vec<&TableWork> = wave.iter().map(|&index| work[index]).collect();
            // Each COPY checks at its end: rows that refer to rows of their own table must come in one.
            let whole: Vec<TableName> = references
                .iter()
                .filter(|(name, to)| to.contains(name))
                .map(|(name, _)| name.clone())
                .collect();
            self.copy_wave(options, target, &tables, &whole, events, board).await?;
        }
        Ok(())
    }

    /// Tables side by side, in any order; those of `whole` in one piece each.
    async fn copy_wave(
        &self,
        options: &StreamOptions,
        target: &Session,
        work: &[&TableWork],
        whole: &[TableName],
        events: &Events,
        board: &Board,
    ) -> Result<(), CopyFailed> {
        let mut tables = Vec::with_capacity(work.len());
        let mut tasks = VecDeque::new();
        for (index, work) in work.iter().enumerate() {
            let chunk = if whole.contains(&work.target) { u64::MAX } else { CHUNK_BYTES };
            let planned = self.plan(work, index, target, chunk, &mut tasks).await;
            let progress = planned.map_err(CopyFailed::of_work(work, options))?;
            events.info(format!(
                "copying {} → {} ({} chunks)",
                work.source.name,
                work.target,
                progress.left.load(Ordering::Relaxed)
            ));
            tables.push(progress);
        }
        let copy = Copy {
            snapshot: self.held.id(),
            then: self.then,
            options,
            tables: &tables,
            tasks: Mutex::new(tasks),
            events,
            board,
        };
        let workers = options.copy_workers.max(1);
        try_join_all((0..workers).map(|_| copy.worker())).await?;
        Ok(())
    }

    async fn plan<'w>(
        &self,
        work: &'w TableWork,
        index: usize,
        target: &Session,
        chunk: u64,
        tasks: &mut VecDeque<Task>,
    ) -> Result<Progress<'w>, FlowError> {
        let definition = read_table(target, &work.target).await?.ok_or_else(|| {
            FlowError::Internal(format!("{} has gone while it was being copied", work.target))
        })?;
        let sources = if work.leaves.is_empty() { std::slice::from_ref(&work.source) } else { &work.leaves };
        let mut specs = Vec::new();
        let mut count = 0;
        for source in sources {
            let pairs: Vec<(&ColumnDef, &ColumnDef)> = work
                .columns()
                .into_iter()
                .filter_map(|c| {
                    Some((
                        source.column(&c.name)?,
                        definition.column(&c.name).filter(|t| t.generated.is_none())?,
                    ))
                })
                .collect();
            let columns: Vec<String> = pairs.iter().map(|(c, _)| c.name.clone()).collect();
            let versions =
                [self.held.session(), target].map(|s| i32::try_from(s.server_version()).unwrap_or(0));
            let heap = read_heap(self.held.session(), &source.name).await?;
            specs.push((
                source.name.clone(),
                CopySpec {
                    source: source.name.clone(),
                    target: work.target.clone(),
                    target_columns: columns.clone(),
                    columns,
                    condition: work.entry.condition.clone(),
                    format: choose_format(&pairs, versions[0], versions[1]),
                    filenode: heap.filenode,
                    stall_limit: STALL_LIMIT,
                },
            ));
            for range in split(heap.pages, heap.page_bytes, chunk) {
                tasks.push_back(Task { table: index, range, from: source.name.clone() });
                count += 1;
            }
        }
        let left = AtomicUsize::new(count);
        Ok(Progress { work, spec: specs, chunks: count, left, rows: AtomicU64::new(0) })
    }
}

struct Copy<'a> {
    snapshot: &'a str,
    then: TableState,
    options: &'a StreamOptions,
    tables: &'a [Progress<'a>],
    tasks: Mutex<VecDeque<Task>>,
    events: &'a Events,
    board: &'a Board,
}

impl Copy<'_> {
    fn next(&self) -> Option<Task> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    async fn worker(&self) -> Result<(), CopyFailed> {
        if self.tasks.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return Ok(());
        }
        let source = pg::connect(&self.options.source).await.map_err(FlowError::Source)?;
        let target = pg::connect(&self.options.target).await.map_err(FlowError::Target)?;
        writers::mark_writer(&target, &self.options.key).await.map_err(FlowError::Target)?;
        let settings = "SET synchronous_commit = off; SET session_replication_role = replica";
        if target.batch_execute(settings).await.is_err() {
            // Without the right to it, triggers fire; pre-flight has refused tables where that matters.
            target
                .batch_execute("SET synchronous_commit = off")
                .await
                .map_err(|e| FlowError::Target(e.into()))?;
        }
        while let Some(task) = self.next() {
            let table = &self.tables[task.table];
            let Some((_, spec)) = table.spec.iter().find(|(name, _)| *name == task.from) else { continue };
            let done = self.chunk((&source, &target), table, spec, task.range).await;
            done.map_err(CopyFailed::of_work(table.work, self.options))?;
        }
        Ok(())
    }

    /// One chunk of a table; with the last one the table is finished.
    async fn chunk(
        &self,
        (source, target): (&Session, &Session),
        table: &Progress<'_>,
        spec: &CopySpec,
        range: PageRange,
    ) -> Result<(), FlowError> {
        // Short transactions: the holder keeps the snapshot, nobody else does.
        import(source, self.snapshot, "READ ONLY").await?;
        let outcome = copy_chunk(source, target, spec, range).await?;
        source.batch_execute("COMMIT").await.map_err(|e| FlowError::Source(e.into()))?;
        let rows = table.rows.fetch_add(outcome.rows, Ordering::Relaxed) + outcome.rows;
        let left = table.left.load(Ordering::Acquire).saturating_sub(1);
        self.board.update_table(&table.work.target.to_string(), |t| {
            t.state = "copying".into();
            t.rows_copied = rows;
            t.rows_total = table.estimate(rows, left);
        });
        if table.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(source, table).await?;
        }
        Ok(())
    }

    /// All rows are there: indexes, and durably "copied".
    async fn finish(&self, source: &Session, table: &Progress<'_>) -> Result<(), FlowError> {
        let failed = |e: tokio_postgres::Error| FlowError::Target(e.into());
        let target = pg::connect(&self.options.target).await.map_err(FlowError::Target)?;
        target.batch_execute("SET synchronous_commit = on").await.map_err(failed)?;
        let key = &self.options.key;
        writers::mark_writer(&target, key).await.map_err(FlowError::Target)?;
        let name = table.work.target.to_string();
        let records = checkpoint::read_tables(&target, key).await?;
        let Some(mut record) = records.into_iter().find(|r| r.target_table == name) else {
            return Err(FlowError::Internal(format!(
                "the state of {name} has gone while it was being copied"
            )));
        };
        if record.made_by_us {
            let ddl = ddl(source, table.work).await?;
            let build = async || build_indexes(&target, &ddl).await;
            let named = patiently(&target, &table.work.target, self.events, build).await?;
            named.into_iter().for_each(|told| self.events.warning(told));
        }
        let rows = table.rows.load(Ordering::Relaxed);
        record.rows_copied = i64::try_from(rows).unwrap_or(i64::MAX);
        record.rows_total = record.rows_copied;
        record.state = self.then;
        checkpoint::write_table(&target, key, &record).await?;
        self.board.update_table(&name, |t| {
            t.state = self.then.as_str().into();
            (t.rows_copied, t.rows_total) = (rows, rows);
        });
        self.events.info(format!("copied {name}: {rows} rows"));
        target.close().await.map_err(FlowError::Target)
    }
}

#[cfg(test)]
mod tests {
    use super::estimate;

    #[test]
    fn the_number_of_rows_is_estimated_until_it_is_known() {
        assert_eq!(estimate(1000, 10, 3, 4), 1000, "as the statistics say");
        assert_eq!(estimate(1000, 1010, 3, 4), 1010, "they are old");
        assert_eq!(estimate(0, 10, 3, 4), 40, "without statistics");
        assert_eq!(estimate(1000, 900, 0, 4), 900, "known");
        assert_eq!(estimate(0, 0, 1, 1), 0);
    }
}
