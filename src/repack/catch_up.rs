//! Applies the table's changes to the shadow: the stream's own reader, planner and applier, with one route.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::apply::checkpoint::{self, CheckpointWriter, LanePosition, StreamKey};
use crate::apply::group::GroupLimits;
use crate::apply::progress::Progress;
use crate::apply::route::{Delivery, OnConflict, Route, RouteTable, ShapeFingerprint};
use crate::apply::target_session::TargetSession;
use crate::apply::{Applier, ApplyOptions, ApplyReport, writers};
use crate::capture::Written;
use crate::capture::reading::Numbers;
use crate::capture::trigger::tick::Consumer;
use crate::capture::trigger::{QueueError, QueueOptions, QueueTable, TickMarks, ddl};
use crate::capture::{CaptureError, Plugin, QueueReader, Reader, Reading, wal2json};
use crate::catalog::TableDef;
use crate::flow::FlowError;
use crate::flow::lanes::Lanes;
use crate::flow::pipeline::{self, Pipeline};
use crate::model::{Lsn, Oid, TableName};
use crate::pg::replication::ReplicationClient;
use crate::pg::{self, ConnectOptions, Session};
use crate::repack::error::{RepackError, doing};
use crate::repack::shadow::{end_followers, publications};
use crate::repack::state;
use crate::sql::shape::{ShapeColumn, ShapeTable};

/// The prefix of our messages in the WAL.
const PREFIX: &str = "repcloud";

/// What is followed.
#[derive(Debug)]
pub(crate) struct FollowSpec<'a> {
    pub(crate) connect: &'a ConnectOptions,
    pub(crate) slot: &'a str,
    /// Changes are read from the table's queue; its reader is called as the slot would be.
    pub(crate) queue: bool,
    /// The table as it is.
    pub(crate) source: &'a TableDef,
    /// The shadow as it is.
    pub(crate) shadow: &'a TableDef,
    /// Columns that identify a row; empty: rows are matched whole.
    pub(crate) key: &'a [String],
    /// Columns with what becomes of their values ([`ShapeColumn::rewrite`]).
    pub(crate) rewrites: Vec<(String, String)>,
    /// Changes of one transaction of ours.
    pub(crate) max_changes: usize,
    /// Sessions that apply changes, unless another number is in force ([`checkpoint::take_over_lanes`]).
    pub(crate) lanes: usize,
    /// See [`Numbers::MayBeLost`].
    pub(crate) allow_lossy_numbers: bool,
}

/// Changes flow into the shadow as long as this lives, once [`Following::open`] was called. Until then they are read and held: so
/// the server decodes the copy while it is made, not afterwards.
#[derive(Debug)]
pub(crate) struct Following {
    pipeline: Pipeline,
    gate: watch::Sender<bool>,
    report: watch::Receiver<ApplyReport>,
    wanted: Arc<watch::Sender<Lsn>>,
    marker: Arc<Marker>,
    table: TableName,
    lanes: usize,
}

impl Following {
    /// Takes the position over and begins to read. `session` holds the table's lock.
    pub(crate) async fn start(session: &Session, spec: &FollowSpec<'_>) -> Result<Following, RepackError> {
        let key = state::key(spec.slot);
        end_followers(session, spec.slot).await?;
        let positions = checkpoint::take_over_lanes(session, &key, spec.lanes).await?;
        let from = positions.iter().map(|lane| lane.applied).min().unwrap_or_default();
        let furthest = positions.iter().map(|lane| lane.applied).max().unwrap_or_default();
        let generation = positions.first().map_or(0, |lane| lane.generation);
        // The commit that took the position over has waited for the disk, and this server is also the source.
        let confirmed = if spec.queue { furthest } else { confirmed(session, spec.slot).await? };
        if !spec.queue && confirmed > from {
            return Err(RepackError::Internal(format!(
                "slot \"{}\" is confirmed up to {confirmed}, beyond the position {from}",
                spec.slot
            )));
        }
        let routes = Arc::new(RouteTable::new(vec![route(spec)]));
        let (wanted, wanted_out) = watch::channel(Lsn::INVALID);
        let lanes = lanes(spec, &key, &positions, confirmed, &routes, &wanted_out).await?;
        let marking = pg::connect(spec.connect).await?;
        marking.batch_execute("SET synchronous_commit = on").await?;
        let report = lanes.report();
        let now = *report.borrow();
        let (written_in, written) = watch::channel(Written { durable: now.durable, applied: now.applied });
        let limits = GroupLimits { changes: spec.max_changes.max(1), ..GroupLimits::default() };
        let (reader, ticks): (Reader, _) = if spec.queue {
            let reader = queue_reader(spec, (&key, generation), (from, furthest), limits, written).await?;
            let marks = reader.marks();
            (reader.into(), Some(marks))
        } else {
            let replication = ReplicationClient::connect(spec.connect).await?;
            let reading = reading(session, spec).await?;
            let open = (replication, spec.connect);
            let opened = pipeline::open_reader(session, open, spec.slot, from, &reading, limits, written);
            (opened.await?.into(), None)
        };
        let (gate, opened) = watch::channel(false);
        let pipeline = Pipeline::start_behind(Some(opened), reader, lanes, routes, limits, written_in);
        let table = spec.source.name.clone();
        let marker =
            Arc::new(Marker { session: marking, queue: ticks.map(|ticks| (ticks, spec.source.oid)) });
        let lanes = positions.len();
        Ok(Following { pipeline, gate, report, wanted: Arc::new(wanted), marker, table, lanes })
    }

