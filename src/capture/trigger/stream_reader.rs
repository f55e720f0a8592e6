//! The reader of a stream's queues: a tick, then the rows that it shows and the one before did not, of all tables, in the
//! order of the one sequence.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::capture::publish::Condition;
use crate::capture::slot::stopped;
use crate::capture::trigger::chain::{self, Link};
use crate::capture::trigger::conditions::judge;
use crate::capture::trigger::ddl;
use crate::capture::trigger::layout::{Layouts, Shape, shapes};
use crate::capture::trigger::reader::{
    BETWEEN_SNAPSHOTS, FIRST_PAGE, LOOK_EVERY, hand_on, has_news, next_rows, queue_row,
};
use crate::capture::trigger::rows::{QueueError, QueueTable, page};
use crate::capture::trigger::stream_cleaner::StreamCleaner;
use crate::capture::trigger::stream_ticks::{self, StreamConsumer};
use crate::capture::trigger::tick::Tick;
use crate::capture::{CaptureError, Written};
use crate::model::{Change, Lsn, Oid, TxnBatch};
use crate::pg::{PgError, Session};

/// Bytes of row data that a page should hold.
const PAGE_BYTES: usize = 1 << 20;

/// One captured table of a stream.
#[derive(Debug, Clone)]
pub struct StreamTable {
    /// Its rows.
    pub table: QueueTable,
    /// Batches up to this one are in the copy of every target table it feeds.
    pub copied_at: Lsn,
    /// Nothing but new rows is wanted.
    pub insert_only: bool,
    /// Only rows for which it holds are wanted.
    pub condition: Option<Condition>,
}

impl StreamTable {
    /// `copied_at` of a table that is to be copied under the next [`SharedTick`]: what its queue holds before that is in the copy.
    pub const NOT_COPIED: Lsn = Lsn(i64::MAX as u64);
}

/// A tick that shows what a snapshot of somebody else's shows, who copies tables under it beside the reader.
#[derive(Debug)]
pub struct SharedTick {
    /// Told once the reader takes no tick of its own any more, so that the snapshot is later than all of them.
    pub ready: oneshot::Sender<()>,
    /// What the snapshot shows.
    pub shown: oneshot::Receiver<String>,
    /// Told the tick's number.
    pub number: oneshot::Sender<u64>,
}

/// Reads the queues of one stream until told to stop.
#[derive(Debug)]
pub struct StreamReader {
    reading: Reading,
    cleaner: StreamCleaner,
}

impl StreamReader {
    /// Begins behind the first of `ticks` ([`stream_ticks::adopt`]); the others are its next batches. `session` reads, `cleaning`
    /// removes what `written` says is durable. No batch holds more than `most` changes. Shared ticks are asked for through `shared`.
    pub async fn open(
        (session, cleaning): (Session, Session),
        (tables, shared): (Vec<StreamTable>, mpsc::Receiver<SharedTick>),
        consumer: StreamConsumer,
        ticks: Vec<Tick>,
        most: usize,
        written: watch::Receiver<Written>,
    ) -> Result<Self, CaptureError> {
        session.batch_execute("SET synchronous_commit = on").await.map_err(PgError::from)?;
        cleaning.batch_execute("SET synchronous_commit = off").await.map_err(PgError::from)?;
        let mut ticks: VecDeque<Tick> = ticks.into();
        let Some(last) = ticks.pop_front() else {
            return Err(QueueError::TickLost { consumer: consumer.name, number: 0 }.into());
        };
        let cleaner = StreamCleaner { session: cleaning, consumer: consumer.clone(), written };
        let (pages, news) = (pages(&tables), news(&tables));
        let reading = Reading {
            pages,
            news,
            session,
            tables,
            shared,
            consumer,
            ticks,
            first: true,
            most,
            rows: FIRST_PAGE,
            shapes: shapes(&last.shape),
            layouts: Vec::new(),
            changing: true,
            last,
            truncated: None,
        };
        Ok(StreamReader { reading, cleaner })
    }

    /// Runs until `stop` turns true, or an error. Batches go to `out`; when it is full, reading rests.
    pub async fn run(
        self,
        out: mpsc::Sender<TxnBatch>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        let StreamReader { mut reading, cleaner } = self;
        tokio::select! {
            biased;
            result = reading.run(out, stop) => result,
            failed = cleaner.run() => match failed { Ok(never) => match never {}, Err(error) => Err(error.into()) },
        }
    }
}

