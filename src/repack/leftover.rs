//! What stands in our schemas: the copies that belong to a table whatever it is called now, those that no state speaks of any more, and
//! what is not ours.

use crate::apply::checkpoint;
use crate::model::{Oid, TableName};
use crate::pg::Session;
use crate::repack::error::{RepackError, doing};
use crate::repack::shadow::{OLD, OURS, drop_shadow};
use crate::repack::state;

/// Tables in schema repcloud_new that belong to the table: the one its state speaks of, whatever either is called now, one of its
/// name, and one with an index of a name that its own copy would need. What the unfinished repack of another table claims is none of
/// them: two tables of one name in different schemas have one name for their copies, and the first come has it.
pub(crate) async fn shadows(
    session: &Session,
    table: Oid,
    name: &TableName,
) -> Result<Vec<TableName>, RepackError> {
    let (recorded, claimed) = if state::exists(session).await? {
        (
            "c.oid IN (SELECT r.shadow_oid FROM repcloud.repack r WHERE r.table_oid = $1)",
            "EXISTS (SELECT FROM repcloud.repack r WHERE r.shadow_oid = c.oid AND r.table_oid <> $1 \
             AND r.state NOT IN ('cleaned', 'abandoned'))",
        )
    } else {
        ("false", "false")
    };
    let sql = format!(
        "SELECT c.relname::text FROM pg_catalog.pg_class c \
         WHERE c.relnamespace = pg_catalog.to_regnamespace($3) AND c.relkind NOT IN ('i', 'I', 'S', 'c', 'm') AND NOT {claimed} \
         AND (c.relname = $2 OR {recorded} OR EXISTS (SELECT FROM pg_catalog.pg_index x \
           JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_class n ON n.relname = i.relname \
           JOIN pg_catalog.pg_index o ON o.indexrelid = n.oid WHERE x.indrelid = c.oid AND o.indrelid = $1)) ORDER BY 1"
    );
    let rows = session.query(&sql, &[&table, &name.table, &OURS]).await?;
    rows.iter().map(|row| Ok(TableName::new(OURS, row.try_get::<_, String>(0)?))).collect()
}

/// Removes the copies that states of repacks speak of which have long ended, and the empty parents of copies: for when nothing is
/// unfinished.
async fn drop_forgotten(session: &Session) -> Result<(), RepackError> {
    if !state::exists(session).await? {
        return Ok(());
    }
    let shadows = "SELECT r.table_oid, c.relname::text FROM repcloud.repack r JOIN pg_catalog.pg_class c ON c.oid = r.shadow_oid \
                   WHERE c.relnamespace = pg_catalog.to_regnamespace($1) AND c.relkind = 'r'";
    for row in session.query(shadows, &[&OURS]).await? {
        let shadow = TableName::new(OURS, row.try_get::<_, String>(1)?);
        drop_shadow(session, row.try_get(0)?, &shadow).await?;
    }
    Ok(())
}

/// Of what stands in schema $1, other than the relations $2, the kind and the name as a statement has them.
const STANDING: &str = "SELECT o.type, o.identity FROM pg_catalog.pg_depend d, \
         LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) o \
     WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = pg_catalog.to_regnamespace($1) AND d.deptype = 'n' \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype IN ('a', 'i')) \
     AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (SELECT FROM pg_catalog.pg_class c \
         WHERE c.oid = d.objid AND c.relname = ANY ($2::text[]))) ORDER BY 1, 2";

/// Drops the schemas of copies; with anything in them or in schema repcloud that is not ours all of them stay, and it is named.
pub(crate) async fn drop_copies(session: &Session) -> Result<(), RepackError> {
    drop_forgotten(session).await?;
    let tables: Vec<&str> = checkpoint::TABLES.into_iter().chain(["queue_seq"]).collect();
    let mut standing = Vec::new();
    for (schema, ours) in [(OURS, [].as_slice()), (OLD, &[]), ("repcloud", &tables)] {
        for row in session.query(STANDING, &[&schema, &ours]).await? {
            let (kind, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            standing.push(format!(
                "{kind} {name} stands in schema {schema}, and no repack speaks of it; if nobody needs it, run: DROP {} {name}",
                kind.to_uppercase()
            ));
        }
    }
    if !standing.is_empty() {
        return Err(RepackError::Refused(standing));
    }
    for schema in [OURS, OLD] {
        let sql = format!("DROP SCHEMA IF EXISTS {schema}");
        session.batch_execute(&sql).await.map_err(doing(format!("dropping schema {schema}")))?;
    }
    Ok(())
}
