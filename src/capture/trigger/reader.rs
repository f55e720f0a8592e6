//! The reader of a queue: a tick, then the rows that it shows and the one before did not, in the queue's order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::capture::slot::stopped;
use crate::capture::trigger::chain::{self, Link};
use crate::capture::trigger::cleaner::Cleaner;
use crate::capture::trigger::ddl;
use crate::capture::trigger::rows::{QueueError, QueueRow, QueueTable, page};
use crate::capture::trigger::tick::{self, Consumer, Tick};
use crate::capture::{CaptureError, Written};
use crate::model::{Change, Lsn, Oid, TxnBatch};
use crate::pg::{PgError, Session};

/// How often a quiet queue is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a queue is read.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// The last batch that was applied.
    pub from: Lsn,
    /// The last batch of which a part was applied: up to it batches are read again as they were.
    pub furthest: Lsn,
    /// Changes a batch holds at most.
    pub batch_changes: usize,
    /// Bytes of row data that a batch should hold.
    pub batch_bytes: usize,
}

/// Places in the stream of batches, as somebody beside the reader asks for them.
#[derive(Debug)]
pub struct TickMarks {
    /// The last tick whose snapshot was asked for.
    begun: AtomicU64,
    /// The highest row handed on.
    read: AtomicI64,
    asked: watch::Sender<u64>,
}

impl TickMarks {
    /// The number of a batch that will hold everything that had committed before this was called: its snapshot is taken
    /// later. The reader is asked to take it now.
    pub fn mark(&self) -> Lsn {
        let number = self.begun.load(Ordering::SeqCst) + 1;
        self.asked.send_if_modified(|now| std::mem::replace(now, number.max(*now)) < number);
        Lsn(number)
    }

    /// The highest number of a queue row that was handed on.
    pub fn read(&self) -> i64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// Reads one queue until told to stop.
#[derive(Debug)]
pub struct QueueReader {
    reading: Reading,
    cleaner: Cleaner,
}

/// A text, as its bytes: in a database of encoding SQL_ASCII they may be any.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }
}

impl QueueReader {
    /// Begins behind tick `options.from`, which the source must know. `session` reads, `cleaning` removes what `written` says is
    /// durable.
    pub async fn open(
        session: Session,
        cleaning: Session,
        table: QueueTable,
        consumer: Consumer,
        options: QueueOptions,
        written: watch::Receiver<Written>,
    ) -> Result<Self, CaptureError> {
        session.batch_execute("SET synchronous_commit = on").await.map_err(PgError::from)?;
        cleaning.batch_execute("SET synchronous_commit = off").await.map_err(PgError::from)?;
        let number = options.from.0;
        let last = tick::read(&session, &consumer.name, number).await?;
        let last = last.ok_or_else(|| QueueError::TickLost { consumer: consumer.name.clone(), number })?;
        let (asking, asked) = watch::channel(number);
        // Of batches that are read again the snapshot was taken long ago: nobody may be told to wait for one of them.
        let begun = AtomicU64::new(number.max(options.furthest.0));
        let marks = TickMarks { begun, read: AtomicI64::new(0), asked: asking };
        let cleaner = Cleaner { session: cleaning, consumer: consumer.clone(), written };
        let pages = format!(
            "SELECT seq, op::text, old, new FROM repcloud.{} WHERE seq > $1 \
             AND {BETWEEN_SNAPSHOTS} ORDER BY seq LIMIT $4",
            ddl::queue_name(consumer.queue)
        );
        let marks = Arc::new(marks);
        let rows = FIRST_PAGE;
        let reading = Reading { pages, session, table, consumer, options, last, marks, asked, rows };
        Ok(QueueReader { reading, cleaner })
    }

    /// See [`TickMarks`].
    pub fn marks(&self) -> Arc<TickMarks> {
        self.reading.marks.clone()
    }

    /// Runs until `stop` turns true, or an error. Batches go to `out`; when it is full, reading rests.
    pub async fn run(
        self,
        out: mpsc::Sender<TxnBatch>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        let QueueReader { mut reading, cleaner } = self;
        tokio::select! {
            biased;
            result = reading.run(out, stop) => result,
            failed = cleaner.run() => match failed { Ok(never) => match never {}, Err(error) => Err(error.into()) },
        }
    }
}

/// Rows of the first page; how many come after that depends on their size.
pub(super) const FIRST_PAGE: i64 = 100;

/// Rows that snapshot $2 shows and snapshot $3 does not.
pub(super) const BETWEEN_SNAPSHOTS: &str = "pg_catalog.pg_visible_in_snapshot(xid, (SELECT $2::text::pg_catalog.pg_snapshot)) \
     AND NOT pg_catalog.pg_visible_in_snapshot(xid, (SELECT $3::text::pg_catalog.pg_snapshot))";

/// Something committed into the queue that snapshot $1 does not show.
pub(super) fn has_news(queue: Oid) -> String {
    format!(
        "EXISTS (SELECT FROM repcloud.{} WHERE NOT pg_catalog.pg_visible_in_snapshot(xid, (SELECT $1::text::pg_catalog.pg_snapshot)))",
        ddl::queue_name(queue)
    )
}

