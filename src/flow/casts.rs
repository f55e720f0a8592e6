//! Casts from text that somebody made on the target: they would read our values in place of the type's own input function.

use crate::catalog::TableDef;
use crate::flow::error::FlowError;
use crate::flow::work::TargetFinding;
use crate::model::quote_ident;
use crate::pg::Session;

/// A finding for each column of `table` whose type has such a cast, of its own or as a domain over a type that has one.
pub(crate) async fn findings(target: &Session, table: &TableDef) -> Result<Vec<TargetFinding>, FlowError> {
    /// Smaller oids are PostgreSQL's own.
    const SQL: &str = "SELECT pg_catalog.format_type(t.oid, NULL), pg_catalog.format_type(c.casttarget, NULL) FROM pg_catalog.pg_cast c \
        JOIN pg_catalog.pg_type t ON c.casttarget IN (t.oid, t.typbasetype) \
        WHERE c.castsource = 'pg_catalog.text'::pg_catalog.regtype AND c.castfunc >= 16384";
    let failed = |e: tokio_postgres::Error| FlowError::Target(e.into());
    let mut found = Vec::new();
    for row in target.query(SQL, &[]).await.map_err(failed)? {
        let (name, cast): (String, String) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        for column in table.columns.iter().filter(|c| c.input_type_sql == name) {
            found.push(TargetFinding {
                table: table.name.clone(),
                problem: format!(
                    "column {} is of type {name}, for which somebody made a cast from text that reads values in another way than the type itself",
                    quote_ident(&column.name)
                ),
                help: Some(format!("DROP CAST (text AS {cast})")),
            });
        }
    }
    Ok(found)
}
