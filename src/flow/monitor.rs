//! Watches a running stream from the side: the slot, the lag, the partitions, and whether the end is reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::apply::checkpoint::{self, StreamKey};
use crate::apply::route::RouteTable;
use crate::apply::{ApplyReport, skip, state_read};
use crate::catalog::{TableKind, read_table};
use crate::flow::error::FlowError;
use crate::flow::facts::{self, SlotRow};
use crate::flow::followed;
use crate::flow::leaves;
use crate::flow::options::StreamOptions;
use crate::flow::prepare::Shapes;
use crate::flow::remade;
use crate::flow::replaced;
use crate::flow::status::Board;
use crate::flow::view::{StreamState, StreamView};
use crate::flow::work::TableWork;
use crate::model::{Events, Lsn};
use crate::pg::Session;

/// See the module.
pub(crate) struct Monitor<'a> {
    pub(crate) options: &'a StreamOptions,
    pub(crate) events: &'a Events,
    pub(crate) board: &'a Board,
    pub(crate) source: &'a Session,
    pub(crate) target: &'a Session,
    pub(crate) watched: Watched,
    pub(crate) shapes: Shapes,
    /// To the applier: a position somebody waits for.
    pub(crate) wanted: watch::Sender<Lsn>,
    /// Some transactions are to be left out.
    pub(crate) skips: bool,
    pub(crate) work: &'a [TableWork],
    pub(crate) until: Option<Lsn>,
}

/// What the running tasks show of themselves.
pub(crate) struct Watched {
    received: Arc<AtomicU64>,
    routes: Arc<RouteTable>,
    /// Changes of each route before this connection began.
    before: Vec<u64>,
    /// The same of all.
    all_before: u64,
}

impl Watched {
    pub(crate) fn new(received: Arc<AtomicU64>, routes: Arc<RouteTable>, board: &Board) -> Self {
        let view = board.view();
        let changes = |name: String| {
            view.tables.iter().find(|t| t.target_table == name).map_or(0, |t| t.changes_applied)
        };
        let before = routes.routes().iter().map(|r| changes(r.target.to_string())).collect();
        Watched { received, routes, before, all_before: view.changes_applied }
    }

    fn show(&self, view: &mut StreamView) {
        view.received_lsn = view.received_lsn.max(Lsn(self.received.load(Ordering::Relaxed)));
        for ((id, route), before) in self.routes.routes().iter().enumerate().zip(&self.before) {
            let name = route.target.to_string();
            if let Some(table) = view.tables.iter_mut().find(|t| t.target_table == name) {
                table.changes_applied = before + self.routes.counted(id);
            }
        }
    }
}

/// Tells of transactions that were to be left out and that the position has passed without meeting them.
pub(crate) async fn tell_unmatched(
    target: &Session,
    key: &StreamKey,
    events: &Events,
) -> Result<(), FlowError> {
    for lsn in skip::remove_unmatched(target, key).await? {
        events.warning(format!(
            "skip: no transaction with its commit at {lsn} came by, and the position is beyond it now; nothing was left out, the request is removed"
        ));
    }
    Ok(())
}

/// What is looked at on the source, and how often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PARTITIONS_EVERY: u32 = 10;
/// How often the slot is looked at once only its confirmation is missing.
const NEAR_END: Duration = Duration::from_millis(20);
/// A lag below which the stream counts as caught up: keepalives and standby snapshots of an idle server.
pub(crate) const CAUGHT_UP_BYTES: u64 = 64 << 10;

