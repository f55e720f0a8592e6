//! What a stream is asked to do.

use crate::apply::checkpoint::StreamKey;
use crate::apply::parked_store::ParkLimits;
use crate::apply::route::{Delivery, OnConflict};
use crate::capture::Plugin;
use crate::capture::auto::{Asked, CaptureOptions, Way};
use crate::model::{TableName, TablePattern};
use crate::pg::ConnectOptions;

/// One stream: all dml and logdel entries of one source and target.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Names of the two connections.
    pub key: StreamKey,
    /// Source database.
    pub source: ConnectOptions,
    /// Target database.
    pub target: ConnectOptions,
    /// How changes are read.
    pub capture: CaptureOptions,
    /// A slot made by the DBA.
    pub slot_name: Option<String>,
    /// A publication made by the DBA.
    pub publication: Option<String>,
    /// Bytes of WAL the slot may retain before an alarm.
    pub max_retained_wal: Option<u64>,
    /// How much may wait for one parked table.
    pub park: ParkLimits,
    /// What to replicate.
    pub entries: Vec<EntryOptions>,
    /// Sessions that copy at once.
    pub copy_workers: usize,
}

impl StreamOptions {
    /// The slot: the DBA's, or ours (CONTRACT 3).
    pub fn slot(&self) -> String {
        self.slot_name.clone().unwrap_or_else(|| self.default_name())
    }

    /// Changes are read from queues that triggers fill.
    pub fn by_triggers(&self) -> bool {
        self.capture.asked == Asked::Trigger
    }

    /// The same stream, told to read in this way.
    pub fn in_way(&self, way: Way) -> Self {
        let mut options = self.clone();
        match way {
            Way::Slot(plugin) => {
                options.capture.asked = Asked::Slot;
                options.capture.plugin = Some(plugin);
            }
            Way::Triggers => options.capture.asked = Asked::Trigger,
        }
        options
    }

    /// The plugin of the slot; until one is chosen, the default.
    pub fn plugin(&self) -> Plugin {
        self.capture.plugin.unwrap_or_default()
    }

    /// Our publication's name.
    pub fn default_name(&self) -> String {
        format!("repcloud_{}__{}", self.key.source, self.key.target)
    }
}

impl EntryOptions {
    /// The mode as CONTRACT names it.
    pub fn mode(&self) -> &'static str {
        match self.delivery {
            Delivery::Dml => "dml",
            Delivery::LogDel => "logdel",
        }
    }

    /// It names this source table; a wildcard may take it otherwise.
    pub fn names(&self, source: &TableName) -> bool {
        self.tables.contains(&TablePattern::Table(source.clone()))
    }
}

/// One `[[replicate]]` entry.
#[derive(Debug, Clone)]
pub struct EntryOptions {
    /// Source tables.
    pub tables: Vec<TablePattern>,
    /// Another name on the target; only with one table.
    pub target_table: Option<TableName>,
    /// Columns to replicate; `None`: all.
    pub columns: Option<Vec<String>>,
    /// Only rows for which this SQL condition holds on the source.
    pub condition: Option<String>,
    /// The target's key instead of the source's identity.
    pub key: Option<Vec<String>>,
    /// Remove or stamp.
    pub delivery: Delivery,
    /// logdel's column.
    pub deleted_column: String,
    /// Copy first rows.
    pub copy: bool,
    /// All indexes, or only the key's.
    pub all_indexes: bool,
    /// Owner of tables we make.
    pub owner: Option<String>,
    /// Grants on tables we make, as `select, insert to analysts`.
    pub grants: Vec<String>,
    /// Policy for conflicts.
    pub on_conflict: OnConflict,
    /// Only INSERT is published.
    pub insert_only: bool,
}