    /// How many sessions apply changes.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Lets the changes into the shadow: rows and indexes are there.
    pub(crate) fn open(&self) {
        self.gate.send_replace(true);
    }

    /// [`Self::open`] was called.
    pub(crate) fn is_open(&self) -> bool {
        *self.gate.borrow()
    }

    /// What is in the shadow.
    pub(crate) fn report(&self) -> ApplyReport {
        *self.report.borrow()
    }

    /// See [`Marker::mark`].
    pub(crate) async fn mark(&self) -> Result<Lsn, RepackError> {
        self.marker.mark().await
    }

    /// Changes are read from a queue.
    pub(crate) fn reads_queue(&self) -> bool {
        self.marker.queue.is_some()
    }

    /// What is not applied yet of what comes before `mark`: bytes of WAL, or (not exactly) rows of the queue.
    pub(crate) async fn left(&self, mark: Lsn) -> Result<u64, RepackError> {
        let Some((ticks, table)) = &self.marker.queue else {
            return Ok(mark.bytes_since(self.report().applied));
        };
        let sql = format!("SELECT last_value FROM repcloud.{}_seq", ddl::queue_name(*table));
        let drawn: i64 = self.marker.session.query_one(&sql, &[]).await?.try_get(0)?;
        Ok(u64::try_from(drawn.saturating_sub(ticks.read())).unwrap_or(0))
    }

    /// Sets marks while somebody else holds this.
    pub(crate) fn marker(&self) -> Arc<Marker> {
        self.marker.clone()
    }

