//! The place of a partition in its partitioned table: detached and attached in the exchange. Pure.
//!
//! The shadow has its partition constraint as a CHECK from the beginning, so that ATTACH need not scan it. Indexes, triggers and foreign keys of
//! the partitioned table find their counterparts on it, or make them.

use serde::{Deserialize, Serialize};

use super::{Dependent, Inventory, Kind, Refusal};
use crate::model::{TableName, quote_ident};
use crate::repack::plan::PlanError;
use crate::repack::plan::draft::{Draft, Phase};
use crate::repack::preflight::space::bytes;

pub(super) const KIND: Kind = Kind {
    title: "partitions (range, list, hash, default, nested): detached and attached in the exchange, with the indexes, row triggers and foreign keys of the partitioned table",
    refuse,
    claims,
    plan,
};

/// $1 the table's oid. No row: it is no partition.
pub(super) const QUERY: &str = "SELECT n.nspname AS schema, p.relname AS table, pg_get_userbyid(p.relowner) AS owner, \
       pg_has_role(p.relowner, 'USAGE') AS may_alter, has_table_privilege(p.oid, 'UPDATE, DELETE, TRUNCATE') AS may_lock, \
       pg_get_expr(c.relpartbound, c.oid) AS bound, pg_get_partition_constraintdef(c.oid) AS condition, \
       coalesce((to_jsonb(i) ->> 'inhdetachpending')::bool, false) AS detaching, pg_relation_size(c.oid) AS bytes, \
       (SELECT coalesce(json_agg(x.indexrelid::regclass::text ORDER BY x.indexrelid), '[]') FROM pg_index x \
        WHERE x.indrelid = p.oid AND NOT EXISTS (SELECT FROM pg_inherits h JOIN pg_index l ON l.indexrelid = h.inhrelid \
          WHERE h.inhparent = x.indexrelid AND l.indrelid = c.oid AND l.indisvalid)) AS missing_indexes, \
       (SELECT json_build_object('schema', dn.nspname, 'table', d.relname, 'owner', pg_get_userbyid(d.relowner), \
          'may_alter', pg_has_role(d.relowner, 'USAGE'), 'may_lock', has_table_privilege(d.oid, 'UPDATE, DELETE, TRUNCATE'), \
          'kind', d.relkind::text, 'bytes', pg_relation_size(d.oid), \
          'keeps_out', NOT p.relispartition AND EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = d.oid AND k.contype = 'c' AND k.convalidated \
            AND pg_get_constraintdef(k.oid) = 'CHECK ((NOT ' || pg_get_partition_constraintdef(c.oid) || '))'), \
          'condition', (SELECT x FROM pg_get_partition_constraintdef(c.oid) AS x WHERE NOT p.relispartition AND x !~ '\\)::')) \
        FROM pg_partitioned_table t JOIN pg_class d ON d.oid = t.partdefid JOIN pg_namespace dn ON dn.oid = d.relnamespace \
        WHERE t.partrelid = p.oid AND d.oid <> c.oid) AS default_partition \
     FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_class p ON p.oid = i.inhparent \
     JOIN pg_namespace n ON n.oid = p.relnamespace WHERE c.oid = $1 AND c.relispartition";

/// The partitioned table a partition belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// Schema of the partitioned table.
    pub schema: String,
    /// The partitioned table.
    pub table: String,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of that owner.
    pub may_alter: bool,
    /// Our role may lock it in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// `FOR VALUES …` or `DEFAULT`.
    pub bound: String,
    /// What is true of every row, from all partitioned tables above; `None`: nothing, of a default partition that stands alone.
    pub condition: Option<String>,
    /// A DETACH CONCURRENTLY was not finished.
    pub detaching: bool,
    /// Bytes of the partition's heap.
    pub bytes: i64,
    /// Indexes of the partitioned table that have no usable counterpart here: ATTACH would build them under its lock.
    pub missing_indexes: Vec<String>,
    /// The default partition beside it.
    pub default_partition: Option<DefaultPartition>,
}

/// The default partition, which the server locks in DETACH and scans in ATTACH.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefaultPartition {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its owner.
    pub owner: String,
    /// Our role has the rights of its owner.
    pub may_alter: bool,
    /// Our role may lock it in ACCESS EXCLUSIVE mode.
    pub may_lock: bool,
    /// `pg_class.relkind`.
    pub kind: String,
    /// Bytes of its heap.
    pub bytes: i64,
    /// A CHECK of it says that no row belongs into our partition: then ATTACH does not scan it.
    pub keeps_out: bool,
    /// What such a CHECK would have to deny; `None` under more than one partitioned table, where the server does not see that it suffices, and
    /// where columns are cast in it (varchar), as it is printed otherwise once it stands in a CHECK.
    pub condition: Option<String>,
}

