//! Indexes and the constraints they belong to: primary keys, unique and exclusion constraints. Pure.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::draft::Draft;
use crate::repack::plan::text::{comment, exchange_after, insert_before};
use crate::repack::plan::{IndexBuild, PlanError};

pub(super) const KIND: Kind = Kind {
    title: "indexes (unique, partial, on expressions, INCLUDE, operator classes, options, tablespaces, comments, statistics targets); primary keys, unique and exclusion constraints, also deferrable; invalid indexes are left out",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid.
pub(super) const QUERY: &str = "SELECT i.indexrelid::int8 AS oid, c.relname AS name, \
       pg_get_indexdef(i.indexrelid) AS definition, am.amname AS method, i.indisunique AS is_unique, \
       i.indimmediate AS immediate, i.indisvalid AND i.indisready AND i.indislive AS valid, \
       i.indisreplident AS is_replica_identity, i.indisclustered AS is_clustered, \
       i.indpred IS NOT NULL AS partial, i.indexprs IS NOT NULL AS expressions, \
       (SELECT coalesce(json_agg(a.attname ORDER BY k.n), '[]') FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, n) \
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum > 0 \
        WHERE k.n <= i.indnkeyatts) AS key_columns, i.indnkeyatts AS key_length, \
       (SELECT coalesce(json_agg(json_build_object('number', a.attnum, 'target', a.attstattarget) ORDER BY a.attnum), '[]') \
        FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 AND i.indexprs IS NOT NULL) AS targets, \
       coalesce(s.spcname, ds.spcname) AS tablespace, \
       s.oid IS NULL OR has_tablespace_privilege(s.oid, 'CREATE') AS may_use_tablespace, \
       pg_relation_size(i.indexrelid) AS bytes, \
       (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = i.indexrelid) AS parent, obj_description(i.indexrelid, 'pg_class') AS comment, \
       (SELECT json_build_object('oid', o.oid::int8, 'name', o.conname, 'type', o.contype, \
          'definition', pg_get_constraintdef(o.oid), 'deferrable', o.condeferrable, 'deferred', o.condeferred, \
          'comment', obj_description(o.oid, 'pg_constraint'), 'triggers_changed', EXISTS \
            (SELECT FROM pg_trigger t WHERE t.tgconstraint = o.oid AND t.tgisinternal AND t.tgenabled <> 'O')) \
        FROM pg_constraint o WHERE o.conindid = i.indexrelid AND o.conrelid = i.indrelid \
        AND o.contype IN ('p', 'u', 'x')) AS constraint \
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am am ON am.oid = c.relam \
     JOIN pg_database d ON d.datname = current_database() JOIN pg_tablespace ds ON ds.oid = d.dattablespace \
     LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace AND c.reltablespace <> 0 \
     WHERE i.indrelid = $1 ORDER BY i.indexrelid";

/// One index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Its oid.
    pub oid: u32,
    /// Its name; it is in its table's schema.
    pub name: String,
    /// CREATE INDEX as the server prints it (without tablespace).
    pub definition: String,
    /// `btree`, `gist` …
    pub method: String,
    /// Unique.
    pub is_unique: bool,
    /// Uniqueness is checked row by row, not at the end of the transaction.
    pub immediate: bool,
    /// Usable. One that is not (a CREATE INDEX CONCURRENTLY that failed) is left out.
    pub valid: bool,
    /// Marked by REPLICA IDENTITY USING INDEX.
    pub is_replica_identity: bool,
    /// Marked by CLUSTER ON.
    pub is_clustered: bool,
    /// It has a WHERE.
    pub partial: bool,
    /// It has expressions.
    pub expressions: bool,
    /// Its key columns that are columns, in order.
    pub key_columns: Vec<String>,
    /// How many key columns it has, expressions included.
    pub key_length: i32,
    /// Statistics targets of its expressions.
    pub targets: Vec<IndexTarget>,
    /// Its tablespace.
    pub tablespace: String,
    /// Our role may create in it.
    pub may_use_tablespace: bool,
    /// The index of a partitioned table that it is a part of.
    pub parent: Option<String>,
    /// Bytes on disk.
    pub bytes: i64,
    /// Comment.
    pub comment: Option<String>,
    /// The constraint it belongs to.
    pub constraint: Option<IndexConstraint>,
}

/// A statistics target of an index's expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexTarget {
    /// Which column of the index, from 1.
    pub number: i32,
    /// The target.
    pub target: i32,
}

/// A constraint that an index makes work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexConstraint {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// `p` primary key, `u` unique, `x` exclusion.
    #[serde(rename = "type")]
    pub kind: String,
    /// As ALTER TABLE … ADD CONSTRAINT takes it (without storage parameters of unique keys, and without tablespace).
    pub definition: String,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// Comment.
    pub comment: Option<String>,
    /// A superuser has disabled its internal trigger.
    pub triggers_changed: bool,
}