    /// True once everything up to `mark` is in the shadow; false when that takes longer than until `deadline`.
    pub(crate) async fn reached(&mut self, mark: Lsn, deadline: Instant) -> Result<bool, RepackError> {
        self.wanted.send_if_modified(|now| std::mem::replace(now, (*now).max(mark)) < mark);
        let report = &mut self.report;
        let arrived = async {
            while report.borrow_and_update().applied < mark {
                if report.changed().await.is_err() {
                    // The applier's own result tells why.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            ended = self.pipeline.ended() => Err(why(&mut self.pipeline, ended).await),
            arrived = timeout_at(deadline, arrived) => Ok(arrived.is_ok()),
        }
    }

    /// Returns when changes no longer flow, and why.
    pub(crate) async fn ended(&mut self) -> RepackError {
        let ended = self.pipeline.ended().await;
        why(&mut self.pipeline, ended).await
    }

    /// A handle that waits for marks while somebody else holds this.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter { report: self.report.clone(), wanted: self.wanted.clone() }
    }

    /// Ends it in order; everything received is then durable.
    pub(crate) async fn finish(self) -> Result<(), RepackError> {
        Ok(self.pipeline.finish().await?)
    }

    /// An error, with what caused it where another task knows better.
    pub(crate) fn cause(self, error: RepackError) -> RepackError {
        match error {
            RepackError::Flow(error) => {
                let table = self.table.clone();
                shape_error(self.pipeline.cause(error), table)
            }
            other => other,
        }
    }
}

/// A change that does not fit the shadow means that the table was changed.
fn shape_error(error: FlowError, table: TableName) -> RepackError {
    use crate::apply::ApplyError;
    use crate::apply::plan::PlanError;
    match error {
        FlowError::Apply(ApplyError::Plan(PlanError::Shape(_)))
        | FlowError::Capture(CaptureError::Queue(QueueError::Reshaped { .. })) => RepackError::Changed {
            table,
            differences: vec!["its columns, or repcloud's triggers, are not what they were".to_owned()],
        },
        error => RepackError::Flow(error),
    }
}

/// A task that ended without an error did so because of another one's.
async fn why(pipeline: &mut Pipeline, ended: Result<(), FlowError>) -> RepackError {
    let Err(error) = ended else {
        return match pipeline.reason().await {
            Ok(()) => RepackError::Internal("the stream of changes ended without a reason".to_owned()),
            Err(error) => RepackError::Flow(error),
        };
    };
    RepackError::Flow(error)
}

/// Writes the messages that mark a place in the stream of changes.
#[derive(Debug)]
pub(crate) struct Marker {
    session: Session,
    /// Of a queue: its marks, and the table's oid.
    queue: Option<(Arc<TickMarks>, Oid)>,
}

impl Marker {
    /// A place in the stream of changes: everything that had committed before this returns comes before it. It is written
    /// by a transaction of its own, so that the server sends it at once, however idle it is
    /// (`proto-notes/repack.md`, "The drain").
    pub(crate) async fn mark(&self) -> Result<Lsn, RepackError> {
        if let Some((ticks, _)) = &self.queue {
            return Ok(ticks.mark());
        }
        let sql = "SELECT pg_catalog.pg_logical_emit_message(true, $1, '')::text";
        let row =
            self.session.query_one(sql, &[&PREFIX]).await.map_err(doing("marking the stream of changes"))?;
        let text: String = row.try_get(0)?;
        text.parse().map_err(|_| RepackError::Damaged("a position of the server".to_owned()))
    }
}

/// See [`Following::waiter`].
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    report: watch::Receiver<ApplyReport>,
    wanted: Arc<watch::Sender<Lsn>>,
}

impl Waiter {
    /// Returns once everything up to `mark` is in the shadow; `false` when nobody applies any more or `limit` is over.
    pub(crate) async fn reached(mut self, mark: Lsn, limit: Duration) -> bool {
        self.wanted.send_if_modified(|now| std::mem::replace(now, (*now).max(mark)) < mark);
        let arrived = self.report.wait_for(|report| report.applied >= mark);
        matches!(tokio::time::timeout(limit, arrived).await, Ok(Ok(_)))
    }
}

/// A session for each lane, each with its position, and one that makes their commits durable. All are marked under the name of
/// the repack: whoever takes over ends them.
async fn lanes(
    spec: &FollowSpec<'_>,
    key: &StreamKey,
    positions: &[LanePosition],
    confirmed: Lsn,
    routes: &Arc<RouteTable>,
    wanted: &watch::Receiver<Lsn>,
) -> Result<Lanes, RepackError> {
    let mut list = Vec::with_capacity(positions.len());
    let mut flusher = None;
    for lane in positions {
        let writing = pg::connect(spec.connect).await?;
        writers::mark_writer(&writing, key).await?;
        let target = TargetSession::new(writing, routes.clone(), false).await?;
        let writer = CheckpointWriter::new(target.session(), lane.key.clone(), lane.generation).await?;
        let progress = Progress::resume(lane.applied, confirmed);
        let options = ApplyOptions { wanted: wanted.clone(), ..ApplyOptions::default() };
        list.push(match &mut flusher {
            Some(flusher) => Applier::beside(flusher, target, writer, progress, options),
            None => {
                let flushing = pg::connect(spec.connect).await?;
                flushing.batch_execute("SET synchronous_commit = on").await?;
                let (applier, first, report) = Applier::new(target, flushing, writer, progress, options);
                flusher = Some(first);
                (applier, report)
            }
        });
    }
    let flusher = flusher.ok_or_else(|| RepackError::Internal("nobody applies changes".to_owned()))?;
    Ok(Lanes::new(list, flusher))
}

