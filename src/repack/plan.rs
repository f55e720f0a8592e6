//! From what hangs on a table to the statements that rebuild it beside itself and exchange the two. Pure.
//!
//! The shadow is born in schema [`SHADOW_SCHEMA`] under the final names of table, indexes, constraints and identity sequence;
//! the old table leaves to [`OLD_SCHEMA`] with its own. Two `ALTER TABLE … SET SCHEMA` then exchange everything at once and nothing
//! is renamed. Both schemas must exist and belong to the session's role; the role must be able to create in them.
//!
//! Every string is one simple-query message: several statements in one string belong into one transaction, which the server makes of a
//! message by itself. They are meant for a session whose `search_path` shows nothing outside `pg_catalog` (as all sessions of
//! this program have it); names are always written with their schema.

pub(crate) mod draft;
mod key;
pub(crate) mod text;

use serde::{Deserialize, Serialize};

use crate::model::{RetryAdvice, TableName};
use crate::repack::dependents::{Inventory, Refusal, column_order};
use crate::repack::rebuild::Rebuild;

/// Where the new table is built.
pub const SHADOW_SCHEMA: &str = "repcloud_new";
/// Where the old table waits to be dropped.
pub const OLD_SCHEMA: &str = "repcloud_old";

/// What is to be different afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Fillfactor of the new table in percent; `None`: as it is.
    pub fillfactor: Option<u32>,
    /// Tablespace of the new table and of its indexes; `None`: as they are.
    pub tablespace: Option<String>,
    /// All columns in their new order; empty: as it is.
    pub column_order: Vec<String>,
}

impl PlanOptions {
    /// From settings and from what was typed.
    pub fn new(fillfactor: Option<u32>, rebuild: &Rebuild) -> Self {
        PlanOptions {
            fillfactor,
            tablespace: rebuild.tablespace.clone(),
            column_order: rebuild.column_order.clone(),
        }
    }
}

/// All statements of one table's repack, in the order of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepackPlan {
    /// The new table while it is built: `repcloud_new.t`.
    pub shadow: TableName,
    /// The old table after the exchange: `repcloud_old.t`.
    pub old: TableName,
    /// Makes the shadow, before the rows come: ready for INSERT, without indexes.
    pub create: Vec<String>,
    /// Columns to copy and to replay by name, in the table's order (generated ones compute themselves).
    pub copy_columns: Vec<String>,
    /// How rows of a change are found.
    pub key: RowKey,
    /// Indexes of the shadow, to build after the rows, in the order of their oids; [`IndexBuild::statements`] can run beside those of
    /// others, [`IndexBuild::attach`] cannot (it locks the table).
    pub indexes: Vec<IndexBuild>,
    /// After all indexes are there, still online.
    pub finish: Vec<String>,
    /// Materialized views over the shadow, each after those it reads: to fill shortly before the exchange.
    pub refresh: Vec<TableName>,
    /// Locks of the exchange in the order in which readers and writers take them. The first statements of its transaction.
    pub locks: Vec<LockStep>,
    /// After the last changes are applied: the exchange, in the transaction of `locks`. No statement here waits for a lock that `locks` could
    /// have taken before.
    pub exchange: Vec<String>,
    /// After the commit, each in its own transaction under a bounded lock.
    pub after: Vec<AfterStep>,
    /// Drops what stayed behind, last of all, under a bounded lock.
    pub drop_old: Vec<String>,
    /// How long the statements of `locks` and `exchange` take, in milliseconds, on a quiet machine.
    pub forecast_ms: f64,
    /// How long rows are read under the lock besides (default partition, foreign keys of a partition), in milliseconds.
    pub scan_ms: f64,
}

impl RepackPlan {
    /// Columns that name a row; none when whole rows are compared.
    pub fn key_columns(&self) -> &[String] {
        match self.key.kind {
            KeyKind::Full => &[],
            KeyKind::PrimaryKey | KeyKind::UniqueIndex => &self.key.columns,
        }
    }
}

/// How rows of a change are found in the shadow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// What kind of key.
    pub kind: KeyKind,
    /// Its index; `None` when whole rows are compared.
    pub index: Option<String>,
    /// Its columns in the index's order; all columns when whole rows are compared.
    pub columns: Vec<String>,
    /// The source must be told to log this key first; `None` when it does already.
    pub identity: Option<IdentityChange>,
}

/// What kind of key finds a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// The primary key.
    PrimaryKey,
    /// A unique index over columns that are NOT NULL.
    UniqueIndex,
    /// No key: every column is compared.
    Full,
}

/// A replica identity the source needs during the repack. Both statements take ACCESS EXCLUSIVE for a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityChange {
    /// Sets it.
    pub set: String,
    /// Puts back what was (for a repack that is given up; the new table has the old setting).
    pub restore: String,
}

/// One index of the shadow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexBuild {
    /// Its name, the same as the old index's.
    pub name: String,
    /// Builds it. SHARE lock on the shadow (or ACCESS EXCLUSIVE for the few that only ADD CONSTRAINT can build): parallel to other builds.
    pub statements: Vec<String>,
    /// Turns it into the constraint it belongs to, in the order of [`RepackPlan::indexes`]; empty for others. ACCESS EXCLUSIVE on
    /// the shadow for a moment.
    pub attach: Vec<String>,
    /// It is the index of [`RepackPlan::key`]: replay needs it.
    pub is_key: bool,
    /// A constraint owns it.
    pub is_constraint: bool,
    /// Bytes of the old index.
    pub bytes_before: i64,
}

/// One lock of the exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStep {
    /// What is locked, for messages.
    pub object: String,
    /// Takes the lock.
    pub statement: String,
}

/// One thing to do after the exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfterStep {
    /// What it is about, for messages.
    pub object: String,
    /// Does it.
    pub statement: String,
    /// What it is for.
    pub kind: AfterKind,
}

/// What a step after the exchange is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterKind {
    /// Checks a foreign key's old rows; scans a table.
    Validate,
    /// Drops a foreign key of the old table, which could stop a client's DELETE in the referenced table: first of all. ACCESS EXCLUSIVE on
    /// the referenced table for a moment.
    DropForeignKey,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something hangs on the table that cannot be carried over.
    #[error("{table} cannot be repacked: {}", first(refusals))]
    Refused {
        /// The table.
        table: String,
        /// Why, at least one.
        refusals: Vec<Refusal>,
    },
    /// The server describes an object in a way we cannot point at another table.
    #[error(
        "the definition of {object} does not name {table} where it was expected: repcloud does not know this form of it"
    )]
    Definition {
        /// The object.
        object: String,
        /// The table that should be named.
        table: String,
    },
    /// The options ask for what cannot be.
    #[error("{what}")]
    Options {
        /// What is wrong.
        what: String,
    },
}

impl PlanError {
    /// What the caller should do.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }
}

fn first(refusals: &[Refusal]) -> String {
    match refusals {
        [] => "no reason is known".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{one} (and {} more)", rest.len()),
    }
}

/// The plan for a table.
pub fn plan(inventory: &Inventory, options: &PlanOptions) -> Result<RepackPlan, PlanError> {
    let mut refusals = inventory.refusals();
    refusals.extend(column_order::refusals(inventory, &options.column_order));
    if !refusals.is_empty() {
        return Err(PlanError::Refused { table: inventory.table.to_string(), refusals });
    }
    draft::Draft::new(inventory, options)?.finish()
}
