//! Schema `repcloud` on a source that nothing uses any more.

use crate::apply::checkpoint;
use crate::flow::error::FlowError;
use crate::flow::queues::source_error;
use crate::model::Events;
use crate::pg::Session;

/// What is in the schema but is not one of our tables, and whether it is ours to drop.
const FOREIGN: &str = "SELECT pg_catalog.pg_has_role(n.nspowner, 'USAGE') AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c \
     WHERE c.relnamespace = n.oid AND c.relkind NOT IN ('i', 't') AND c.relname <> ALL ($1) AND c.relname NOT IN ('queue_seq') \
     AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))) \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid) \
     FROM pg_catalog.pg_namespace n WHERE n.nspname = 'repcloud'";

/// Drops the schema where nothing is left in it: no queue, no position, no log of conflicts, nothing that somebody else made. Not
/// being able to does no harm, and is told.
pub(crate) async fn drop_empty_schema(source: &Session, events: &Events) -> Result<(), FlowError> {
    let names: Vec<&str> = checkpoint::TABLES.to_vec();
    let Some(row) = source.query_opt(FOREIGN, &[&names]).await.map_err(source_error)? else { return Ok(()) };
    if !row.try_get::<_, bool>(0).map_err(source_error)? {
        return Ok(());
    }
    let sql = "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = 'repcloud' AND c.relkind = 'r' AND c.relname = ANY ($1)";
    let there = source.query(sql, &[&names]).await.map_err(source_error)?;
    let there: Vec<String> =
        there.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(source_error)?;
    for table in there.iter().filter(|table| *table != "version") {
        let sql = format!("SELECT EXISTS (SELECT FROM repcloud.{table})");
        let row = source.query_one(&sql, &[]).await.map_err(source_error)?;
        if row.try_get::<_, bool>(0).map_err(source_error)? {
            return Ok(());
        }
    }
    let tables: Vec<String> = there.iter().map(|table| format!("repcloud.{table}")).collect();
    let tables = match tables.is_empty() {
        true => String::new(),
        false => format!("DROP TABLE {};", tables.join(", ")),
    };
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '2s'; {tables} DROP SEQUENCE IF EXISTS repcloud.queue_seq; DROP SCHEMA repcloud; COMMIT"
    );
    match source.batch_execute(&sql).await {
        Ok(()) => events.info("schema repcloud on the source was empty and is dropped"),
        Err(error) => {
            source.batch_execute("ROLLBACK").await.map_err(source_error)?;
            let error = crate::pg::PgError::from(error);
            events.warning(format!(
                "schema repcloud on the source stays, though nothing is in it (`repcloud drop-schema` removes it): {error}"
            ));
        }
    }
    Ok(())
}
