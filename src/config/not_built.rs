//! The one list of keys and values that have a meaning whose work is not built yet.
//!
//! Who builds the work removes the line here and reads the key: a key that nobody reads is an unknown key, so
//! none can be accepted and ignored by accident.

/// Which part of a file a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Above the first section.
    Top,
    /// `[logging]`.
    Logging,
    /// `[connections.NAME]`.
    Connection,
    /// `[[replicate]]`.
    Replicate,
    /// A file of settings of single tables.
    TableConf,
}

/// One key, or one value of a key, that is refused by name.
#[derive(Debug)]
pub(super) struct NotBuilt {
    pub(super) part: Part,
    pub(super) key: &'static str,
    /// Only this value of the key is not built; `None`: the whole key.
    pub(super) value: Option<&'static str>,
    /// What is missing.
    pub(super) work: &'static str,
    /// rpcl knew the key: in a configuration written for rpcl it leads to a warning only.
    pub(super) rpcl: bool,
}

const fn rpcl(part: Part, key: &'static str, work: &'static str) -> NotBuilt {
    NotBuilt { part, key, value: None, work, rpcl: true }
}

const fn key(part: Part, key: &'static str, work: &'static str) -> NotBuilt {
    NotBuilt { part, key, value: None, work, rpcl: false }
}

const fn value(part: Part, key: &'static str, value: &'static str, work: &'static str) -> NotBuilt {
    NotBuilt { part, key, value: Some(value), work, rpcl: false }
}

use Part::{Replicate, Top};

pub(super) const NOT_BUILT: &[NotBuilt] = &[
    rpcl(Top, "pid_dir", "pid files"),
    rpcl(Top, "notifier", "sending mail"),
    key(Top, "service", "the HTTP service"),
    value(Replicate, "mode", "snapshot", "the scheduled modes"),
    value(Replicate, "mode", "table", "the scheduled modes"),
    value(Replicate, "mode", "inserter", "the scheduled modes"),
    value(Replicate, "mode", "updater", "the scheduled modes"),
    key(Replicate, "control", "the modes inserter and updater"),
    key(Replicate, "control_type", "the modes inserter and updater"),
    key(Replicate, "time_zone", "the modes inserter and updater"),
    key(Replicate, "boundary", "the modes inserter and updater"),
    key(Replicate, "start", "the modes inserter and updater"),
    key(Replicate, "batch_limit", "the scheduled modes"),
    key(Replicate, "period", "the schedule"),
    key(Replicate, "post_script", "running statements after a refresh"),
    value(Replicate, "on_schema_change", "add", "adding columns to a target"),
];

/// The entry of a whole key.
pub(super) fn not_built_key(part: Part, key: &str) -> Option<&'static NotBuilt> {
    NOT_BUILT.iter().find(|n| n.part == part && n.key == key && n.value.is_none())
}

/// The entry of one value of a key that is otherwise built.
pub(super) fn not_built_value(part: Part, key: &str, value: &str) -> Option<&'static NotBuilt> {
    NOT_BUILT.iter().find(|n| n.part == part && n.key == key && n.value == Some(value))
}