/// A page of all queues: $1 the last number read, $2 and $3 the snapshots, $4 rows, $5 the batch.
fn pages(tables: &[StreamTable]) -> String {
    let of = |(index, table): (usize, &StreamTable)| {
        let queue = ddl::queue_name(table.table.oid());
        format!(
            "(SELECT seq, op::text AS op, old, new, xid::text AS xid, {index} AS of FROM repcloud.{queue} WHERE seq > $1 AND $5::int8 > {} \
             AND {BETWEEN_SNAPSHOTS} ORDER BY seq LIMIT $4)",
            table.copied_at.0
        )
    };
    let mut all: Vec<String> = tables.iter().enumerate().map(of).collect();
    // A stream of which every table waits for a copy reads none.
    all.push(
        "(SELECT NULL::int8 AS seq, NULL AS op, NULL AS old, NULL AS new, NULL AS xid, 0 AS of \
              WHERE $1::int8 IS NULL AND $2::text IS NULL AND $3::text IS NULL AND $5::int8 IS NULL)"
            .to_owned(),
    );
    format!("SELECT * FROM ({}) AS queues ORDER BY seq LIMIT $4", all.join(" UNION ALL "))
}

/// Whether something committed that the snapshot $1 does not show.
fn news(tables: &[StreamTable]) -> String {
    let mut all: Vec<String> = tables.iter().map(|table| has_news(table.table.oid())).collect();
    all.push("$1::text IS NULL".to_owned());
    format!("SELECT {}", all.join(" OR "))
}

/// The reader without what cleans up behind it.
#[derive(Debug)]
struct Reading {
    /// The statement that gives a page, and the one that tells whether there is anything.
    pages: String,
    news: String,
    session: Session,
    tables: Vec<StreamTable>,
    shared: mpsc::Receiver<SharedTick>,
    consumer: StreamConsumer,
    /// Written before we began, not applied yet.
    ticks: VecDeque<Tick>,
    last: Tick,
    /// No tick was written yet: who began us wants one at once, to know what had committed by then.
    first: bool,
    most: usize,
    /// Of the next page.
    rows: i64,
    /// What the last tick says of the tables.
    shapes: BTreeMap<Oid, Shape>,
    /// How rows are read, in the order of the tables.
    layouts: Vec<Layouts>,
    /// They were made for a batch in which a table changed.
    changing: bool,
    /// A TRUNCATE, of as many tables as came one after the other in one transaction, and that transaction.
    truncated: Option<(String, Change)>,
}

impl Reading {
    async fn run(
        &mut self,
        out: mpsc::Sender<TxnBatch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        loop {
            let next = match self.ticks.pop_front() {
                Some(tick) => tick,
                None => match self.next(&out, &mut stop).await? {
                    Some(tick) => tick,
                    None => return Ok(()),
                },
            };
            self.look_at_shapes(&next)?;
            if !self.deliver(&next, &out, &mut stop).await? {
                return Ok(());
            }
            self.last = next;
        }
    }

    /// A new tick, once there is something to show, or somebody to share it with; `None`: nobody wants one any more.
    async fn next(
        &mut self,
        out: &mpsc::Sender<TxnBatch>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Tick>, CaptureError> {
        if std::mem::take(&mut self.first) {
            return self.write(None).await.map(Some);
        }
        loop {
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(None),
                () = out.closed() => return Ok(None),
                Some(asked) = self.shared.recv() => {
                    if let Some(tick) = self.share(asked, stop).await? {
                        return Ok(Some(tick));
                    }
                }
                () = sleep(LOOK_EVERY) => if self.has_news().await? {
                    return self.write(None).await.map(Some);
                },
            }
        }
    }

    async fn write(&self, shown: Option<&str>) -> Result<Tick, CaptureError> {
        stream_ticks::write(&self.session, &self.consumer, self.last.number + 1, shown).await
    }

    /// The next tick with another one's snapshot; `None`: who asked for it has gone.
    async fn share(
        &mut self,
        asked: SharedTick,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Tick>, CaptureError> {
        if asked.ready.send(()).is_err() {
            return Ok(None);
        }
        let shown = tokio::select! {
            biased;
            () = stopped(stop) => return Ok(None),
            shown = asked.shown => shown,
        };
        let Ok(shown) = shown else { return Ok(None) };
        let tick = self.write(Some(&shown)).await?;
        for table in self.tables.iter_mut().filter(|t| t.copied_at == StreamTable::NOT_COPIED) {
            table.copied_at = Lsn(tick.number);
        }
        self.pages = pages(&self.tables);
        // A copy that has ended meanwhile is begun again with another reader.
        let _told = asked.number.send(tick.number);
        Ok(Some(tick))
    }

    /// How the rows up to `next` are read. A table whose triggers were changed after its copy may have missed some.
    fn look_at_shapes(&mut self, next: &Tick) -> Result<(), CaptureError> {
        if self.last.shape == next.shape && !self.changing {
            return Ok(());
        }
        let now = shapes(&next.shape);
        let mut layouts = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            let (oid, name) = (table.table.oid(), table.table.name());
            let before = self.shapes.get(&oid).filter(|_| table.copied_at.0 <= self.last.number);
            layouts.push(match (before, now.get(&oid)) {
                (Some(before), now) if now.is_none_or(|now| now.triggers != before.triggers) => {
                    return Err(QueueError::Reshaped { table: name.clone() }.into());
                }
                (before, Some(now)) => Layouts::between((oid, name), before.unwrap_or(now), now),
                (_, None) => Layouts::one(table.table.clone()),
            });
        }
        // The batch behind this one is read as the table is by then.
        self.changing = self.last.shape != next.shape;
        (self.shapes, self.layouts) = (now, layouts);
        Ok(())
    }