/// The first columns of a page: `seq`, `op`, `old`, `new`.
pub(super) fn queue_row(row: &Row) -> Result<QueueRow<'_>, CaptureError> {
    let read = || -> Result<QueueRow<'_>, tokio_postgres::Error> {
        let op: &str = row.try_get(1)?;
        let (old, new): (Option<Raw<'_>>, Option<Raw<'_>>) = (row.try_get(2)?, row.try_get(3)?);
        let op = op.bytes().next().unwrap_or_default();
        Ok(QueueRow { seq: row.try_get(0)?, op, old: old.map(|r| r.0), new: new.map(|r| r.0) })
    };
    Ok(read().map_err(PgError::from)?)
}

/// Rows of the page after one of `rows` that held `changes`: as many as should fit into a batch of `bytes` and `most` changes, by
/// the size of those just read, and not suddenly many more.
pub(super) fn next_rows(rows: i64, changes: &[Change], bytes: usize, most: usize) -> i64 {
    if changes.is_empty() {
        return rows;
    }
    let read: usize = changes.iter().map(Change::data_len).sum();
    let fit = bytes / (read / changes.len()).max(1);
    i64::try_from(most.min(fit)).unwrap_or(i64::MAX).clamp(1, rows.saturating_mul(4))
}

/// True when the batch was taken.
pub(super) async fn hand_on(
    batch: TxnBatch,
    out: &mpsc::Sender<TxnBatch>,
    stop: &mut watch::Receiver<bool>,
) -> bool {
    tokio::select! {
        biased;
        () = stopped(stop) => false,
        sent = out.send(batch) => sent.is_ok(),
    }
}

/// The reader without what cleans up behind it.
#[derive(Debug)]
struct Reading {
    /// The statement that gives a page.
    pages: String,
    session: Session,
    table: QueueTable,
    consumer: Consumer,
    options: QueueOptions,
    last: Tick,
    marks: Arc<TickMarks>,
    asked: watch::Receiver<u64>,
    /// Of the next page.
    rows: i64,
}

impl Reading {
    async fn run(
        &mut self,
        out: mpsc::Sender<TxnBatch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        loop {
            if *self.asked.borrow_and_update() <= self.last.number
                && self.last.number >= self.options.furthest.0
            {
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return Ok(()),
                    () = out.closed() => return Ok(()),
                    // The sender is one of our own fields.
                    _ = self.asked.changed() => continue,
                    () = sleep(LOOK_EVERY) => if !self.has_news().await? { continue },
                }
            }
            let number = self.last.number + 1;
            // Before the snapshot is taken: whoever asks from here on means the next one.
            self.marks.begun.fetch_max(number, Ordering::SeqCst);
            let next = self.tick(number).await?;
            if next.shape != self.last.shape {
                return Err(QueueError::Reshaped { table: self.table.name().clone() }.into());
            }
            if !self.deliver(&next, &out, &mut stop).await? {
                return Ok(());
            }
            self.last = next;
        }
    }

    /// The snapshot of the next batch: as it was, where a part of that batch was applied, else as it is now.
    async fn tick(&self, number: u64) -> Result<Tick, CaptureError> {
        let consumer = &self.consumer;
        if number > self.options.furthest.0 {
            return tick::write(&self.session, consumer, number, None).await;
        }
        let known = tick::read(&self.session, &consumer.name, number).await?;
        Ok(known.ok_or_else(|| QueueError::TickLost { consumer: consumer.name.clone(), number })?)
    }

    /// Something committed that the last tick does not show.
    async fn has_news(&self) -> Result<bool, CaptureError> {
        let sql = format!("SELECT {}", has_news(self.consumer.queue));
        let sql = self.session.prepared(&sql).await.map_err(PgError::from)?;
        let row = self.session.query_one(&sql, &[&self.last.snapshot]).await.map_err(PgError::from)?;
        Ok(row.try_get(0).map_err(PgError::from)?)
    }

    /// Hands on the rows that `next` shows, page by page; false: nobody wants them any more. Later snapshots see these rows
    /// too, and nobody removes them before they are durable on the target, so each page is a transaction of its own.
    async fn deliver(
        &mut self,
        next: &Tick,
        out: &mpsc::Sender<TxnBatch>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<bool, CaptureError> {
        let (mut after, mut first) = (i64::MIN, true);
        loop {
            let (changes, last) = self.page(next, &mut after).await?;
            let batch = page(next.number, next.made_at, changes, first, last);
            first = false;
            if !hand_on(batch, out, stop).await {
                return Ok(false);
            }
            if last {
                return Ok(true);
            }
        }
    }

    /// The next rows, and whether they are the last ones.
    async fn page(&mut self, next: &Tick, after: &mut i64) -> Result<(Vec<Change>, bool), CaptureError> {
        let sql = self.session.prepared(&self.pages).await.map_err(PgError::from)?;
        let found = self
            .session
            .query(&sql, &[&*after, &next.snapshot, &self.last.snapshot, &self.rows])
            .await
            .map_err(PgError::from)?;
        let mut changes = Vec::with_capacity(found.len());
        for row in &found {
            let row = queue_row(row)?;
            changes.push(self.table.change(&row)?);
            *after = row.seq;
        }
        let link = |change| Link { table: 0, key: self.table.key(), change };
        if let Some(places) = chain::order(&changes.iter().map(link).collect::<Vec<_>>()) {
            changes = chain::arranged(changes, &places);
        }
        self.marks.read.fetch_max(*after, Ordering::Relaxed);
        let last = i64::try_from(found.len()).unwrap_or(i64::MAX) < self.rows;
        let QueueOptions { batch_bytes, batch_changes, .. } = self.options;
        self.rows = next_rows(self.rows, &changes, batch_bytes, batch_changes);
        Ok((changes, last))
    }
}
