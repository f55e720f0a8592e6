//! Why a stream does not start, in words, with what a person can do. Pure.

use crate::capture::Plugin;
use crate::model::{Lsn, TableName};

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
        /// Plugin we need.
        plugin: String,
    },
    /// The server has given up the configured slot before anything was read from it.
    #[error(
        "slot \"{slot}\", which the configuration names, has lost WAL it needs (max_slot_wal_keep_size or an idle timeout): nothing can be read from it"
    )]
    GivenSlotLost {
        /// Slot.
        slot: String,
        /// Plugin we need.
        plugin: String,
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
    /// Another plugin.
    #[error("slot \"{slot}\" was made for plugin {found}, and {plugin} is to read it")]
    SlotUnfit {
        /// Slot.
        slot: String,
        /// Its plugin.
        found: String,
        /// Plugin we need.
        plugin: String,
    },
    /// Another database of the server has a slot of this name.
    #[error(
        "slot \"{slot}\" belongs to database \"{database}\" of the source's server; a server has each slot name once, so this stream needs another one"
    )]
    SlotElsewhere {
        /// Slot.
        slot: String,
        /// Whose it is.
        database: String,
        /// The configuration names it.
        given: bool,
    },
    /// A physical slot has this name.
    #[error("slot \"{slot}\" is a physical one, for a standby or an archive; a stream needs a logical one")]
    SlotPhysical {
        /// Slot.
        slot: String,
        /// The configuration names it.
        given: bool,
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
            StopReason::GivenSlotMissing { slot, plugin } => {
                format!("{} on the source, or remove slot_name from the configuration", make(slot, plugin))
            }
            StopReason::GivenSlotLost { slot, plugin } => {
                format!(
                    "SELECT pg_drop_replication_slot('{slot}'), then {} on the source, or remove slot_name from the configuration",
                    make(slot, plugin)
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
            StopReason::SlotUnfit { slot, found, plugin } => {
                let read_it = Plugin::from_name(found);
                let read_it =
                    read_it.map(|p| format!("set plugin = \"{}\" on connection {source}; or, ", p.as_str()));
                format!(
                    "{}if nothing needs what it holds, SELECT pg_drop_replication_slot('{slot}'), then {} on the source",
                    read_it.unwrap_or_default(),
                    make(slot, plugin)
                )
            }
            StopReason::SlotElsewhere { slot, given, .. } | StopReason::SlotPhysical { slot, given } => {
                format!(
                    "{}; where the stream had begun: {reset} --all --recopy",
                    another_slot(source, slot, *given)
                )
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

/// The statement that makes a slot.
fn make(slot: &str, plugin: &str) -> String {
    format!("SELECT pg_create_logical_replication_slot('{slot}', '{plugin}')")
}

/// How a stream comes to a slot of another name.
fn another_slot(source: &str, slot: &str, given: bool) -> String {
    const LONGEST: usize = 63;
    let other: String = slot.chars().take(LONGEST - 2).chain("_2".chars()).collect();
    let (make, key) = (make(&other, "pgoutput"), format!("slot_name = \"{other}\" on connection {source}"));
    match given {
        true => format!("{make} in the source's database, and set {key}"),
        false => format!(
            "give connection {source} another name, which is part of the slot's; or {make} in the source's database, and set {key}, with a \
             publication for it"
        ),
    }
}
