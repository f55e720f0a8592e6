//! How a stream starts: from the facts in both databases, the next thing to do. Pure.
//!
//! The state is in the databases alone: every step makes one durable fact true, and after a crash at any point the
//! same question is asked again. What a process holds in memory, an exported snapshot, is a fact too, which a crash
//! makes false.
//!
//! Order of the facts (DESIGN, "Seam"): publication → intention in the target → slot → slot recorded → for each table
//! "copying, ours" → rows → "copied". The slot is made once. A table whose copy was cut off is emptied and copied anew
//! under a younger snapshot (of a temporary slot); the stream skips this table's changes up to that point. A table
//! that joins later takes the same way.

use crate::model::{Lsn, TableName};

/// The source's identity (IDENTIFY_SYSTEM) and where its timelines forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFacts {
    /// Unique system identifier.
    pub system_id: String,
    /// Current timeline.
    pub timeline: u32,
    /// `(timeline, where it ended)` of each ancestor of the current timeline.
    pub history: Vec<(u32, Lsn)>,
}

/// The replication slot as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// Output plugin.
    pub plugin: String,
    /// It belongs to the source's database.
    pub same_database: bool,
    /// The walsender that uses it.
    pub active_pid: Option<i32>,
    /// `confirmed_flush_lsn`.
    pub confirmed: Lsn,
    /// `wal_status = 'lost'` or an invalidation reason: needed WAL is gone.
    pub lost: bool,
    /// It was synchronised from a primary (PostgreSQL 17), and so survives a failover.
    pub synced: bool,
}

/// How far the set-up of the stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The slot is about to be made, or was made and not yet recorded.
    Creating,
    /// The slot is recorded; the position is valid.
    Ready,
}

/// Our position row in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// See [`Phase`].
    pub phase: Phase,
    /// System the position belongs to.
    pub system_id: String,
    /// Timeline the position belongs to.
    pub timeline: u32,
    /// Slot the position belongs to.
    pub slot: String,
    /// Everything that committed before it is in the target. Meaningless while creating.
    pub applied: Lsn,
}

/// State of one target table, from `repcloud.table_state` and from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFact {
    /// Not known to this stream yet; `rows`: the target table exists and holds rows; `copy`: first rows are wanted.
    New {
        /// Rows are there.
        rows: bool,
        /// Rows are wanted.
        copy: bool,
    },
    /// Marked as ours and unfinished by a process that is gone, or marked for another copy by `reset`.
    CopyCutOff,
    /// Marked by this process under the snapshot it holds.
    Copying,
    /// Streaming.
    Copied,
    /// Its changes wait in the target, beside the stream; or it is given up until a person says how to go on. Neither
    /// holds up the others.
    Aside,
}

/// Everything the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The source.
    pub system: SystemFacts,
    /// Name of the stream's slot.
    pub slot_name: String,
    /// The DBA made the slot; we neither create nor drop it.
    pub slot_is_given: bool,
    /// The slot, if it exists.
    pub slot: Option<SlotFacts>,
    /// The plugin we ask for.
    pub plugin: String,
    /// The publication publishes every table.
    pub published: bool,
    /// Our position row, if it exists.
    pub checkpoint: Option<CheckpointFacts>,
    /// The consistent point of the snapshot this process holds.
    pub snapshot: Option<Lsn>,
    /// By target table.
    pub tables: Vec<(TableName, TableFact)>,
}

/// The next thing to do. Each makes one fact true, or finds it true already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create or extend the publication, in one transaction.
    Publish,
    /// Write the checkpoint row in phase `Creating`, durably.
    RecordIntention,
    /// Create the slot, keeping its exported snapshot.
    CreateSlot,
    /// Set the checkpoint to `Ready` at this position, durably.
    RecordSlot {
        /// Where the stream begins.
        at: Lsn,
    },
    /// Make a temporary slot and keep its exported snapshot.
    TakeSnapshot,
    /// In one target transaction: make the table if it is missing, empty it if it is ours and unfinished, mark it
    /// copying under `at`.
    BeginCopy {
        /// Target table.
        table: TableName,
        /// Consistent point of the snapshot.
        at: Lsn,
        /// Rows of an earlier, unfinished copy go.
        empty: bool,
    },
    /// Copy the rows of all tables that are `Copying`, build their indexes, and mark each copied when it is finished.
    CopyRows,
    /// Mark a table streaming without a copy.
    Adopt {
        /// Target table.
        table: TableName,
    },
    /// Let go of the snapshot.
    ReleaseSnapshot,
    /// Stream from the checkpoint.
    Stream {
        /// `START_REPLICATION`'s position.
        from: Lsn,
        /// The source was promoted along a history that contains the checkpoint: record the new timeline.
        new_timeline: Option<u32>,
    },
    /// A person must decide.
    Stop(StopReason),
}

