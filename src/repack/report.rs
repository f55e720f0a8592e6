//! What came of one table.

use serde::Serialize;

use crate::model::{Oid, TableName};
use crate::repack::error::RepackError;

/// The reason of an abort that found nothing.
pub const NOTHING_TO_UNDO: &str = "there was nothing to undo";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Rebuilt and exchanged.
    Swapped,
    /// Ready to be exchanged.
    Prepared,
    /// Pre-flight refused it, nothing was changed.
    Refused,
    /// It failed; `reason` says why.
    Failed,
    /// Undone.
    Aborted,
    /// The connection broke at COMMIT and the server could not be asked since.
    Ambiguous,
    /// Only looked at.
    DryRun,
}

/// One line of `repack --json` (CONTRACT 4).
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// Table, quoted where SQL would.
    pub table: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it is not done.
    pub reason: Option<String>,
    /// How changes were read.
    pub capture: &'static str,
    /// Rows of the snapshot.
    pub rows_copied: i64,
    /// Changes applied since.
    pub changes_replayed: u64,
    /// Heap, TOAST and indexes before.
    pub bytes_before: i64,
    /// The same after.
    pub bytes_after: i64,
    /// Time of the copy.
    pub copy_seconds: f64,
    /// Time of the index builds.
    pub index_seconds: f64,
    /// Time until few changes were left.
    pub catch_up_seconds: f64,
    /// From the first exclusive lock of the successful attempt to its commit.
    pub lock_ms: f64,
    /// Attempts to swap.
    pub swap_attempts: u32,
    /// All of it.
    pub total_seconds: f64,
    /// A person asked the whole run to end while it was at this table; not part of the JSON.
    #[serde(skip)]
    pub ends_run: bool,
    /// It was interrupted: `stop`, SIGTERM or Ctrl-C; not part of the JSON.
    #[serde(skip)]
    pub interrupted: bool,
    /// It failed because another process works on the table; not part of the JSON.
    #[serde(skip)]
    pub other_works: bool,
    /// What a person can do; not part of the JSON.
    #[serde(skip)]
    pub hint: Option<String>,
    /// What a person should know although it is done; not part of the JSON.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl TableReport {
    /// What was asked for and cannot be done, and why.
    pub(crate) fn refused(asked: String, reason: String) -> Self {
        TableReport { outcome: Outcome::Refused, reason: Some(reason), ..TableReport::named(asked) }
    }

    /// It was not even begun, for this reason.
    pub(crate) fn failed(table: &TableName, error: &RepackError) -> Self {
        TableReport {
            reason: Some(error.to_string()),
            hint: error.hint(),
            interrupted: matches!(error, RepackError::Stopped),
            ..TableReport::new(table)
        }
    }

    /// Before anything happened.
    pub fn new(table: &TableName) -> Self {
        TableReport::named(table.to_string())
    }

    fn named(table: String) -> Self {
        TableReport {
            table,
            outcome: Outcome::Failed,
            reason: None,
            capture: "slot",
            rows_copied: 0,
            changes_replayed: 0,
            bytes_before: 0,
            bytes_after: 0,
            copy_seconds: 0.0,
            index_seconds: 0.0,
            catch_up_seconds: 0.0,
            lock_ms: 0.0,
            swap_attempts: 0,
            total_seconds: 0.0,
            ends_run: false,
            interrupted: false,
            other_works: false,
            hint: None,
            notes: Vec::new(),
        }
    }
}

/// What has another identity after a swap, and what a person should look at. Pure.
pub(crate) fn changed_identity(
    table: &TableName,
    (old, new): (Oid, Oid),
    publications: &[String],
    (analyzed, reordered): (bool, bool),
) -> Vec<String> {
    let mut notes = vec![
        format!(
            "{table} has oid {new} (it was {old}), and its indexes, constraints, triggers and row type have new ones: \
             look at what keeps an oid or a regclass, such as monitoring"
        ),
        format!(
            "cached plans renew themselves, but statements prepared before that return {table} as one value, not column by column, \
             must be prepared again"
        ),
    ];
    if reordered {
        notes.push(format!(
            "the columns of {table} have another order: a statement prepared before with SELECT * fails with \
             \"cached plan must not change result type\" until it is prepared again; look at what takes columns by their place \
             (SELECT *, INSERT and COPY without column names)"
        ));
    }
    let advice = if analyzed { "" } else { "; it was not analyzed (analyze_tables), so run ANALYZE" };
    notes.push(format!("the counters of {table} in pg_stat_user_tables begin at zero{advice}"));
    if !publications.is_empty() {
        notes.push(format!(
            "{table} is published by {}: to subscribers it is a new relation of the same name; see that they go on",
            publications.join(", ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_identity_is_named() {
        let table = TableName::new("public", "t");
        let plain = changed_identity(&table, (10, 20), &[], (true, false));
        assert!(plain.len() == 3 && plain[0].contains("oid 20 (it was 10)"), "{plain:?}");
        assert!(!plain[2].contains("ANALYZE"), "{plain:?}");
        let other = changed_identity(&table, (10, 20), &["p".into(), "q".into()], (false, false));
        let reordered = changed_identity(&table, (10, 20), &[], (true, true));
        assert!(
            reordered.len() == 4 && reordered[2].contains("must not change result type"),
            "{reordered:?}"
        );
        assert!(other[2].contains("run ANALYZE") && other[3].contains("published by p, q"), "{other:?}");
    }
}
