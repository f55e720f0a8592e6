//! What pre-flight and the publication plan need to know of the source.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{SetupError, server};
use crate::capture::publish::{
    Condition, ExistingPublication, Finding, PublishedTable, SourceFacts, TableFacts, WantedTable,
};
use crate::catalog::{ServerError, TableDef, TableKind, read_tables, server_version_num};
use crate::model::{Oid, TableName, quote_ident};

const SOURCE: &str = "\
SELECT current_setting('server_version_num')::int4, current_user::text, current_database()::text,
       r.rolsuper OR r.rolreplication OR coalesce(pg_has_role(m.oid, 'USAGE'), false), m.rolname::text,
       has_database_privilege(current_database(), 'CREATE'), current_setting('wal_level'),
       current_setting('max_replication_slots')::int4, (SELECT count(*) FROM pg_catalog.pg_replication_slots),
       current_setting('max_wal_senders')::int4, (SELECT count(*) FROM pg_catalog.pg_stat_replication)
  FROM pg_catalog.pg_roles r
  LEFT JOIN pg_catalog.pg_roles m ON m.rolname = 'rds_replication'
 WHERE r.rolname = current_user";

const TABLE_FACTS: &str = "\
SELECT c.oid, pg_has_role(c.relowner, 'USAGE'), has_schema_privilege(c.relnamespace, 'USAGE'),
       has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid)
  FROM pg_catalog.pg_class c
 WHERE c.oid = ANY ($1::oid[])";

const PUBLICATIONS: &str = "\
SELECT pubname::text, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
  FROM pg_catalog.pg_publication
 WHERE pubname = ANY ($1::text[])
 ORDER BY pubname";

/// Row filters and column lists are there from PostgreSQL 15 on.
const PUBLISHED_TABLES_14: &str = "\
SELECT pubname::text, schemaname::text, tablename::text, NULL::text, false
  FROM pg_catalog.pg_publication_tables
 WHERE pubname = ANY ($1::text[])
 ORDER BY 1, 2, 3";

const PUBLISHED_TABLES: &str = "\
SELECT t.pubname::text, t.schemaname::text, t.tablename::text, pg_get_expr(r.prqual, r.prrelid),
       r.prattrs IS NOT NULL
  FROM pg_catalog.pg_publication_tables t
  JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
  JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
  LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
 WHERE t.pubname = ANY ($1::text[])
 ORDER BY 1, 2, 3";

/// Locks that conflict with SHARE UPDATE EXCLUSIVE, without our own; of a table also those on its queue, which a dump holds too.
/// A prepared transaction has no process. A role without pg_read_all_stats sees of others' sessions little more than the pid.
const HOLDERS: &str = "\
SELECT DISTINCT CASE WHEN l.pid IS NULL THEN coalesce((SELECT pg_catalog.format('prepared transaction %L', p.gid)
              FROM pg_catalog.pg_locks x JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
             WHERE x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction LIMIT 1), 'a prepared transaction')
       ELSE pg_catalog.format('pid %s (', l.pid) || pg_catalog.concat_ws(', ', coalesce(nullif(a.application_name, ''), a.backend_type, 'details hidden'),
              'user ' || a.usename, a.state,
              'transaction open for ' || extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::int8 || ' s') || ')' END
  FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
  JOIN pg_catalog.pg_locks l ON l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND (l.relation = c.oid OR $3 AND l.relation = pg_catalog.to_regclass('repcloud.queue_' || c.oid))
   AND ($3 OR l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                  'AccessExclusiveLock'))
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 ORDER BY 1";

/// A source table of one configured entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRequest {
    /// Source table.
    pub name: TableName,
    /// `condition`.
    pub condition: Option<String>,
    /// `columns`.
    pub columns: Option<Vec<String>>,
    /// `key`.
    pub key: Option<Vec<String>>,
    /// Only INSERT.
    pub insert_only: bool,
}

/// The server and our role on it.
pub async fn read_source(client: &Client) -> Result<SourceFacts, SetupError> {
    let what = "reading the source's settings";
    let row = client.query_one(SOURCE, &[]).await.map_err(server(what))?;
    let read = || -> Result<SourceFacts, tokio_postgres::Error> {
        Ok(SourceFacts {
            version: row.try_get(0)?,
            role: row.try_get(1)?,
            database: row.try_get(2)?,
            may_replicate: row.try_get(3)?,
            replication_role: row.try_get(4)?,
            may_create: row.try_get(5)?,
            wal_level: row.try_get(6)?,
            slots: (row.try_get(7)?, row.try_get(8)?),
            wal_senders: (row.try_get(9)?, row.try_get(10)?),
        })
    };
    read().map_err(server(what))
}

