//! A plan in the making: the kinds put their steps into phases, [`Draft::finish`] puts the phases in order. Pure.

use std::collections::BTreeMap;

use super::{AfterKind, AfterStep, IndexBuild, LockStep, OLD_SCHEMA, PlanError, PlanOptions, RepackPlan};
use super::{SHADOW_SCHEMA, key};
use crate::model::{TableName, quote_ident};
use crate::repack::dependents::{Inventory, StorageOptions};

/// Steps of the exchange, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// What holds others to the old table lets go.
    LetGo,
    /// What does not move with the table goes to the old schema.
    Aside,
    /// The two tables change places.
    Move,
    /// Values of identity sequences.
    Value,
    /// What was let go or built beside comes to the new table.
    Return,
    /// The new table, in one ALTER TABLE.
    AlterSelf,
    /// Other tables, one ALTER TABLE each.
    AlterOthers,
    /// The new table becomes a partition.
    Attach,
    /// What that made.
    AlterAttached,
    /// Comments of what was made just now.
    Comments,
    /// Grants that could not be made before.
    Grants,
    /// Views, policies and rules look at the new table.
    Repoint,
    /// Publications.
    Publish,
    /// The old table stops acting on others.
    Leave,
}

/// Where a lock stands in the order of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u8);

/// A plan in the making.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    inventory: &'a Inventory,
    pub(crate) options: &'a PlanOptions,
    pub(crate) shadow: TableName,
    pub(crate) old: TableName,
    pub(crate) create: Vec<String>,
    pub(crate) indexes: Vec<IndexBuild>,
    pub(crate) finish: Vec<String>,
    pub(crate) refresh: Vec<TableName>,
    pub(crate) drop_old: Vec<String>,
    pub(crate) forecast_ms: f64,
    pub(crate) scan_ms: f64,
    shadow_now: Vec<String>,
    shadow_later: Vec<String>,
    locks: Vec<(Rank, LockStep)>,
    table_locks: BTreeMap<TableName, (Rank, String)>,
    exchange: BTreeMap<Phase, Vec<String>>,
    joined: BTreeMap<(Phase, TableName), Vec<String>>,
    after: Vec<AfterStep>,
}

impl<'a> Draft<'a> {
    /// Views, outer first.
    const VIEWS: Rank = Rank(1);
    /// Materialized views, outer first.
    const MATVIEWS: Rank = Rank(2);
    /// Tables with policies or rules that name ours.
    const NAMERS: Rank = Rank(3);
    /// Tables that reference ours.
    const CHILDREN: Rank = Rank(4);
    /// The partitioned table of ours.
    const PARENT: Rank = Rank(5);
    /// Ours.
    const TABLE: Rank = Rank(6);
    /// Its sequences.
    pub(crate) const SEQUENCES: Rank = Rank(7);
    /// Tables ours references.
    const REFERENCED: Rank = Rank(8);

    pub(crate) fn new(inventory: &'a Inventory, options: &'a PlanOptions) -> Result<Self, PlanError> {
        let usable = |name: &&String| *name != "pg_global" && inventory.head.tablespaces.contains(name);
        if let Some(wanted) = options.tablespace.as_ref().filter(|name| !usable(name)) {
            let role = quote_ident(&inventory.head.role);
            let wanted = quote_ident(wanted);
            let what = format!(
                "tablespace {wanted} does not exist, or holds no tables, or role {role} has no CREATE on it"
            );
            return Err(PlanError::Options { what });
        }
        if options.fillfactor.is_some_and(|percent| !(10..=100).contains(&percent)) {
            let what = "fillfactor is a percentage from 10 to 100".to_owned();
            return Err(PlanError::Options { what });
        }
        Ok(Draft {
            inventory,
            options,
            shadow: TableName::new(SHADOW_SCHEMA, &inventory.table.table),
            old: TableName::new(OLD_SCHEMA, &inventory.table.table),
            create: Vec::new(),
            indexes: Vec::new(),
            finish: Vec::new(),
            refresh: Vec::new(),
            drop_old: Vec::new(),
            forecast_ms: 1.0,
            scan_ms: 0.0,
            shadow_now: Vec::new(),
            shadow_later: Vec::new(),
            locks: Vec::new(),
            table_locks: BTreeMap::new(),
            exchange: BTreeMap::new(),
            joined: BTreeMap::new(),
            after: Vec::new(),
        })
    }

    /// The options of the new table.
    pub(crate) fn storage_options(&self) -> StorageOptions {
        StorageOptions::new(&self.inventory.head, self.options.fillfactor)
    }

    /// A subcommand of the shadow's ALTER TABLE, before the rows.
    pub(crate) fn alter_shadow(&mut self, subcommand: String) {
        self.shadow_now.push(subcommand);
    }

    /// A subcommand of the shadow's ALTER TABLE, after the indexes.
    pub(crate) fn settle_shadow(&mut self, subcommand: String) {
        self.shadow_later.push(subcommand);
    }

    /// A subcommand of the new table's ALTER TABLE in the exchange.
    pub(crate) fn alter_new(&mut self, subcommand: String) {
        let table = self.inventory.table.clone();
        self.alter_other(Phase::AlterSelf, &table, subcommand);
    }

    /// A subcommand of another table's ALTER TABLE in the exchange.
    pub(crate) fn alter_other(&mut self, phase: Phase, table: &TableName, subcommand: String) {
        self.joined.entry((phase, table.clone())).or_default().push(subcommand);
    }

