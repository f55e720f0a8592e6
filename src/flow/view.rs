//! What a stream shows of itself: `status --json` (CONTRACT 4), progress lines, metrics. Plain data.

use serde::{Deserialize, Serialize};

use crate::apply::checkpoint::{TableRecord, TableState};
use crate::model::Lsn;

/// State of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// First rows are on their way.
    Copying,
    /// Changes flow, behind the source.
    CatchingUp,
    /// Changes flow.
    Streaming,
    /// Held by `pause`.
    Paused,
    /// No process runs it.
    #[default]
    Stopped,
    /// It stopped with an error.
    Failed,
}

/// One stream, as `status --json` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamView {
    /// Source connection.
    pub source: String,
    /// Target connection.
    pub target: String,
    /// `slot`.
    pub capture: String,
    /// Slot name.
    pub slot: String,
    /// Process that runs it; null when none does.
    pub pid: Option<u32>,
    /// See [`StreamState`].
    pub state: StreamState,
    /// Received from the source.
    pub received_lsn: Lsn,
    /// In the target.
    pub applied_lsn: Lsn,
    /// Confirmed to the slot.
    pub confirmed_lsn: Lsn,
    /// Source's end of WAL minus applied.
    pub lag_bytes: u64,
    /// Seconds between a commit on the source and its arrival; 0 when caught up.
    pub lag_seconds: f64,
    /// WAL kept for the slot.
    pub retained_wal_bytes: u64,
    /// `pg_replication_slots.wal_status`.
    pub slot_status: Option<String>,
    /// At the present rate; null when it is not in danger.
    pub seconds_to_slot_loss: Option<f64>,
    /// Since the stream began.
    pub changes_applied: u64,
    /// By target table.
    pub tables: Vec<TableView>,
    /// Why it failed.
    pub error: Option<String>,
    /// The process that shows this has the stream: no other one runs it.
    #[serde(skip)]
    pub held: bool,
}

impl TableView {
    /// Takes over what the target knows of the table.
    pub fn show(&mut self, record: &TableRecord) {
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        self.source_table.clone_from(&record.source_table);
        self.target_table.clone_from(&record.target_table);
        self.mode.clone_from(&record.mode);
        record.state.as_str().clone_into(&mut self.state);
        self.rows_copied = self.rows_copied.max(number(record.rows_copied));
        // The copy that runs knows better than what was estimated before it.
        let estimated = if record.state == TableState::Copying { self.rows_total } else { 0 };
        self.rows_total = number(record.rows_total).max(estimated).max(self.rows_copied);
        self.parked_changes = number(record.parked_changes);
        self.error.clone_from(&record.error);
    }
}

/// One table of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableView {
    /// As SQL writes it.
    pub source_table: String,
    /// As SQL writes it.
    pub target_table: String,
    /// `dml` or `logdel`.
    pub mode: String,
    /// `waiting`, `copying`, `streaming`, `parked`, `needs_copy` or `failed`.
    pub state: String,
    /// First rows.
    pub rows_copied: u64,
    /// Of the first rows: an estimate until they are copied.
    pub rows_total: u64,
    /// Changes applied.
    pub changes_applied: u64,
    /// Changes that wait in `repcloud.parked`.
    #[serde(default)]
    pub parked_changes: u64,
    /// Rows of `repcloud.conflict`.
    pub conflicts: u64,
    /// Scheduled modes only.
    pub last_value: Option<String>,
    /// Scheduled modes only.
    pub last_run: Option<String>,
    /// Scheduled modes only.
    pub next_run: Option<String>,
    /// Why it stopped.
    pub error: Option<String>,
}
