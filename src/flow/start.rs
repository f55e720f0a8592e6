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

pub use crate::flow::stop_reason::StopReason;
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
    /// Whether it can be a stream's of this source at all.
    pub place: SlotPlace,
    /// The walsender that uses it.
    pub active_pid: Option<i32>,
    /// `confirmed_flush_lsn`.
    pub confirmed: Lsn,
    /// `wal_status = 'lost'` or an invalidation reason: needed WAL is gone.
    pub lost: bool,
    /// It was synchronised from a primary (PostgreSQL 17), and so survives a failover.
    pub synced: bool,
}

/// Of what a slot is. Names of slots are a server's, and logical ones read one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotPlace {
    /// Of the source's database.
    Here,
    /// Of this other database of the server.
    Elsewhere(String),
    /// Of a standby or an archive: no changes of rows are to be had from it.
    Physical,
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
        (None, true) => Step::Stop(StopReason::GivenSlotMissing { slot, plugin: facts.plugin.clone() }),
        (Some(given), true) if given.lost => {
            Step::Stop(StopReason::GivenSlotLost { slot, plugin: facts.plugin.clone() })
        }
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
            let (slot, plugin) = (facts.slot_name.clone(), facts.plugin.clone());
            Step::Stop(StopReason::GivenSlotMissing { slot, plugin })
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
    if let Some(reason) = foreign(facts) {
        return Err(reason);
    }
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

/// The slot called `name`, which the configuration names or not, can be no stream's of this source.
pub(crate) fn not_ours(name: &str, given: bool, found: &SlotFacts) -> Option<StopReason> {
    let slot = name.to_owned();
    match &found.place {
        SlotPlace::Here => None,
        SlotPlace::Elsewhere(database) => {
            Some(StopReason::SlotElsewhere { slot, database: database.clone(), given })
        }
        SlotPlace::Physical => Some(StopReason::SlotPhysical { slot, given }),
    }
}

/// The slot of our name cannot be this stream's.
fn foreign(facts: &Facts) -> Option<StopReason> {
    let found = facts.slot.as_ref()?;
    let other_plugin = || {
        let (slot, plugin) = (facts.slot_name.clone(), facts.plugin.clone());
        (found.plugin != plugin).then(|| StopReason::SlotUnfit { slot, found: found.plugin.clone(), plugin })
    };
    not_ours(&facts.slot_name, facts.slot_is_given, found).or_else(other_plugin)
}

fn unfit(facts: &Facts) -> Option<StopReason> {
    let active = || {
        let pid = facts.slot.as_ref()?.active_pid?;
        Some(StopReason::SlotActive { slot: facts.slot_name.clone(), pid })
    };
    foreign(facts).or_else(active)
}

fn holds_rows(facts: &Facts) -> Option<StopReason> {
    let held = facts.tables.iter().find(|(_, f)| matches!(f, TableFact::New { rows: true, copy: true }))?;
    Some(StopReason::TargetHoldsRows { table: held.0.clone() })
}
