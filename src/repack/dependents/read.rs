//! Reads an inventory. Thin: each kind has its query, and the server hands its rows over as JSON.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio_postgres::types::ToSql;

use super::error::DependentsError;
use super::{
    Inventory, Matview, checks, columns, defaults, foreign_keys, functions, indexes, inheritance, matviews,
    others, partitions,
};
use super::{policies, publications, rules, sequences, statistics, table, triggers, views};
use crate::model::TableName;
use crate::pg::Session;

/// One snapshot, nothing written, and limits: printing a view waits for whoever holds ACCESS EXCLUSIVE on it. With this search path
/// the server prints every name outside `pg_catalog` with its schema (`pg_temp` would be searched first if it were not named).
/// The catalogs have an index for every question that is asked; the plans are made here and kept for the exchange.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
    SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '60s'; SET LOCAL enable_seqscan = off";

/// Reads what hangs on a table, in a transaction of its own: one snapshot, read-only. The session must not be in a transaction.
pub async fn read(session: &Session, name: &TableName) -> Result<Inventory, DependentsError> {
    let text = name.to_string();
    let server = |error| DependentsError::server("the definition", &text, &error);
    session.batch_execute(BEGIN).await.map_err(server)?;
    match read_here(session, name).await {
        Ok(inventory) => {
            session.batch_execute("COMMIT").await.map_err(server)?;
            Ok(inventory)
        }
        Err(error) => {
            // The first error is the one to tell; when this fails too, the connection is gone and with it the transaction.
            let _also = session.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// The same in the transaction the session is in (the exchange looks at its own work). Its `search_path` must show nothing outside
/// `pg_catalog`. The queries are sent together: two round trips, three where there are materialized views.
pub async fn read_here(session: &Session, name: &TableName) -> Result<Inventory, DependentsError> {
    let text = name.to_string();
    let head = one::<table::Found>(session, &text, table::QUERY, &[&name.schema, &name.table]).await?;
    let oid = head.oid;
    let (
        (columns, sequences, checks, indexes, foreign_keys),
        (statistics, triggers, policies, rules, views),
        (defaults, mut matviews, functions, publications, partition_of, relatives, others),
    ) = futures_util::try_join!(
        async {
            futures_util::try_join!(
                rows(session, &text, "the columns", columns::QUERY, oid),
                rows(session, &text, "the sequences", sequences::QUERY, oid),
                rows(session, &text, "the checks", checks::QUERY, oid),
                rows(session, &text, "the indexes", indexes::QUERY, oid),
                rows(session, &text, "the foreign keys", foreign_keys::QUERY, oid),
            )
        },
        async {
            futures_util::try_join!(
                rows(session, &text, "the extended statistics", statistics::QUERY, oid),
                rows(session, &text, "the triggers", triggers::QUERY, oid),
                rows(session, &text, "the policies", policies::QUERY, oid),
                rows(session, &text, "the rules", rules::QUERY, oid),
                rows(session, &text, "the views", views::QUERY, oid),
            )
        },
        async {
            futures_util::try_join!(
                rows(session, &text, "the defaults of other tables", defaults::QUERY, oid),
                rows::<Matview>(session, &text, "the materialized views", matviews::QUERY, oid),
                rows(session, &text, "the functions", functions::QUERY, oid),
                rows(session, &text, "the publications", publications::QUERY, oid),
                rows(session, &text, "its place as a partition", partitions::QUERY, oid),
                rows(session, &text, "its parents and children", inheritance::QUERY, oid),
                rows(session, &text, "what else hangs on it", others::QUERY, oid),
            )
        },
    )?;
    futures_util::future::try_join_all(matviews.iter_mut().map(|view| parts(session, &text, view))).await?;
    Ok(Inventory {
        oid,
        table: name.clone(),
        owner: head.owner,
        head: head.head,
        columns,
        sequences,
        defaults,
        checks,
        indexes,
        foreign_keys,
        statistics,
        triggers,
        policies,
        rules,
        views,
        matviews,
        functions,
        publications,
        partition_of,
        relatives,
        others,
    })
}

/// What a materialized view has as a table has it.
async fn parts(session: &Session, table: &str, view: &mut Matview) -> Result<(), DependentsError> {
    (view.columns, view.indexes, view.statistics) = futures_util::try_join!(
        rows(session, table, "the columns of a materialized view", columns::QUERY, view.oid),
        rows(session, table, "the indexes of a materialized view", indexes::QUERY, view.oid),
        rows(session, table, "the statistics of a materialized view", statistics::QUERY, view.oid),
    )?;
    Ok(())
}

/// Boxed: a dozen of them in one future would be large.
fn rows<'a, T: DeserializeOwned + Send + 'a>(
    session: &'a Session,
    table: &'a str,
    what: &'static str,
    query: &'static str,
    oid: u32,
) -> BoxFuture<'a, Result<Vec<T>, DependentsError>> {
    async move {
        let sql = format!("SELECT coalesce(json_agg(q), '[]')::text FROM ({query}) AS q");
        json(session, table, what, &sql, &[&oid]).await?.ok_or_else(|| nothing(what, table))
    }
    .boxed()
}

async fn one<T: DeserializeOwned>(
    session: &Session,
    table: &str,
    query: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<T, DependentsError> {
    let sql = format!("SELECT (SELECT row_to_json(q)::text FROM ({query}) AS q)");
    let found = json(session, table, "the table", &sql, parameters).await?;
    found.ok_or_else(|| DependentsError::Missing { table: table.to_owned() })
}

async fn json<T: DeserializeOwned>(
    session: &Session,
    table: &str,
    what: &'static str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<T>, DependentsError> {
    let server = |error| DependentsError::server(what, table, &error);
    // Kept: the exchange reads twice under its lock, and parsing costs as much as asking.
    let statement = session.prepared(sql).await.map_err(server)?;
    let row = session.query_one(&statement, parameters).await.map_err(server)?;
    let Some(text): Option<String> = row.try_get(0).map_err(server)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| DependentsError::Unknown {
        what,
        table: table.to_owned(),
        problem: error.to_string(),
    })
}

fn nothing(what: &'static str, table: &str) -> DependentsError {
    DependentsError::Unknown { what, table: table.to_owned(), problem: "no answer".to_owned() }
}
