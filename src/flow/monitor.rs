//! Watches a running stream from the side: the slot, the lag, the partitions, and whether the end is reached.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::apply::ApplyReport;
use crate::catalog::{TableKind, read_table};
use crate::flow::error::FlowError;
use crate::flow::facts::{self, SlotRow};
use crate::flow::leaves;
use crate::flow::options::StreamOptions;
use crate::flow::status::Board;
use crate::flow::view::StreamState;
use crate::flow::work::TableWork;
use crate::model::{Events, Lsn};
use crate::pg::Session;

/// See the module.
pub(crate) struct Monitor<'a> {
    pub(crate) options: &'a StreamOptions,
    pub(crate) events: &'a Events,
    pub(crate) board: &'a Board,
    pub(crate) source: &'a Session,
    pub(crate) work: &'a [TableWork],
    pub(crate) until: Option<Lsn>,
}

/// What is looked at on the source, and how often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PARTITIONS_EVERY: u32 = 10;
/// A lag below which the stream counts as caught up: keepalives and standby snapshots of an idle server.
const CAUGHT_UP_BYTES: u64 = 64 << 10;

impl Monitor<'_> {
    /// Runs until the end is reached (`Ok`), or something is wrong.
    pub(crate) async fn run(self, mut report: watch::Receiver<ApplyReport>) -> Result<(), FlowError> {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alarmed = false;
        let mut previous: Option<SlotRow> = None;
        for round in 0_u32.. {
            // Looked at in between: nearing the end, a second is long.
            loop {
                tokio::select! {
                    _ = tick.tick() => break,
                    changed = report.changed() => {
                        if changed.is_err() {
                            // The applier's own result tells why.
                            std::future::pending::<()>().await;
                        }
                        let now = *report.borrow_and_update();
                        if self.until.is_some_and(|until| now.durable >= until) && self.confirmed().await? {
                            return Ok(());
                        }
                    }
                }
            }
            let now = *report.borrow();
            let slot = facts::read_slot(self.source, &self.options.slot()).await?;
            if let Some(slot) = slot {
                self.show(&slot, previous.as_ref(), &now);
                alarmed = self.alarm(&slot, alarmed);
                if self.until.is_some_and(|until| slot.facts.confirmed >= until) {
                    return Ok(());
                }
                previous = Some(slot);
            }
            if round % PARTITIONS_EVERY == 0 {
                self.check_partitions().await?;
            }
        }
        Ok(())
    }

    async fn confirmed(&self) -> Result<bool, FlowError> {
        let slot = facts::read_slot(self.source, &self.options.slot()).await?;
        Ok(slot.is_some_and(|s| self.until.is_some_and(|until| s.facts.confirmed >= until)))
    }

    fn show(&self, slot: &SlotRow, previous: Option<&SlotRow>, report: &ApplyReport) {
        let lag = slot.source_end.bytes_since(report.applied);
        let seconds = match report.commit_time {
            _ if lag <= CAUGHT_UP_BYTES => 0.0,
            Some(time) => crate::flow::clock::seconds_since(time),
            None => 0.0,
        };
        let written = previous.map_or(0, |p| slot.source_end.bytes_since(p.source_end));
        self.board.update(|v| {
            v.pid = Some(std::process::id());
            v.applied_lsn = report.applied;
            v.confirmed_lsn = slot.facts.confirmed;
            v.received_lsn = v.received_lsn.max(report.applied);
            v.lag_bytes = lag;
            v.lag_seconds = seconds;
            v.retained_wal_bytes = slot.retained;
            v.slot_status = slot.wal_status.clone();
            v.seconds_to_slot_loss = match (slot.safe, written) {
                (Some(safe), 1..) => Some(safe as f64 / written as f64 * LOOK_EVERY.as_secs_f64()),
                _ => None,
            };
            v.changes_applied = report.changes;
            v.state = if lag <= CAUGHT_UP_BYTES { StreamState::Streaming } else { StreamState::CatchingUp };
        });
    }

    fn alarm(&self, slot: &SlotRow, alarmed: bool) -> bool {
        let Some(limit) = self.options.max_retained_wal else { return false };
        let over = slot.retained > limit;
        if over && !alarmed {
            self.events.warning(format!(
                "slot \"{}\" makes the source keep {} MB of WAL, more than max_retained_wal ({} MB)",
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
