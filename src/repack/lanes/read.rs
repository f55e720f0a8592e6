//! Reads what decides about the number of lanes.

use tokio_postgres::Client;

use super::{Exclusive, KeyColumn, LaneFacts};
use crate::model::Oid;
use crate::repack::error::RepackError;

/// $1 the table's oid, $2 the key's columns.
const KEY: &str = "SELECT a.attname::text, \
       CASE WHEN t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN t.typname::text ELSE '' END, \
       coalesce(l.collisdeterministic, true) \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
     WHERE a.attrelid = $1 AND a.attname = ANY ($2) AND NOT a.attisdropped";

/// $1 the table's oid. Unique and exclusion indexes, also those that are not valid, with the columns that they compare by the default
/// operators of the type and with the collation of the column.
const EXCLUSIVE: &str = "SELECT c.relname::text, i.indisexclusion, ARRAY( \
       SELECT a.attname::text FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k(n) \
       JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.n] AND a.attnum > 0 \
       JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[k.n] \
       WHERE o.opcdefault AND i.indcollation[k.n] = a.attcollation) \
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
     WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion)";

/// Of `table`, whose rows are found by `key`.
pub(crate) async fn read(client: &Client, table: Oid, key: &[String]) -> Result<LaneFacts, RepackError> {
    let mut facts = LaneFacts::default();
    for row in client.query(KEY, &[&table, &key]).await? {
        facts.key.push(KeyColumn {
            name: row.try_get(0)?,
            type_name: row.try_get(1)?,
            deterministic: row.try_get(2)?,
        });
    }
    for row in client.query(EXCLUSIVE, &[&table]).await? {
        facts.exclusive.push(Exclusive {
            name: row.try_get(0)?,
            exclusion: row.try_get(1)?,
            columns: row.try_get(2)?,
        });
    }
    Ok(facts)
}
