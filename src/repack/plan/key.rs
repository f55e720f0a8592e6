//! How rows of a change are found, and whether the source logs enough for it. Pure.

use super::{IdentityChange, KeyKind, RowKey};
use crate::model::quote_ident;
use crate::repack::dependents::{Index, Inventory};

/// The key of a table. In order: the index of its replica identity; when whole rows are logged, the primary key or else any index that
/// identifies rows; the same with a replica identity that must be set first; whole rows.
pub(super) fn row_key(inventory: &Inventory) -> RowKey {
    let table = &inventory.table;
    let primary = inventory.indexes.iter().find(|index| index.is_primary() && index.identifies(inventory));
    let marked =
        inventory.indexes.iter().find(|index| index.is_replica_identity && index.identifies(inventory));
    // The narrowest costs least in WAL and in look-ups; then the oldest.
    let any = inventory
        .indexes
        .iter()
        .filter(|index| index.identifies(inventory))
        .min_by_key(|i| (i.key_length, i.oid));
    let now = inventory.head.replica_identity.as_str();
    let logged = match now {
        "d" => primary,
        "i" => marked,
        "f" => primary.or(any),
        _ => None,
    };
    if let Some(index) = logged {
        return by_index(index, None);
    }
    let restore = match now {
        "n" => format!("ALTER TABLE {table} REPLICA IDENTITY NOTHING"),
        _ => format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT"),
    };
    if let Some(index) = primary.or(any).filter(|_| now != "f") {
        let set = format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {}", quote_ident(&index.name));
        return by_index(index, Some(IdentityChange { set, restore }));
    }
    let set = format!("ALTER TABLE {table} REPLICA IDENTITY FULL");
    RowKey {
        kind: KeyKind::Full,
        index: None,
        columns: inventory.columns.iter().filter(|c| !c.is_generated()).map(|c| c.name.clone()).collect(),
        identity: (now != "f").then_some(IdentityChange { set, restore }),
    }
}

fn by_index(index: &Index, identity: Option<IdentityChange>) -> RowKey {
    RowKey {
        kind: if index.is_primary() { KeyKind::PrimaryKey } else { KeyKind::UniqueIndex },
        index: Some(index.name.clone()),
        columns: index.key_columns.clone(),
        identity,
    }
}