/// Behind the last batch that is in the shadow as a whole; some lanes may have some behind it.
async fn queue_reader(
    spec: &FollowSpec<'_>,
    (key, generation): (&StreamKey, i64),
    (from, furthest): (Lsn, Lsn),
    limits: GroupLimits,
    written: watch::Receiver<Written>,
) -> Result<QueueReader, RepackError> {
    let (session, cleaning) = (pg::connect(spec.connect).await?, pg::connect(spec.connect).await?);
    for ours in [&session, &cleaning] {
        // Whoever takes over ends them.
        writers::mark_writer(ours, key).await?;
    }
    let consumer = Consumer { name: spec.slot.to_owned(), queue: spec.source.oid, generation };
    let options = QueueOptions {
        from,
        furthest,
        batch_changes: limits.changes.min(pipeline::BATCH_CHANGES),
        batch_bytes: 1 << 20,
    };
    let table = QueueTable::new(spec.source);
    let opened = QueueReader::open(session, cleaning, table, consumer, options, written).await;
    Ok(opened.map_err(FlowError::Capture)?)
}

/// As the slot's plugin wants it, whatever is configured now.
async fn reading(session: &Session, spec: &FollowSpec<'_>) -> Result<Reading, RepackError> {
    let sql = "SELECT plugin::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = session.query_opt(sql, &[&spec.slot]).await?;
    let plugin: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
    if plugin.as_deref().and_then(Plugin::from_name) != Some(Plugin::Wal2json) {
        return Ok(Reading::Pgoutput { publications: publications(spec.slot), messages: true });
    }
    let columns = wal2json::lossy_columns(spec.source, None);
    let numbers = match (columns.is_empty(), spec.allow_lossy_numbers) {
        (true, _) => Numbers::NotUsed,
        (false, true) => Numbers::MayBeLost,
        (false, false) => Numbers::Whole(columns),
    };
    let tables = wal2json::known_tables(session, &[(spec.source, false)]).await.map_err(FlowError::Setup)?;
    Ok(Reading::Wal2json { tables, numbers })
}

async fn confirmed(session: &Session, slot: &str) -> Result<Lsn, RepackError> {
    let sql = "SELECT coalesce(confirmed_flush_lsn, '0/0')::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = session.query_opt(sql, &[&slot]).await?;
    let text: String = match row {
        Some(row) => row.try_get(0)?,
        None => return Err(RepackError::Internal(format!("slot \"{slot}\" is not there"))),
    };
    text.parse().map_err(|_| RepackError::Damaged("a position of the server".to_owned()))
}

/// Everything of the table goes into the shadow, strictly: a row that is missing, or there already, ends the repack.
fn route(spec: &FollowSpec<'_>) -> Route {
    let columns: Vec<_> = spec.shadow.columns.iter().filter(|c| c.generated.is_none()).collect();
    let position =
        |name: &String| columns.iter().position(|c| c.name == *name).and_then(|i| u16::try_from(i).ok());
    let rewrite = |name: &str| spec.rewrites.iter().find(|(n, _)| n == name).map(|(_, sql)| sql.clone());
    Route {
        source: spec.source.name.clone(),
        published: vec![spec.source.name.clone()],
        target: spec.shadow.name.clone(),
        shape: ShapeTable {
            sql_name: spec.shadow.name.to_string(),
            columns: columns
                .iter()
                .map(|c| ShapeColumn {
                    name: c.name.clone(),
                    input_type: c.input_type_sql.clone(),
                    rewrite: rewrite(&c.name),
                })
                .collect(),
            key: spec.key.iter().filter_map(position).collect(),
            deleted_column: None,
            fixed_key: false,
        },
        delivery: Delivery::Dml,
        on_conflict: OnConflict::Stop,
        // The slot begins where the snapshot ends: there is nothing to leave out.
        copied_at: Lsn::INVALID,
        known_columns: Some(
            spec.source
                .columns
                .iter()
                .filter(|c| c.generated.is_none())
                .map(|c| ShapeFingerprint {
                    name: c.name.clone(),
                    type_oid: c.type_oid,
                    type_modifier: c.type_modifier,
                    attnum: c.attnum,
                    accepted: false,
                })
                .collect(),
        ),
        columns_chosen: false,
        has_extra_columns: false,
        identity_always_key: false,
        copy_allowed: spec.rewrites.is_empty(),
        replace_allowed: true,
        // The shadow's own constraints may not be there yet.
        has_deferrable: spec.source.constraints.iter().any(|c| c.deferrable),
        ignored_columns: spec
            .shadow
            .columns
            .iter()
            .filter(|c| c.generated.is_some())
            .map(|c| c.name.clone())
            .collect(),
        former_names: Vec::new(),
    }
}