/// Why a stream does not start, with the choices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A slot of our name that we did not make.
    #[error(
        "slot \"{slot}\" exists on the source but the target knows nothing of it; it belongs to another stream or to a target that was restored"
    )]
    SlotForeign {
        /// Slot.
        slot: String,
    },
    /// The configured slot does not exist.
    #[error("slot \"{slot}\", which the configuration names, does not exist on the source")]
    GivenSlotMissing {
        /// Slot.
        slot: String,
    },
    /// Our slot is gone.
    #[error("slot \"{slot}\" is gone from the source; what was written since {applied} is not in the target")]
    SlotMissing {
        /// Slot.
        slot: String,
        /// Checkpoint.
        applied: Lsn,
    },
    /// The server gave up the slot's WAL.
    #[error(
        "slot \"{slot}\" has lost WAL it needs (max_slot_wal_keep_size or an idle timeout); what was written since {applied} is not in the target"
    )]
    SlotLost {
        /// Slot.
        slot: String,
        /// Checkpoint.
        applied: Lsn,
    },
    /// The slot would silently forward us past changes.
    #[error(
        "slot \"{slot}\" is confirmed up to {confirmed}, beyond the target's position {applied}: another consumer has used it, or the target was restored from a backup; the changes between are not to be had from it"
    )]
    SlotAhead {
        /// Slot.
        slot: String,
        /// Slot's position.
        confirmed: Lsn,
        /// Checkpoint.
        applied: Lsn,
    },
    /// Somebody else reads it.
    #[error("slot \"{slot}\" is in use by process {pid} of the source")]
    SlotActive {
        /// Slot.
        slot: String,
        /// Walsender.
        pid: i32,
    },
    /// Another plugin or database.
    #[error("slot \"{slot}\" is not a {plugin} slot of this database")]
    SlotUnfit {
        /// Slot.
        slot: String,
        /// Plugin we need.
        plugin: String,
    },
    /// The position belongs to another slot.
    #[error("the target's position belongs to slot \"{recorded}\", not to \"{slot}\"")]
    SlotRenamed {
        /// Slot now configured.
        slot: String,
        /// Slot of the checkpoint.
        recorded: String,
    },
    /// Another cluster answers.
    #[error("the source is another system than before (system identifier {now}, was {before})")]
    OtherSystem {
        /// Now.
        now: String,
        /// Recorded.
        before: String,
    },
    /// A promotion that may have lost what we have.
    #[error(
        "the source is on timeline {now}, was on {before}: it was promoted or restored, and that the target's position {applied} lies in its history is not certain"
    )]
    OtherTimeline {
        /// Now.
        now: u32,
        /// Recorded.
        before: u32,
        /// Checkpoint.
        applied: Lsn,
    },
    /// Rows we did not write.
    #[error("target table {table} already holds rows; it is not overwritten")]
    TargetHoldsRows {
        /// Table.
        table: TableName,
    },
}

impl StopReason {
    /// What happened and what can be done, in one text.
    pub(crate) fn with_hint(&self, source: &str) -> String {
        format!("{self}; {}", self.hint(source))
    }

    /// What a person can do, as command lines and settings. `source` is the connection's name.
    pub fn hint(&self, source: &str) -> String {
        let reset = format!("repcloud reset --source {source}");
        match self {
            StopReason::SlotForeign { slot } => format!(
                "if nothing uses it: SELECT pg_drop_replication_slot('{slot}') on the source, then start again; if the target was restored: {reset} --all --recopy"
            ),
            StopReason::GivenSlotMissing { slot } => {
                format!(
                    "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput') on the source, or remove slot_name from the configuration"
                )
            }
            StopReason::SlotMissing { .. } | StopReason::SlotLost { .. } | StopReason::SlotAhead { .. } => {
                format!(
                    "copy everything again: {reset} --all --recopy; or accept the target as it is, without the changes between: {reset} --all --accept-target"
                )
            }
            StopReason::SlotActive { pid, .. } => format!(
                "stop the other process; if it is a left-over connection: SELECT pg_terminate_backend({pid}) on the source"
            ),
            StopReason::SlotUnfit { .. } => {
                "choose another slot_name, or drop the slot on the source".to_owned()
            }
            StopReason::SlotRenamed { recorded, .. } => {
                format!("set slot_name = \"{recorded}\" again, or start over: {reset} --all --recopy")
            }
            StopReason::OtherSystem { .. } | StopReason::OtherTimeline { .. } => format!(
                "if it is the same data and the slot came with it: {reset} --all --accept-system; else copy everything again: {reset} --all --recopy"
            ),
            StopReason::TargetHoldsRows { table } => format!(
                "keep them as first rows: copy = false; or replace them: TRUNCATE {table} on the target, or {reset} --table {table} --recopy"
            ),
        }
    }
}

/// The next step from `facts`.
pub fn next_step(facts: &Facts) -> Step {
    match &facts.checkpoint {
        None => begin(facts),
        Some(checkpoint) => {
            if checkpoint.slot != facts.slot_name {
                return Step::Stop(StopReason::SlotRenamed {
                    slot: facts.slot_name.clone(),
                    recorded: checkpoint.slot.clone(),
                });
            }
            match checkpoint.phase {
                Phase::Creating => create(facts),
                Phase::Ready => proceed(facts, checkpoint),
            }
        }
    }
}