/// What our role may do with the tables of [`WantedTable::storage`], by oid.
pub async fn read_table_facts(
    client: &Client,
    wanted: &[WantedTable],
) -> Result<BTreeMap<Oid, TableFacts>, SetupError> {
    let what = "reading our rights on the source's tables";
    // Row-level security is asked of relations that can have it only.
    let oids: Vec<Oid> = wanted
        .iter()
        .flat_map(WantedTable::storage)
        .filter(|t| matches!(t.kind, TableKind::Ordinary | TableKind::Partitioned))
        .map(|t| t.oid)
        .collect();
    let mut facts = BTreeMap::new();
    for row in client.query(TABLE_FACTS, &[&oids]).await.map_err(server(what))? {
        let read = || -> Result<(Oid, TableFacts), tokio_postgres::Error> {
            let (owned, schema_usable) = (row.try_get(1)?, row.try_get(2)?);
            let (selectable, row_security) = (row.try_get(3)?, row.try_get(4)?);
            Ok((row.try_get(0)?, TableFacts { owned, schema_usable, selectable, row_security }))
        };
        let (oid, fact) = read().map_err(server(what))?;
        facts.insert(oid, fact);
    }
    Ok(facts)
}

/// The publications of these names that exist, with the tables they cover.
pub async fn read_publications(
    client: &Client,
    names: &[String],
) -> Result<Vec<ExistingPublication>, SetupError> {
    let what = "reading the source's publications";
    let old = server_version_num(client).await? < 150_000;
    let query = if old { PUBLISHED_TABLES_14 } else { PUBLISHED_TABLES };
    // The filter is compared as text: it must print as `read_condition` prints it.
    let tables = client.query(query, &[&names]).await.map_err(server(what))?;
    let rows = client.query(PUBLICATIONS, &[&names]).await.map_err(server(what))?;
    let read = || -> Result<Vec<ExistingPublication>, tokio_postgres::Error> {
        let mut found: Vec<ExistingPublication> = Vec::new();
        for row in &rows {
            found.push(ExistingPublication {
                name: row.try_get(0)?,
                all_tables: row.try_get(1)?,
                operations: [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?, row.try_get(5)?],
                via_root: row.try_get(6)?,
                tables: Vec::new(),
            });
        }
        for row in &tables {
            let publication: &str = row.try_get(0)?;
            if let Some(publication) = found.iter_mut().find(|p| p.name == publication) {
                publication.tables.push(PublishedTable {
                    name: TableName::new(row.try_get::<_, String>(1)?, row.try_get::<_, String>(2)?),
                    filter: row.try_get(3)?,
                    column_list: row.try_get(4)?,
                });
            }
        }
        Ok(found)
    };
    read().map_err(server(what))
}

/// Reads the requested tables with their partitions and conditions. A table that does not exist and a condition
/// the server does not take are findings, and are not among the tables returned.
pub async fn read_wanted(
    client: &Client,
    requests: &[TableRequest],
) -> Result<(Vec<WantedTable>, Vec<Finding>), SetupError> {
    let names: Vec<TableName> = requests.iter().map(|r| r.name.clone()).collect();
    let tables = by_name(read_tables(client, &names).await?);
    let leaf_names: Vec<TableName> = tables.values().flat_map(|t| t.leaves.iter().cloned()).collect();
    let leaves = by_name(read_tables(client, &leaf_names).await?);
    let (mut wanted, mut findings) = (Vec::new(), Vec::new());
    for request in requests {
        let Some(table) = tables.get(&request.name) else {
            findings.push(Finding::new(&request.name, "it does not exist, or its name is written otherwise"));
            continue;
        };
        let condition = match &request.condition {
            None => None,
            Some(sql) => match read_condition(client, &table.name, sql).await? {
                Ok(condition) => Some(condition),
                Err(finding) => {
                    findings.push(finding);
                    continue;
                }
            },
        };
        wanted.push(WantedTable {
            leaves: table.leaves.iter().filter_map(|name| leaves.get(name).cloned()).collect(),
            table: table.clone(),
            condition,
            columns: request.columns.clone(),
            key: request.key.clone(),
            insert_only: request.insert_only,
        });
    }
    Ok((wanted, findings))
}

fn by_name(tables: Vec<TableDef>) -> BTreeMap<TableName, TableDef> {
    tables.into_iter().map(|t| (t.name.clone(), t)).collect()
}

/// Lets the server read a condition: what it refers to, and how it prints. The outer error is a broken
/// connection or the like, the inner one a condition that cannot be used.
///
/// A temporary table of the same shape gets the condition as a CHECK, and the transaction is rolled back: that
/// needs no right on the table but SELECT, and locks it as a reader does.
pub async fn read_condition(
    client: &Client,
    table: &TableName,
    condition: &str,
) -> Result<Result<Condition, Finding>, SetupError> {
    client.batch_execute("BEGIN").await.map_err(server("beginning a transaction"))?;
    let answer = probe(client, table, condition).await;
    client.batch_execute("ROLLBACK").await.map_err(server("rolling back"))?;
    let error = match answer {
        Ok(condition) => return Ok(Ok(condition)),
        Err(error) => ServerError::from(error),
    };
    if error.connection_lost || error.code.is_none() {
        return Err(SetupError::Server { what: format!("reading the condition of {table}"), error });
    }
    if error.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return Ok(Err(denied(client, table, &error).await?));
    }
    Ok(Err(Finding::new(table, format!("the server does not take its `condition`: {error}"))))
}