/// The CHECK that spares ATTACH its scan, on the shadow until it is attached.
const BOUND_CHECK: &str = "\"repcloud partition bound\"";
/// A default partition larger than this is not scanned under the lock.
const LARGEST_DEFAULT: i64 = 32 << 20;
/// What a scan under the lock takes, in milliseconds a byte: 37 ms were measured for 300,000 rows of 12 MB.
pub(super) const SCAN_MS: f64 = 3e-6;

impl Partition {
    /// The partitioned table.
    pub fn parent(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

impl DefaultPartition {
    fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }

    fn way_out(&self, kept_out: &str) -> String {
        const MOVE: &str = "move its rows into partitions of their own";
        let Some(condition) = &self.condition else { return MOVE.to_owned() };
        let name = self.name();
        format!(
            "ALTER TABLE {name} ADD CONSTRAINT {kept_out} CHECK (NOT {condition}) NOT VALID; \
             ALTER TABLE {name} VALIDATE CONSTRAINT {kept_out}; drop it after the repack; or {MOVE}"
        )
    }
}

/// The name of a CHECK of the default partition that keeps this partition's rows out: one a partition, of 63 bytes at most, quoted.
fn kept_out(inventory: &Inventory) -> String {
    const LONGEST: usize = 63;
    let (before, after) = ("repcloud_not_", format!("_{}", inventory.oid));
    let name = &inventory.table.table;
    let mut end = name.len().min(LONGEST - before.len() - after.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    quote_ident(&format!("{before}{}{after}", &name[..end]))
}

fn refuse(inventory: &Inventory, refusals: &mut Vec<Refusal>) {
    let role = quote_ident(&inventory.head.role);
    for partition in &inventory.partition_of {
        let parent = partition.parent();
        let table = format!("table {}", inventory.table);
        if !partition.may_alter {
            let belongs = "it is the partitioned table of this partition, and belongs";
            refusals.push(Refusal::without_rights(
                format!("table {parent}"),
                belongs,
                &partition.owner,
                &role,
            ));
        }
        if partition.detaching {
            refusals.push(
                Refusal::new(&table, format!("a DETACH PARTITION CONCURRENTLY of {parent} was not finished"))
                    .remedy(format!("ALTER TABLE {parent} DETACH PARTITION {} FINALIZE", inventory.table)),
            );
        }
        for index in &partition.missing_indexes {
            refusals.push(
                Refusal::new(
                    &table,
                    format!("index {index} of {parent} has no usable counterpart on it, and would be built under the lock"),
                )
                .remedy(format!("CREATE INDEX CONCURRENTLY on it, and ALTER INDEX {index} ATTACH PARTITION …")),
            );
        }
        if let Some(default) = &partition.default_partition {
            refuse_default(inventory, default, &parent, refusals);
        }
    }
}

fn refuse_default(
    inventory: &Inventory,
    default: &DefaultPartition,
    parent: &TableName,
    refusals: &mut Vec<Refusal>,
) {
    let role = quote_ident(&inventory.head.role);
    let object = format!("table {}", default.name());
    if default.kind != "r" {
        let reason =
            format!("it is the default partition of {parent} and no ordinary table; not supported yet");
        refusals.push(Refusal::new(&object, reason));
    }
    if !default.may_alter && !default.may_lock {
        let belongs =
            format!("it is the default partition of {parent}, which the exchange locks; it belongs");
        refusals.push(Refusal::without_rights(&object, belongs, &default.owner, &role));
    }
    if default.bytes > LARGEST_DEFAULT && !default.keeps_out {
        let size = bytes(u64::try_from(default.bytes).unwrap_or(0));
        refusals.push(
            Refusal::new(
                &object,
                format!(
                    "it is the default partition of {parent}, has {size}, and would be scanned under the lock"
                ),
            )
            .remedy(default.way_out(&kept_out(inventory))),
        );
    }
}

fn claims(_: &Inventory, _: &Dependent) -> bool {
    false
}

fn plan(inventory: &Inventory, draft: &mut Draft<'_>) -> Result<(), PlanError> {
    let table = &inventory.table;
    for partition in &inventory.partition_of {
        let parent = partition.parent();
        draft.lock_parent(&parent, &partition.owner, partition.may_lock);
        if let Some(default) = &partition.default_partition {
            draft.lock_beside(&default.name(), &default.owner, default.may_lock);
            if !default.keeps_out {
                draft.scan_ms += default.bytes.max(0) as f64 * SCAN_MS;
            }
        }
        draft.exchange(Phase::LetGo, format!("ALTER TABLE {parent} DETACH PARTITION {table}"));
        draft.exchange(
            Phase::Attach,
            format!("ALTER TABLE {parent} ATTACH PARTITION {table} {}", partition.bound),
        );
        if let Some(condition) = &partition.condition {
            draft.alter_shadow(format!("ADD CONSTRAINT {BOUND_CHECK} CHECK ({condition})"));
            draft.exchange(Phase::Attach, format!("ALTER TABLE {table} DROP CONSTRAINT {BOUND_CHECK}"));
        }
        draft.forecast_ms += 2.5;
    }
    Ok(())
}
