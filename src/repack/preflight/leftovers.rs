//! What an earlier run has left, so that a new one cannot begin.

use super::finding::Finding;
use crate::model::TableName;
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::options::{RepackOptions, typed};
use crate::repack::select::TableFacts;
use crate::repack::state::{self, slot_name};

/// The name of the check.
pub(crate) const CHECK: &str = "leftovers";

/// Names that a table's copy has in schema repcloud_new, and the old table in repcloud_old: those of the tables $1 themselves.
const NAMES: &str = "\
SELECT c.oid, k.kind, k.name
  FROM pg_class c
 CROSS JOIN LATERAL (
       SELECT 'relation', c.relname
       UNION ALL SELECT 'relation', i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid
       UNION ALL SELECT 'relation', s.relname FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
                  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.deptype = 'i'
       UNION ALL SELECT 'statistics', e.stxname FROM pg_statistic_ext e WHERE e.stxrelid = c.oid) AS k (kind, name)
 WHERE c.oid = ANY ($1::oid[])";

/// What there is of these names, and the table's own slot and publication.
fn left() -> String {
    format!(
        "WITH own (kind, name) AS (SELECT kind, name FROM ({NAMES}) AS names)
SELECT format('%s %I.%I', CASE c.relkind WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view'
              WHEN 'm' THEN 'materialized view' ELSE 'table' END, n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('repcloud_new', 'repcloud_old') AND EXISTS (SELECT FROM own o WHERE o.kind = 'relation' AND o.name = c.relname)
UNION ALL
SELECT format('statistics %I.%I', n.nspname, e.stxname)
  FROM pg_statistic_ext e JOIN pg_namespace n ON n.oid = e.stxnamespace
 WHERE n.nspname IN ('repcloud_new', 'repcloud_old') AND EXISTS (SELECT FROM own o WHERE o.kind = 'statistics' AND o.name = e.stxname)
UNION ALL
SELECT format('slot %I', s.slot_name) FROM pg_replication_slots s WHERE s.slot_name = $2
UNION ALL
SELECT format('publication %I', p.pubname) FROM pg_publication p WHERE p.pubname = $2
 ORDER BY 1"
    )
}

/// Other tables whose repack is unfinished, with a name that both would have.
fn others() -> String {
    format!(
        "SELECT DISTINCT ON (r.table_oid) r.schema_name, r.table_name, a.kind, format('%I', a.name)
  FROM repcloud.repack r
  JOIN ({}) AS a ON true
  JOIN ({}) AS b ON b.oid = r.table_oid AND (b.kind, b.name) = (a.kind, a.name)
 WHERE r.state NOT IN ('cleaned', 'abandoned') AND r.table_oid <> ALL ($1::oid[])
 ORDER BY r.table_oid, 3, 4",
        NAMES,
        NAMES.replace("c.oid = ANY ($1::oid[])", "c.oid IN (SELECT u.table_oid FROM repcloud.repack u)")
    )
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
    let oids = [table.oid];
    let mut findings = Vec::new();
    // Where our role may not see the state, that is refused by itself.
    if matches!(state::exists(session).await, Ok(true)) {
        for row in rows(session, WHAT, &others(), &[&oids.as_slice()]).await? {
            let other = TableName::new(cell::<String>(&row, 0, WHAT)?, cell::<String>(&row, 1, WHAT)?);
            let (kind, name): (String, String) = (cell(&row, 2, WHAT)?, cell(&row, 3, WHAT)?);
            let problem = format!(
                "the repack of {other} is not finished, and both have a {kind} {name}, which are built in one schema"
            );
            let help = format!("swap that one first, or {}", abort(&options.connection, &other));
            findings.push(Finding::refuse(CHECK, &table.name, problem).help(help));
        }
    }
    let found = rows(session, WHAT, &left(), &[&oids.as_slice(), &slot]).await?;
    let left: Vec<String> = found.iter().map(|row| cell(row, 0, WHAT)).collect::<Result<_, _>>()?;
    if left.is_empty() || !findings.is_empty() {
        return Ok(findings);
    }
    let problem =
        format!("an earlier repack, of it or of another table of this name, has left {}", left.join(", "));
    Ok(vec![Finding::refuse(CHECK, &table.name, problem).help(abort(&options.connection, &table.name))])
}

fn abort(connection: &str, table: &TableName) -> String {
    format!("run: repcloud abort {}", typed(connection, table))
}
