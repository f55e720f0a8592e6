//! What hangs on a table, kind by kind.
//!
//! A kind is one file: the query that reads it, what of it cannot be carried over, which dependencies it accounts for, and its steps in
//! the plan. [`KINDS`] lists them; what no kind claims of everything that the catalogs say hangs on the table (`others`)
//! is a refusal, so that an object of a class we do not know is never lost in silence.

mod checks;
pub(crate) mod column_order;
mod columns;
mod defaults;
mod depend;
mod error;
mod foreign_keys;
mod functions;
mod grants;
mod indexes;
pub(crate) mod inheritance;
mod matviews;
mod others;
mod partitions;
mod policies;
mod publications;
mod read;
mod rules;
mod sequences;
mod statistics;
mod table;
mod triggers;
mod views;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use checks::Check;
pub use columns::Column;
pub use defaults::Default;
pub use error::DependentsError;
pub use foreign_keys::ForeignKey;
pub use functions::Function;
pub use grants::Grant;
pub use indexes::{Index, IndexConstraint, IndexTarget};
pub use inheritance::Relative;
pub use matviews::Matview;
pub use others::Dependent;
pub use partitions::{DefaultPartition, Partition};
pub use policies::Policy;
pub use publications::{Publication, PublicationScope};
pub use read::{read, read_here};
pub use rules::Rule;
pub use sequences::Sequence;
pub use statistics::Statistics;
pub use table::Head;
pub(crate) use table::StorageOptions;
pub use triggers::Trigger;
pub use views::View;

use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::Draft;

/// Everything that hangs on a table, as the catalogs had it at one moment.
///
/// The table's own shadow (`repcloud_new.t`) and its old self (`repcloud_old.t`) are no dependents and left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The table's oid.
    pub oid: u32,
    /// The table.
    pub table: TableName,
    /// Its owner.
    pub owner: String,
    /// The table's own settings, and the rights of our role.
    pub head: Head,
    /// Columns in order, without dropped ones.
    pub columns: Vec<Column>,
    /// Sequences of identity columns and sequences OWNED BY a column.
    pub sequences: Vec<Sequence>,
    /// Defaults of other tables that draw from an identity sequence of the table.
    pub defaults: Vec<Default>,
    /// CHECK constraints, and named NOT NULL constraints (PostgreSQL 18).
    pub checks: Vec<Check>,
    /// Indexes in the order of their oids, with the constraints they belong to.
    pub indexes: Vec<Index>,
    /// Foreign keys of the table and of other tables (or itself) to it.
    pub foreign_keys: Vec<ForeignKey>,
    /// Extended statistics.
    pub statistics: Vec<Statistics>,
    /// Triggers of the table, and constraint triggers of others FROM it, without those that make constraints work.
    pub triggers: Vec<Trigger>,
    /// Policies of the table, and of others that name it.
    pub policies: Vec<Policy>,
    /// Rules of the table, and of others that name it.
    pub rules: Vec<Rule>,
    /// Views that name the table, or one of the materialized views, themselves.
    pub views: Vec<View>,
    /// Materialized views that are made again with the table.
    pub matviews: Vec<Matview>,
    /// Functions and procedures whose body is bound to the table.
    pub functions: Vec<Function>,
    /// Publications the table is in.
    pub publications: Vec<Publication>,
    /// Tables it inherits from, and those that inherit from it.
    pub relatives: Vec<Relative>,
    /// The partitioned table it is a partition of: one or none.
    pub partition_of: Vec<Partition>,
    /// Everything else that the catalogs say hangs on the table or on a part of it, and what the kinds above account for.
    pub others: Vec<Dependent>,
}

/// Why a table cannot be repacked: one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The object, as SQL would name it.
    pub object: String,
    /// Why it stands in the way.
    pub reason: String,
    /// The way out, if there is one.
    pub remedy: Option<String>,
}

impl Refusal {
    pub(crate) fn new(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Refusal { object: object.into(), reason: reason.into(), remedy: None }
    }

    /// Of an object that belongs to a role whose rights ours (`role`, quoted) lacks; `belongs` says what does: "it belongs".
    pub(crate) fn without_rights(
        object: impl Into<String>,
        belongs: impl fmt::Display,
        owner: &str,
        role: &str,
    ) -> Self {
        Refusal::new(object, format!("{belongs} to {owner}, and {role} does not inherit that role's rights"))
            .remedy(format!("GRANT {} TO {role}", quote_ident(owner)))
    }

    /// Of an object that has to be made again in a schema where our role (`role`, quoted) may make nothing.
    pub(crate) fn without_create(object: impl Into<String>, schema: &str, role: &str) -> Self {
        let schema = quote_ident(schema);
        Refusal::new(object, format!("role {role} has no CREATE on its schema {schema}"))
            .remedy(format!("GRANT CREATE ON SCHEMA {schema} TO {role}"))
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)?;
        self.remedy.as_deref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// One kind of object that a repack carries over.
#[derive(Debug)]
pub struct Kind {
    /// What it covers, for the documentation.
    pub title: &'static str,
    refuse: fn(&Inventory, &mut Vec<Refusal>),
    claims: fn(&Inventory, &Dependent) -> bool,
    plan: fn(&Inventory, &mut Draft<'_>) -> Result<(), PlanError>,
}

/// The whitelist. The order is that of the statements within a phase of the plan.
pub const KINDS: &[Kind] = &[
    table::KIND,
    columns::KIND,
    sequences::KIND,
    defaults::KIND,
    checks::KIND,
    indexes::KIND,
    foreign_keys::KIND,
    statistics::KIND,
    triggers::KIND,
    views::KIND,
    matviews::KIND,
    policies::KIND,
    rules::KIND,
    functions::KIND,
    publications::KIND,
    partitions::KIND,
    inheritance::KIND,
];

impl Inventory {
    /// Everything that keeps the table from being repacked, each object by name.
    pub fn refusals(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for kind in KINDS {
            (kind.refuse)(self, &mut refusals);
        }
        for refusal in self.unclaimed().map(Dependent::refusal) {
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
        refusals
    }

    /// What hangs on the table and no kind accounts for.
    pub(crate) fn unclaimed(&self) -> impl Iterator<Item = &Dependent> {
        self.others.iter().filter(|other| !KINDS.iter().any(|kind| (kind.claims)(self, other)))
    }

    /// Leaves publications out that belong to the repack itself: they need not outlive it.
    pub fn forget_publications(&mut self, names: &[&str]) {
        self.publications.retain(|publication| !names.contains(&publication.name.as_str()));
        self.others.retain(|other| !other.publication.as_deref().is_some_and(|name| names.contains(&name)));
    }

    pub(crate) fn plan_kinds(&self, draft: &mut Draft<'_>) -> Result<(), PlanError> {
        KINDS.iter().try_for_each(|kind| (kind.plan)(self, draft))
    }
}