impl Index {
    /// The primary key's index.
    pub fn is_primary(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.kind == "p")
    }

    /// It can tell rows apart: unique at once, over all rows, over columns that are all NOT NULL.
    pub(crate) fn identifies(&self, inventory: &Inventory) -> bool {
        self.valid
            && self.is_unique
            && self.immediate
            && !self.partial
            && !self.expressions
            && i32::try_from(self.key_columns.len()) == Ok(self.key_length)
            && self
                .key_columns
                .iter()
                .all(|key| inventory.columns.iter().any(|column| column.name == *key && column.not_null))
    }

    /// Built as a plain unique index first, beside others, and made a constraint afterwards: the same result as ADD CONSTRAINT, except for
    /// exclusion constraints and keys WITHOUT OVERLAPS (PostgreSQL 18), which only ADD CONSTRAINT can make.
    fn built_by_constraint(&self) -> bool {
        self.constraint.as_ref().is_some_and(|c| c.kind == "x" || self.method != "btree")
    }

    fn build(&self, inventory: &Inventory, draft: &Draft<'_>) -> Result<IndexBuild, PlanError> {
        let shadow = draft.shadow.to_string();
        let tablespace = quote_ident(draft.options.tablespace.as_ref().unwrap_or(&self.tablespace));
        let (mut statements, mut attach) = (Vec::new(), Vec::new());
        match &self.constraint {
            Some(constraint) if self.built_by_constraint() => {
                let clause = format!("USING INDEX TABLESPACE {tablespace}");
                let words = ["WHERE", "NOT DEFERRABLE", "DEFERRABLE", "INITIALLY"];
                statements.push(format!(
                    "ALTER TABLE {shadow} ADD CONSTRAINT {} {}",
                    quote_ident(&constraint.name),
                    insert_before(&constraint.definition, &words, &clause)
                ));
            }
            constraint => {
                let from = &inventory.head.sql_name;
                let moved = exchange_after(&self.definition, "ON", from, &shadow).ok_or_else(|| {
                    PlanError::Definition {
                        object: format!("index {}", quote_ident(&self.name)),
                        table: inventory.table.to_string(),
                    }
                })?;
                statements.push(insert_before(&moved, &["WHERE"], &format!("TABLESPACE {tablespace}")));
                attach.extend(
                    constraint
                        .as_ref()
                        .map(|constraint| format!("ALTER TABLE {shadow} {}", constraint.attach(&self.name))),
                );
            }
        }
        Ok(IndexBuild {
            name: self.name.clone(),
            statements,
            attach,
            is_key: false,
            is_constraint: self.constraint.is_some(),
            bytes_before: self.bytes,
        })
    }
}

impl IndexConstraint {
    fn attach(&self, index: &str) -> String {
        let kind = if self.kind == "p" { "PRIMARY KEY" } else { "UNIQUE" };
        let when = match (self.deferrable, self.deferred) {
            (_, true) => " DEFERRABLE INITIALLY DEFERRED",
            (true, false) => " DEFERRABLE",
            (false, false) => "",
        };
        format!("ADD CONSTRAINT {} {kind} USING INDEX {}{when}", quote_ident(&self.name), quote_ident(index))
    }
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    for index in inventory.indexes.iter().filter(|index| index.valid) {
        let object = format!("index {}", TableName::new(&inventory.table.schema, &index.name));
        if !index.may_use_tablespace {
            let tablespace = quote_ident(&index.tablespace);
            let role = quote_ident(&inventory.head.role);
            refusals.push(
                Refusal::new(&object, format!("role {role} has no CREATE on its tablespace {tablespace}"))
                    .remedy(format!("GRANT CREATE ON TABLESPACE {tablespace} TO {role}")),
            );
        }
        if let Some(constraint) = index.constraint.as_ref().filter(|c| c.triggers_changed) {
            refusals.push(Refusal::new(
                format!("constraint {} on {}", quote_ident(&constraint.name), inventory.table),
                "a superuser has disabled its internal triggers, which only a superuser can do again",
            ));
        }
    }
}

fn claims(_: &Inventory, _: &Dependent) -> bool {
    false
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    for index in inventory.indexes.iter().filter(|index| index.valid) {
        let build = index.build(inventory, draft)?;
        draft.indexes.push(build);
        let name = TableName::new(&draft.shadow.schema, &index.name);
        for target in &index.targets {
            draft.finish.push(format!(
                "ALTER INDEX {name} ALTER COLUMN {} SET STATISTICS {}",
                target.number, target.target
            ));
        }
        draft.finish.extend(comment(&format!("INDEX {name}"), index.comment.as_deref()));
        if let Some(constraint) = &index.constraint {
            let object = format!("CONSTRAINT {} ON {}", quote_ident(&constraint.name), draft.shadow);
            draft.finish.extend(comment(&object, constraint.comment.as_deref()));
        }
        draft.forecast_ms += 0.05;
    }
    Ok(())
}
