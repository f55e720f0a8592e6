//! Copies the rows of the snapshot into the shadow, on the server: several sessions, page ranges, short transactions.

mod ordered;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::copy::{CopyError, Heap, PageRange, read_heap, split};
use crate::flow::slot::{HeldSnapshot, import};
use crate::model::{Events, TableName};
use crate::pg::{self, ConnectOptions, Session};
use crate::repack::error::{RepackError, doing};
use crate::repack::options::ThrottleOptions;
use crate::repack::rebuild::SortColumn;
use crate::repack::throttle::Throttle;
use crate::repack::watch::Shown;

/// Bytes of heap one transaction copies: below `logical_decoding_work_mem` (64 MB by default), so that the server never
/// spills to disk what it decodes for nothing, and with room for TOASTed values.
const CHUNK_BYTES: u64 = 16 << 20;

/// How long the copy may be held up by [`Throttle`] before that is worth a warning again.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What is copied.
#[derive(Debug, Clone)]
pub(crate) struct RowsSpec {
    pub(crate) table: TableName,
    pub(crate) shadow: TableName,
    /// The shadow's columns, quoted, and what is selected for each.
    pub(crate) columns: Vec<String>,
    pub(crate) expressions: Vec<String>,
    /// The order in which they are written; empty: as they lie.
    pub(crate) order_by: Vec<SortColumn>,
    /// As last estimated.
    pub(crate) estimated_rows: f64,
}

struct Shared<'a> {
    spec: &'a RowsSpec,
    heap: Heap,
    left: Mutex<VecDeque<PageRange>>,
    throttle: tokio::sync::Mutex<Throttle>,
    events: &'a Events,
    shown: &'a Shown,
}

/// Copies everything; returns the number of rows. `shown` tells of each chunk, and why the copy rests.
pub(crate) async fn copy(
    connect: &ConnectOptions,
    snapshot: &HeldSnapshot,
    spec: &RowsSpec,
    jobs: usize,
    throttle: &ThrottleOptions,
    events: &Events,
    shown: &Shown,
) -> Result<i64, RepackError> {
    let heap = read_heap(snapshot.session(), &spec.table).await?;
    let ranges = split(heap.pages, heap.page_bytes, CHUNK_BYTES);
    let chunks = ranges.len();
    shown.rows.store(0, Ordering::Relaxed);
    let shared = Shared {
        spec,
        heap,
        left: Mutex::new(ranges.into()),
        throttle: tokio::sync::Mutex::new(Throttle::new(throttle.clone())),
        events,
        shown,
    };
    if !spec.order_by.is_empty() {
        Box::pin(shared.in_order(connect, snapshot.id())).await?;
        return Ok(shown.rows.load(Ordering::Relaxed));
    }
    let workers = jobs.clamp(1, chunks);
    try_join_all((0..workers).map(|_| shared.worker(connect, snapshot.id()))).await?;
    Ok(shown.rows.load(Ordering::Relaxed))
}

/// Settings of the sessions that copy. A row that a policy hides is an error, never left out; commits do not wait for
/// the disk, the one that says "copied" does.
const COPY_SETTINGS: &str = "SET synchronous_commit = off; SET row_security = off; SET statement_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; SET enable_parallel_append = off";

impl Shared<'_> {
    fn next(&self) -> Option<PageRange> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    async fn worker(&self, connect: &ConnectOptions, snapshot: &str) -> Result<(), RepackError> {
        let session = pg::connect(connect).await?;
        session.batch_execute(COPY_SETTINGS).await?;
        while let Some(range) = self.next() {
            self.rest(&session).await?;
            let rows = self.chunk(&session, snapshot, range).await?;
            self.shown.rows.fetch_add(rows, Ordering::Relaxed);
        }
        session.close().await?;
        Ok(())
    }

    /// Waits while there is a reason to. One worker asks, the others wait for its answer.
    async fn rest(&self, session: &Session) -> Result<(), RepackError> {
        let mut throttle = self.throttle.lock().await;
        let mut reminded: Option<Instant> = None;
        loop {
            let paused =
                self.shown.paused.load(Ordering::Relaxed).then(|| "paused by `repcloud pause`".to_owned());
            if let Some(limit) = self.shown.take_limit() {
                throttle.set_max_wal_rate(limit);
            }
            let reason = if paused.is_some() { paused } else { throttle.reason(session).await? };
            self.shown.rest(reason.clone());
            let Some(reason) = reason else { return Ok(()) };
            if reminded.is_none_or(|at| at.elapsed() > REMIND_EVERY) {
                self.events.info(format!("{}: the copy rests: {reason}", self.spec.table));
                reminded = Some(Instant::now());
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    async fn chunk(&self, session: &Session, snapshot: &str, range: PageRange) -> Result<i64, RepackError> {
        import(session, snapshot, "READ WRITE").await?;
        self.same_heap(session).await?;
        let filter = range.condition().map(|c| format!(" WHERE {c}")).unwrap_or_default();
        let (columns, values) = (self.spec.columns.join(", "), self.spec.expressions.join(", "));
        let columns = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
        let sql = format!(
            "INSERT INTO {}{columns} OVERRIDING SYSTEM VALUE SELECT {values} FROM ONLY {}{filter}",
            self.spec.shadow, self.spec.table
        );
        let copying = || doing(format!("copying rows of {}", self.spec.table));
        let rows = session.execute(&sql, &[]).await.map_err(copying())?;
        session.batch_execute("COMMIT").await.map_err(copying())?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    /// Locks the table as a reader does and sees that it is the heap whose pages were counted: after TRUNCATE or a rewrite
    /// the snapshot's rows lie elsewhere.
    async fn same_heap(&self, session: &Session) -> Result<(), RepackError> {
        let table = &self.spec.table;
        let sql = format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE");
        session.batch_execute(&sql).await.map_err(doing(format!("locking {table} for reading")))?;
        let sql = "SELECT pg_catalog.pg_relation_filenode($1::text::pg_catalog.regclass)::oid";
        let row = session.query_one(sql, &[&table.to_string()]).await?;
        let now: Option<u32> = row.try_get(0)?;
        if now == Some(self.heap.filenode) {
            Ok(())
        } else {
            Err(CopyError::Rewritten { table: table.clone() }.into())
        }
    }
}
