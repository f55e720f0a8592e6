//! What to compare and what came out. Plain data.

use std::fmt;
use std::time::Duration;

use crate::model::TableName;

/// Two tables that should hold the same rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySpec {
    /// Source table; a partitioned one is read through its root.
    pub source: TableName,
    /// Target table.
    pub target: TableName,
    /// Columns to compare, named alike on both sides. Empty: every column of the source that is not generated.
    pub columns: Vec<String>,
    /// Columns that identify a row, named alike on both sides. Empty: the tables are compared as multisets of rows, and so
    /// they are when one of these columns may be NULL.
    pub key: Vec<String>,
    /// SQL condition on source rows; the target is expected to hold exactly the rows for which it is true.
    pub condition: Option<String>,
    /// logdel: column of the target that is NULL in live rows; the others are not compared.
    pub deleted_column: Option<String>,
}

impl VerifySpec {
    /// All columns, no condition.
    pub fn new(source: TableName, target: TableName, key: Vec<String>) -> Self {
        VerifySpec { source, target, columns: Vec::new(), key, condition: None, deleted_column: None }
    }
}

/// How hard to look, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Rows of the first chunk; later ones follow the time they take.
    pub chunk_rows: u64,
    /// Time a chunk should take.
    pub chunk_time: Duration,
    /// A differing part with at most this many rows is compared row by row (by digest), a bigger one is split.
    pub list_rows: u64,
    /// Suspects that are looked at again together.
    pub recheck_rows: usize,
    /// Looks at a suspect before it is called unsettled.
    pub attempts: u32,
    /// Pause after the first look that settles nothing; it doubles up to two seconds.
    pub back_off: Duration,
    /// Limit of one statement that reads a chunk or a batch of keys.
    pub statement_limit: Duration,
    /// Limit of one statement that reads a whole table: tables without a usable order, and `count`.
    pub scan_limit: Duration,
    /// Limit of one wait until the target has reached a position.
    pub wait_limit: Duration,
    /// The comparison ends early after this many differences ([`VerifyOutcome::complete`] is false then).
    pub stop_after: u64,
    /// Keys kept in [`VerifyOutcome::samples`].
    pub samples: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions {
            chunk_rows: 10_000,
            chunk_time: Duration::from_millis(500),
            list_rows: 1_000,
            recheck_rows: 1_000,
            attempts: 12,
            back_off: Duration::from_millis(50),
            statement_limit: Duration::from_secs(120),
            scan_limit: Duration::from_secs(4 * 3600),
            wait_limit: Duration::from_secs(120),
            stop_after: 100_000,
            samples: 10,
        }
    }
}

/// In what way a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// On the source only.
    Missing,
    /// On the target only.
    Extra,
    /// On both, with other values.
    Different,
}

/// One differing row. Its `Debug` text leaves the key's values out: they are the user's data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// In what way it differs.
    pub kind: Kind,
    /// Text of the key's values in the order of [`VerifySpec::key`]: the user's data, never shown. `None` where rows were compared
    /// without a key.
    pub key: Option<Vec<String>>,
    /// Where the row was: table and `ctid`, on the target for [`Kind::Extra`], else on the source.
    pub place: String,
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyOutcome {
    /// Rows of the source that were compared.
    pub rows: u64,
    /// `missing` + `extra` + `different`.
    pub differences: u64,
    /// Rows on the source only.
    pub missing: u64,
    /// Rows on the target only.
    pub extra: u64,
    /// Rows on both sides with other values; always 0 without a key.
    pub different: u64,
    /// Rows that changed on the source at every look, so that nothing can be said about them. Not differences.
    pub unsettled: u64,
    /// False when `stop_after` ended the comparison before the end of the table.
    pub complete: bool,
    /// Time it took.
    pub seconds: f64,
    /// Some of the differing rows.
    pub samples: Vec<Sample>,
}

impl VerifyOutcome {
    pub(crate) fn new() -> Self {
        VerifyOutcome {
            rows: 0,
            differences: 0,
            missing: 0,
            extra: 0,
            different: 0,
            unsettled: 0,
            complete: true,
            seconds: 0.0,
            samples: Vec::new(),
        }
    }

    /// Counts `rows` differing rows of one key, and keeps one of them while there are fewer than `samples`.
    pub(crate) fn add(&mut self, kind: Kind, rows: u64, sample: Sample, samples: usize) {
        self.count(kind, rows);
        if self.samples.len() < samples {
            self.samples.push(sample);
        }
    }

    /// Counts `rows` differing rows.
    pub(crate) fn count(&mut self, kind: Kind, rows: u64) {
        match kind {
            Kind::Missing => self.missing += rows,
            Kind::Extra => self.extra += rows,
            Kind::Different => self.different += rows,
        }
        self.differences += rows;
    }
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Source rows compared.
    pub rows: u64,
    /// Source rows as the planner estimates them; `None` when the table was never analysed.
    pub estimated_rows: Option<u64>,
    /// Rows waiting for a second look.
    pub suspects: u64,
    /// Differences that stand.
    pub differences: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind) -> Sample {
        Sample { kind, key: Some(vec!["secret".into()]), place: "t ctid (0,1)".into() }
    }

    #[test]
    fn counts_by_kind_and_keeps_few_samples() {
        let mut outcome = VerifyOutcome::new();
        for (kind, rows) in [(Kind::Missing, 3), (Kind::Extra, 1), (Kind::Different, 1)] {
            outcome.add(kind, rows, sample(kind), 2);
        }
        assert_eq!((outcome.differences, outcome.missing, outcome.extra, outcome.different), (5, 3, 1, 1));
        assert_eq!(outcome.samples.len(), 2);
    }

    #[test]
    fn key_values_stay_out_of_debug_texts() {
        let mut outcome = VerifyOutcome::new();
        outcome.add(Kind::Missing, 1, sample(Kind::Missing), 2);
        assert!(!format!("{outcome:?}").contains("secret"));
    }
}
