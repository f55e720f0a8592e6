//! What an earlier run has left, so that a new one cannot begin.

use super::finding::Finding;
use crate::model::{Oid, TableName, quote_ident};
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::options::RepackOptions;
use crate::repack::select::TableFacts;

const CHECK: &str = "leftovers";

/// The copy has the table's own name in schema repcloud, the old table in repcloud_old.
const LEFT: &str = "\
SELECT format('table %I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('repcloud', 'repcloud_old') AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT format('slot %I', s.slot_name) FROM pg_replication_slots s WHERE s.slot_name = $1
UNION ALL
SELECT format('publication %I', p.pubname) FROM pg_publication p WHERE p.pubname = $1
 ORDER BY 1";

/// Name of a repack's slot and publication (CONTRACT 3).
pub fn slot_name(database: Oid, table: Oid) -> String {
    format!("repcloud_repack_{database}_{table}")
}

/// Names each leftover. An unfinished repack is gone on with, not begun: for one this is not asked.
pub async fn check(
    session: &Session,
    options: &RepackOptions,
    table: &TableFacts,
) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "what an earlier repack has left";
    let database = super::server::read(session).await?.database_oid;
    let slot = slot_name(database, table.oid);
    let found = rows(session, WHAT, LEFT, &[&slot, &table.name.table]).await?;
    let left: Vec<String> = found.iter().map(|row| cell(row, 0, WHAT)).collect::<Result<_, _>>()?;
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let problem =
        format!("an earlier repack, of it or of another table of this name, has left {}", left.join(", "));
    Ok(vec![Finding::refuse(CHECK, &table.name, problem).help(abort(&options.connection, &table.name))])
}

fn abort(connection: &str, table: &TableName) -> String {
    let shown = table.to_string();
    let shown = if shown.contains('"') { format!("'{shown}'") } else { shown };
    format!("run: repcloud abort --connection {} --table {shown}", quote_ident(connection))
}