    /// A statement of the exchange.
    pub(crate) fn exchange(&mut self, phase: Phase, statement: String) {
        self.exchange.entry(phase).or_default().push(statement);
    }

    /// A lock that is not a table's.
    pub(crate) fn lock(&mut self, rank: Rank, object: &str, statement: String) {
        self.locks.push((rank, LockStep { object: object.to_owned(), statement }));
    }

    /// Locks a view alone: the statement changes nothing, and LOCK TABLE would lock everything beneath it.
    pub(crate) fn lock_view(&mut self, view: &TableName, owner: &str) {
        let object = format!("view {view}");
        if !self.locks.iter().any(|(_, step)| step.object == object) {
            let statement = format!("ALTER VIEW {view} OWNER TO {}", quote_ident(owner));
            self.lock(Self::VIEWS, &object, statement);
        }
    }

    /// Locks a materialized view: the statement changes nothing, and LOCK TABLE does not take one.
    pub(crate) fn lock_matview(&mut self, view: &TableName, owner: &str) {
        let statement = format!("ALTER MATERIALIZED VIEW {view} OWNER TO {}", quote_ident(owner));
        self.lock(Self::MATVIEWS, &format!("materialized view {view}"), statement);
    }

    /// Locks a table with a policy or a rule that names ours.
    pub(crate) fn lock_namer(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        self.table_locks.insert(table.clone(), (Self::NAMERS, exclusively(table, owner, may_lock)));
    }

    /// Locks the table of the plan.
    pub(crate) fn lock_table(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        self.table_locks.insert(table.clone(), (Self::TABLE, exclusively(table, owner, may_lock)));
    }

    /// Locks the partitioned table that ours is a partition of.
    pub(crate) fn lock_parent(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        let lock = (Self::PARENT, exclusively(table, owner, may_lock));
        self.table_locks.entry(table.clone()).or_insert(lock);
    }

    /// Locks a partition beside ours.
    pub(crate) fn lock_beside(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        let lock = (Self::TABLE, exclusively(table, owner, may_lock));
        self.table_locks.entry(table.clone()).or_insert(lock);
    }

    /// Locks a table that inherits from ours.
    pub(crate) fn lock_below(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        let lock = (Self::SEQUENCES, exclusively(table, owner, may_lock));
        self.table_locks.entry(table.clone()).or_insert(lock);
    }

    /// Locks a table that references ours.
    pub(crate) fn lock_child(&mut self, table: &TableName, owner: &str, may_lock: bool) {
        let lock = (Self::CHILDREN, exclusively(table, owner, may_lock));
        self.table_locks.entry(table.clone()).or_insert(lock);
    }

    /// Locks a table that ours references, unless it references ours too: then it is locked already.
    pub(crate) fn lock_referenced(&mut self, table: &TableName) {
        let lock = (Self::REFERENCED, exclusively(table, "", true));
        self.table_locks.entry(table.clone()).or_insert(lock);
    }

    /// A step after the exchange.
    pub(crate) fn after(&mut self, kind: AfterKind, object: &str, statement: String) {
        self.after.push(AfterStep { object: object.to_owned(), statement, kind });
    }

    /// Asks every kind and puts the answers in order.
    pub(crate) fn finish(mut self) -> Result<RepackPlan, PlanError> {
        let inventory = self.inventory;
        inventory.plan_kinds(&mut self)?;
        let key = key::row_key(inventory);
        for index in &mut self.indexes {
            index.is_key = key.index.as_ref() == Some(&index.name);
        }
        let mut create = self.create;
        create.extend(alter(&self.shadow, &self.shadow_now));
        let mut finish: Vec<String> = alter(&self.shadow, &self.shadow_later).into_iter().collect();
        finish.extend(self.finish);
        for ((phase, table), subcommands) in self.joined {
            self.exchange.entry(phase).or_default().extend(alter(&table, &subcommands));
        }
        let table_locks = self.table_locks.into_iter().map(|(table, (rank, statement))| {
            (rank, LockStep { object: format!("table {table}"), statement })
        });
        let mut locks = self.locks;
        locks.extend(table_locks);
        locks.sort_by_key(|(rank, _)| *rank);
        let mut after = self.after;
        // First what could disturb clients.
        after.sort_by_key(|step| step.kind == AfterKind::Validate);
        Ok(RepackPlan {
            shadow: self.shadow,
            old: self.old,
            create,
            copy_columns: inventory
                .columns
                .iter()
                .filter(|column| !column.is_generated())
                .map(|column| column.name.clone())
                .collect(),
            key,
            indexes: self.indexes,
            finish,
            refresh: self.refresh,
            locks: locks.into_iter().map(|(_, step)| step).collect(),
            exchange: self.exchange.into_values().flatten().collect(),
            after,
            drop_old: self.drop_old,
            // A sum of tenths: what is stored should read back the same.
            forecast_ms: (self.forecast_ms * 100.0).round() / 100.0,
            scan_ms: (self.scan_ms * 100.0).round() / 100.0,
        })
    }
}

fn alter(table: &TableName, subcommands: &[String]) -> Option<String> {
    (!subcommands.is_empty()).then(|| format!("ALTER TABLE {table} {}", subcommands.join(", ")))
}

/// ACCESS EXCLUSIVE on the table alone. LOCK TABLE wants a right to write, which an owner may have revoked from himself; the other statement
/// wants ownership, takes the same lock and changes nothing.
fn exclusively(table: &TableName, owner: &str, may_lock: bool) -> String {
    if may_lock {
        format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")
    } else {
        format!("ALTER TABLE {table} OWNER TO {}", quote_ident(owner))
    }
}