/// Nothing is recorded: refuse what must be refused before anything is written.
fn begin(facts: &Facts) -> Step {
    if let Some(reason) = unfit(facts).or_else(|| holds_rows(facts)) {
        return Step::Stop(reason);
    }
    let slot = facts.slot_name.clone();
    match (&facts.slot, facts.slot_is_given) {
        (Some(_), false) => Step::Stop(StopReason::SlotForeign { slot }),
        (None, true) => Step::Stop(StopReason::GivenSlotMissing { slot }),
        _ if !facts.published => Step::Publish,
        _ => Step::RecordIntention,
    }
}

/// The intention is recorded: a slot of that name is ours, made before a crash or just now.
fn create(facts: &Facts) -> Step {
    if let Some(reason) = unfit(facts).or_else(|| holds_rows(facts)) {
        return Step::Stop(reason);
    }
    match &facts.slot {
        _ if !facts.published => Step::Publish,
        None if facts.slot_is_given => {
            Step::Stop(StopReason::GivenSlotMissing { slot: facts.slot_name.clone() })
        }
        None => Step::CreateSlot,
        // Nothing has been read from it: its confirmed position is its consistent point.
        Some(slot) => Step::RecordSlot { at: slot.confirmed },
    }
}

fn proceed(facts: &Facts, checkpoint: &CheckpointFacts) -> Step {
    let new_timeline = match check_slot(facts, checkpoint) {
        Ok(new_timeline) => new_timeline,
        Err(reason) => return Step::Stop(reason),
    };
    if let Some(reason) = holds_rows(facts) {
        return Step::Stop(reason);
    }
    if !facts.published {
        return Step::Publish;
    }
    for (table, fact) in &facts.tables {
        let table = table.clone();
        let empty = *fact == TableFact::CopyCutOff;
        match (fact, facts.snapshot) {
            (TableFact::New { copy: false, .. }, _) => return Step::Adopt { table },
            (TableFact::New { .. } | TableFact::CopyCutOff, None) => return Step::TakeSnapshot,
            (TableFact::New { .. } | TableFact::CopyCutOff, Some(at)) => {
                return Step::BeginCopy { table, at, empty };
            }
            (TableFact::Copying | TableFact::Copied | TableFact::Aside, _) => {}
        }
    }
    if facts.tables.iter().any(|(_, fact)| *fact == TableFact::Copying) {
        return Step::CopyRows;
    }
    match facts.snapshot {
        Some(_) => Step::ReleaseSnapshot,
        None => Step::Stream { from: checkpoint.applied, new_timeline },
    }
}

/// The slot must be able to give everything since the checkpoint. `Ok(Some(timeline))`: a promotion to accept.
fn check_slot(facts: &Facts, checkpoint: &CheckpointFacts) -> Result<Option<u32>, StopReason> {
    let slot_name = facts.slot_name.clone();
    let applied = checkpoint.applied;
    if facts.system.system_id != checkpoint.system_id {
        return Err(StopReason::OtherSystem {
            now: facts.system.system_id.clone(),
            before: checkpoint.system_id.clone(),
        });
    }
    let Some(slot) = &facts.slot else {
        return Err(StopReason::SlotMissing { slot: slot_name, applied });
    };
    if slot.lost {
        return Err(StopReason::SlotLost { slot: slot_name, applied });
    }
    if let Some(reason) = unfit(facts) {
        return Err(reason);
    }
    if slot.confirmed > applied {
        return Err(StopReason::SlotAhead { slot: slot_name, confirmed: slot.confirmed, applied });
    }
    if facts.system.timeline == checkpoint.timeline {
        return Ok(None);
    }
    let in_history =
        facts.system.history.iter().any(|&(timeline, end)| timeline == checkpoint.timeline && end >= applied);
    match in_history && slot.synced {
        true => Ok(Some(facts.system.timeline)),
        false => Err(StopReason::OtherTimeline {
            now: facts.system.timeline,
            before: checkpoint.timeline,
            applied,
        }),
    }
}

fn unfit(facts: &Facts) -> Option<StopReason> {
    let slot = facts.slot.as_ref()?;
    let name = facts.slot_name.clone();
    if slot.plugin != facts.plugin || !slot.same_database {
        return Some(StopReason::SlotUnfit { slot: name, plugin: facts.plugin.clone() });
    }
    slot.active_pid.map(|pid| StopReason::SlotActive { slot: name, pid })
}

fn holds_rows(facts: &Facts) -> Option<StopReason> {
    let held = facts.tables.iter().find(|(_, f)| matches!(f, TableFact::New { rows: true, copy: true }))?;
    Some(StopReason::TargetHoldsRows { table: held.0.clone() })
}
