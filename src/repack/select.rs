//! Which tables of a connection are repacked, and in which order: most bloat first.

mod read;

use std::collections::BTreeSet;

pub use read::select;
pub(crate) use read::with_partitions;

use super::alignment::Alignment;
use super::bloat::Bloat;
use super::options::Selection;
use crate::model::{Oid, TableName};

/// One table with its size, as far as it can be told without reading it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFacts {
    /// `pg_class.oid`.
    pub oid: Oid,
    /// Schema and name.
    pub name: TableName,
    /// Owning role.
    pub owner: String,
    /// `pg_class.relkind`: `r` an ordinary table.
    pub kind: char,
    /// `pg_class.relpersistence`: `p` permanent, `u` unlogged, `t` temporary.
    pub persistence: char,
    /// It is a partition.
    pub partition: bool,
    /// An extension owns it.
    pub in_extension: bool,
    /// Our role is a member of its owner.
    pub owned: bool,
    /// Bytes of the heap.
    pub heap_bytes: u64,
    /// Bytes of TOAST, with its index.
    pub toast_bytes: u64,
    /// Bytes of the indexes.
    pub index_bytes: u64,
    /// Estimated live rows; `None`: nothing is known.
    pub rows: Option<f64>,
    /// The heap's fillfactor.
    pub fillfactor: u32,
    /// Estimated bloat of the heap; `None`: there are no statistics.
    pub bloat: Option<Bloat>,
    /// What the order of its columns costs; `None`: there are no statistics.
    pub alignment: Option<Alignment>,
    /// Bytes that the live rows need in a new heap, at the fillfactor it will have; without statistics the
    /// heap's size.
    pub new_heap_bytes: u64,
}

impl TableFacts {
    /// Bytes of heap, TOAST and indexes.
    pub fn total_bytes(&self) -> u64 {
        self.heap_bytes + self.toast_bytes + self.index_bytes
    }

    /// Why a table is none that can be repacked, when nobody asked for it by name.
    fn out_of_question(&self) -> Option<&'static str> {
        match self.kind {
            'r' => {}
            'p' => {
                return Some(
                    "it is partitioned; its partitions are repacked, each as a table of its own schema",
                );
            }
            'f' => return Some("it is a foreign table"),
            _ => return Some("it is not a table"),
        }
        match self.persistence {
            'u' => return Some("it is unlogged, so its changes cannot be followed"),
            't' => return Some("it is temporary"),
            _ => {}
        }
        if self.in_extension {
            return Some("it belongs to an extension");
        }
        (!self.owned).then_some("our role is not a member of its owner")
    }
}

/// What comes of a selection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chosen {
    /// The tables, most bloat first; those without an estimate last, the largest first.
    pub tables: Vec<TableFacts>,
    /// What a schema has beside them, or a limit leaves out, and why. Empty for a whole database, where it goes
    /// without saying.
    pub left_out: Vec<(TableName, String)>,
    /// What was asked for by name and is not there.
    pub missing: Vec<Missing>,
}

/// A table or schema that was named and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// As it would be typed: of a schema every table, `sales.*`.
    pub asked: String,
    /// Why nothing can be done for it.
    pub reason: String,
}

impl Missing {
    fn table(table: &TableName) -> Self {
        let reason = format!("table {table} does not exist (or the name is written otherwise)");
        Missing { asked: table.to_string(), reason }
    }

    fn schema(schema: &str) -> Self {
        let schema = crate::model::quote_ident(schema);
        let reason = format!("schema {schema} does not exist (or the name is written otherwise)");
        Missing { asked: format!("{schema}.*"), reason }
    }
}

/// Narrows what was read to what is asked for, and orders it. Pure.
fn choose(selection: &Selection, candidates: Vec<TableFacts>) -> Chosen {
    let named: BTreeSet<&TableName> = selection.tables.iter().collect();
    let whole_database = selection.tables.is_empty() && selection.schemas.is_empty();
    let mut chosen = Chosen::default();
    for table in candidates {
        // A table that was named is refused by pre-flight, in full.
        if !named.contains(&table.name)
            && let Some(reason) = table.out_of_question()
        {
            if !whole_database {
                chosen.left_out.push((table.name, reason.to_owned()));
            }
            continue;
        }
        match below_limits(selection, &table) {
            Some(reason) => chosen.left_out.push((table.name, reason)),
            None => chosen.tables.push(table),
        }
    }
    let bloat = |table: &TableFacts| table.bloat.map(|bloat| bloat.bytes);
    chosen.tables.sort_by(|a, b| {
        bloat(b).cmp(&bloat(a)).then(b.total_bytes().cmp(&a.total_bytes())).then_with(|| a.name.cmp(&b.name))
    });
    chosen.left_out.sort();
    chosen
}

fn below_limits(selection: &Selection, table: &TableFacts) -> Option<String> {
    if let Some(limit) = selection.min_size
        && table.total_bytes() < limit
    {
        return Some(format!("it has {} bytes, fewer than {limit}", table.total_bytes()));
    }
    let limit = selection.min_bloat?;
    match table.bloat {
        None => Some("its bloat is unknown (no statistics); ANALYZE it, or ask without a limit".to_owned()),
        Some(bloat) if bloat.percent < limit => {
            Some(format!("an estimated {:.0} % of it is bloat, less than {limit} %", bloat.percent))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