impl Monitor<'_> {
    /// Runs until the end is reached (`Ok`), or something is wrong.
    pub(crate) async fn run(mut self, mut report: watch::Receiver<ApplyReport>) -> Result<(), FlowError> {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alarmed = false;
        let mut previous: Option<SlotRow> = None;
        for round in 0_u32.. {
            // Looked at in between: nearing the end, a second is long.
            loop {
                tokio::select! {
                    _ = tick.tick() => break,
                    () = tokio::time::sleep(NEAR_END), if self.until.is_some_and(|u| report.borrow().durable >= u) => {
                        let now = *report.borrow();
                        if self.confirmed().await? {
                            return self.end(&now).await;
                        }
                    }
                    changed = report.changed() => {
                        if changed.is_err() {
                            // The applier's own result tells why.
                            std::future::pending::<()>().await;
                        }
                        let now = *report.borrow_and_update();
                        if self.until.is_some_and(|until| now.durable >= until) && self.confirmed().await? {
                            return self.end(&now).await;
                        }
                    }
                }
            }
            let now = *report.borrow();
            let slot = facts::read_place(self.source, self.options).await?;
            if let Some(slot) = slot {
                self.show(&slot, previous.as_ref(), &now);
                alarmed = self.alarm(&slot, alarmed);
                if self.until.is_some_and(|until| slot.facts.confirmed >= until) {
                    return self.end(&now).await;
                }
                previous = Some(slot);
            }
            self.record_shapes(&now).await?;
            if let Some(wanted) = state_read::wanted_position(self.target, &self.options.key).await? {
                self.wanted.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
            }
            if self.skips && round % PARTITIONS_EVERY == 0 {
                tell_unmatched(self.target, &self.options.key, self.events).await?;
            }
            if round % PARTITIONS_EVERY == 0 {
                self.check_partitions().await?;
                let both = (self.source, self.target);
                let mut others = replaced::find(both, &self.options.key, self.work).await?;
                others.extend(remade::find(self.target, &self.options.key, self.work).await?);
                if let Some(error) = others.pop() {
                    return Err(error);
                }
                followed::withdraw(self.source, self.options, self.events).await?;
                followed::mark_gaps(self.source, self.target, self.options, self.work, self.events).await?;
            }
        }
        Ok(())
    }

    /// The end is reached: what is shown last must be what is true.
    async fn end(&mut self, now: &ApplyReport) -> Result<(), FlowError> {
        self.board.update(|v| {
            self.watched.show(v);
            v.applied_lsn = now.applied;
            v.confirmed_lsn = v.confirmed_lsn.max(now.durable);
            v.received_lsn = v.received_lsn.max(now.applied);
            v.changes_applied = self.watched.all_before + now.changes;
            (v.lag_bytes, v.lag_seconds) = (0, 0.0);
        });
        self.record_shapes(now).await?;
        tell_unmatched(self.target, &self.options.key, self.events).await
    }

    /// Every change that was described in an older way has passed.
    async fn record_shapes(&mut self, now: &ApplyReport) -> Result<(), FlowError> {
        if now.durable < self.shapes.at {
            return Ok(());
        }
        for (table, columns) in self.shapes.tables.drain(..) {
            checkpoint::set_known_columns(self.target, &self.options.key, &table, &columns).await?;
        }
        Ok(())
    }

    async fn confirmed(&self) -> Result<bool, FlowError> {
        if self.options.by_triggers() {
            // What is durable on the target is all there is to wait for.
            return Ok(true);
        }
        let slot = facts::read_slot(self.source, &self.options.slot()).await?;
        Ok(slot.is_some_and(|s| self.until.is_some_and(|until| s.facts.confirmed >= until)))
    }

    fn show(&self, slot: &SlotRow, previous: Option<&SlotRow>, report: &ApplyReport) {
        let lag = slot.source_end.bytes_since(report.applied);
        let seconds = match report.commit_time {
            _ if slot.waiting_seconds.is_some() => slot.waiting_seconds.unwrap_or_default(),
            _ if lag <= CAUGHT_UP_BYTES => 0.0,
            Some(time) => crate::flow::clock::seconds_since(time),
            None => 0.0,
        };
        let written = previous.map_or(0, |p| slot.source_end.bytes_since(p.source_end));
        self.board.update(|v| {
            v.pid = Some(std::process::id());
            v.applied_lsn = report.applied;
            v.confirmed_lsn = slot.facts.confirmed;
            self.watched.show(v);
            v.received_lsn = v.received_lsn.max(report.applied);
            v.lag_bytes = lag;
            v.lag_seconds = seconds;
            v.retained_wal_bytes = slot.retained;
            v.slot_status = slot.wal_status.clone();
            v.seconds_to_slot_loss = match (slot.safe, written) {
                (Some(safe), 1..) => Some(safe as f64 / written as f64 * LOOK_EVERY.as_secs_f64()),
                _ => None,
            };
            v.changes_applied = self.watched.all_before + report.changes;
            v.state = if lag <= CAUGHT_UP_BYTES { StreamState::Streaming } else { StreamState::CatchingUp };
        });
    }

    fn alarm(&self, slot: &SlotRow, alarmed: bool) -> bool {
        let Some(limit) = self.options.max_retained_wal else { return false };
        let over = slot.retained > limit;
        if over && !alarmed {
            let what = if self.options.by_triggers() { "the queues of" } else { "the WAL for slot" };
            self.events.warning(format!(
                "{what} \"{}\" takes {} MB on the source, more than max_retained_wal ({} MB)",
                self.options.slot(),
                slot.retained >> 20,
                limit >> 20
            ));
        }
        over
    }

    /// A leaf that was attached or detached is a change of shape the stream itself does not tell.
    async fn check_partitions(&self) -> Result<(), FlowError> {
        for work in self.work.iter().filter(|w| w.source.kind == TableKind::Partitioned) {
            let now = read_table(self.source, &work.source.name).await?;
            leaves::check_published(&self.options.key, work, &now.map(|t| t.leaves).unwrap_or_default())?;
        }
        Ok(())
    }
}