/// Why the condition cannot be judged later than the row was written, as a reader of queues does; `None`: it can.
pub async fn check_immutable(
    client: &Client,
    table: &TableName,
    condition: &str,
) -> Result<Option<Finding>, SetupError> {
    const WHAT: &str = "trying a condition";
    let temp = quote_ident(&table.table);
    client.batch_execute("BEGIN").await.map_err(server(WHAT))?;
    let tried = async {
        client.execute(&format!("CREATE TEMPORARY TABLE {temp} (LIKE {table})"), &[]).await?;
        // The server takes nothing else as the condition of an index.
        let index = format!("CREATE INDEX ON pg_temp.{temp} ((1)) WHERE ({condition})");
        client.execute(&index, &[]).await
    };
    let answer = tried.await.map_err(ServerError::from);
    client.batch_execute("ROLLBACK").await.map_err(server(WHAT))?;
    match answer {
        Ok(_) => Ok(None),
        Err(error) if error.connection_lost || error.code.is_none() => {
            Err(SetupError::Server { what: WHAT.to_owned(), error })
        }
        Err(error) => {
            let problem = format!(
                "its `condition` must give the same for a row whenever it is asked, since queued rows are judged later: {error}"
            );
            Ok(Some(Finding::new(table, problem)))
        }
    }
}

/// The rights that trying a condition needs and our role lacks.
async fn denied(client: &Client, table: &TableName, error: &ServerError) -> Result<Finding, SetupError> {
    let what = "reading our rights on the source";
    let query = "\
        SELECT current_user::text, current_database()::text, has_schema_privilege(n.oid, 'USAGE'),
               has_table_privilege(c.oid, 'SELECT'), has_database_privilege(current_database(), 'TEMPORARY')
          FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1::text AND c.relname = $2::text";
    let row = client.query_one(query, &[&table.schema, &table.table]).await.map_err(server(what))?;
    let text = |index| row.try_get::<_, &str>(index).map(quote_ident).map_err(server(what));
    let (role, database) = (text(0)?, text(1)?);
    let mut grants = Vec::new();
    for (index, grant) in [
        (2, format!("GRANT USAGE ON SCHEMA {} TO {role}", quote_ident(&table.schema))),
        (3, format!("GRANT SELECT ON {table} TO {role}")),
        (4, format!("GRANT TEMPORARY ON DATABASE {database} TO {role}")),
    ] {
        if !row.try_get::<_, bool>(index).map_err(server(what))? {
            grants.push(grant);
        }
    }
    let finding = Finding::new(table, format!("its `condition` could not be tried: {error}"));
    // All that are missing, not one of them.
    Ok(if grants.is_empty() { finding } else { finding.help(grants.join("; ")) })
}

async fn probe(
    client: &Client,
    table: &TableName,
    condition: &str,
) -> Result<Condition, tokio_postgres::Error> {
    // The table's own name, because a condition may qualify its columns with it.
    let temp = quote_ident(&table.table);
    let create = format!("CREATE TEMPORARY TABLE {temp} (LIKE {table})");
    client.execute(&create, &[]).await?;
    let add = format!("ALTER TABLE pg_temp.{temp} ADD CONSTRAINT repcloud_condition CHECK ({condition})");
    client.execute(&add, &[]).await?;
    let read = "\
        SELECT pg_get_expr(o.conbin, o.conrelid),
               ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                      -- 0 stands for the whole row.
                      WHERE a.attrelid = o.conrelid AND a.attnum > 0 AND NOT a.attisdropped
                        AND (a.attnum = ANY (o.conkey) OR 0 = ANY (o.conkey))
                      ORDER BY a.attnum)
          FROM pg_catalog.pg_constraint o
         WHERE o.conrelid = (SELECT c.oid FROM pg_catalog.pg_class c
                              WHERE c.relnamespace = pg_my_temp_schema() AND c.relname = $1::text)
           AND o.conname = 'repcloud_condition'";
    let row = client.query_one(read, &[&table.table]).await?;
    Ok(Condition { sql: condition.to_owned(), normalised: row.try_get(0)?, columns: row.try_get(1)? })
}

/// Who holds a lock that keeps us from publishing these tables, in words; with `users` whoever holds any.
pub async fn lock_holders(
    client: &Client,
    tables: &[TableName],
    users: bool,
) -> Result<Vec<String>, SetupError> {
    let what = "reading who holds the locks";
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|n| (n.schema.as_str(), n.table.as_str())).unzip();
    let rows = client.query(HOLDERS, &[&schemas, &names, &users]).await.map_err(server(what))?;
    rows.iter().map(|row| row.try_get(0).map_err(server(what))).collect()
}