    async fn has_news(&self) -> Result<bool, CaptureError> {
        let sql = self.session.prepared(&self.news).await.map_err(PgError::from)?;
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
        self.truncated = None;
        loop {
            let (mut changes, last) = self.page(next, &mut after).await?;
            if last {
                changes.extend(self.truncated.take().map(|(_, change)| change));
            }
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
        let number = i64::try_from(next.number).unwrap_or(i64::MAX);
        let found = self
            .session
            .query(&sql, &[&*after, &next.snapshot, &self.last.snapshot, &self.rows, &number])
            .await
            .map_err(PgError::from)?;
        let mut read = Vec::with_capacity(found.len());
        for row in &found {
            let xid: &str = row.try_get(4).map_err(PgError::from)?;
            let of: i32 = row.try_get(5).map_err(PgError::from)?;
            let row = queue_row(row)?;
            *after = row.seq;
            let Some(of) = usize::try_from(of).ok().filter(|of| *of < self.tables.len()) else { continue };
            if self.tables[of].insert_only && row.op != b'I' {
                continue;
            }
            read.push((of, xid, self.layouts[of].change(&row)?));
        }
        if let Some(places) = chain::order(&self.links(&read)) {
            read = chain::arranged(read, &places);
        }
        let mut read: Vec<_> = read.into_iter().map(|(of, xid, change)| (of, xid, Some(change))).collect();
        self.judge(&mut read).await?;
        let mut changes = Vec::with_capacity(read.len());
        for (_, xid, change) in read {
            changes.extend(change.into_iter().flat_map(|change| take_in(&mut self.truncated, xid, change)));
        }
        let last = i64::try_from(found.len()).unwrap_or(i64::MAX) < self.rows;
        self.rows = next_rows(self.rows, &changes, PAGE_BYTES, self.most);
        Ok((changes, last))
    }
}

impl Reading {
    /// As links of the chains of their keys; the order of new rows alone does not matter.
    fn links<'a>(&'a self, read: &'a [(usize, &str, Change)]) -> Vec<Link<'a>> {
        let key = |of: usize| if self.tables[of].insert_only { &[] } else { self.tables[of].table.key() };
        read.iter().map(|(of, _, change)| Link { table: *of, key: key(*of), change }).collect()
    }

    /// Takes out what the tables' conditions do not let through.
    async fn judge(&self, read: &mut [(usize, &str, Option<Change>)]) -> Result<(), CaptureError> {
        for (of, table) in self.tables.iter().enumerate() {
            let Some(condition) = &table.condition else { continue };
            let ours: Vec<&mut Option<Change>> =
                read.iter_mut().filter(|(table, ..)| *table == of).map(|(_, _, change)| change).collect();
            let (mut places, mut changes) = (Vec::with_capacity(ours.len()), Vec::with_capacity(ours.len()));
            for place in ours {
                changes.extend(place.take());
                places.push(place);
            }
            let name = table.table.name();
            let judged = judge(&self.session, name, condition, &self.layouts[of], changes).await?;
            for (place, change) in places.into_iter().zip(judged) {
                *place = change;
            }
        }
        Ok(())
    }
}

/// The changes to hand on: tables that one transaction truncated one after the other are one TRUNCATE, as the partitions of a
/// table are; it is held back until something else comes.
fn take_in(held: &mut Option<(String, Change)>, xid: &str, change: Change) -> Vec<Change> {
    if let (Some((of, Change::Truncate { relations, .. })), Change::Truncate { relations: more, .. }) =
        (held.as_mut(), &change)
        && of.as_str() == xid
    {
        relations.extend(more.iter().filter(|r| !relations.contains(r)).cloned().collect::<Vec<_>>());
        return Vec::new();
    }
    let before = held.take().map(|(_, change)| change);
    if matches!(change, Change::Truncate { .. }) {
        *held = Some((xid.to_owned(), change));
        return before.into_iter().collect();
    }
    before.into_iter().chain([change]).collect()
}
