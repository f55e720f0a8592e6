//! What keeps tables of the source from being captured by triggers, with the statements that help.

use std::collections::BTreeSet;

use crate::capture::publish::{self, Finding, WantedTable};
use crate::capture::setup;
use crate::catalog::{TableDef, TableKind};
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::queues::{source_error, storage};
use crate::flow::work::TableWork;
use crate::model::{Oid, TableName, quote_ident};
use crate::pg::Session;

/// What a role that does not own schema `repcloud` needs there, as far as it is there.
const SCHEMA_RIGHTS: &str = "\
SELECT n.nspowner::regrole::text, current_user::text, pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       pg_catalog.has_schema_privilege(n.oid, 'CREATE'),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname IN ('tick', 'reads')
                AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                     AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'version'
                AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'queue_seq'
                AND NOT pg_catalog.has_sequence_privilege(c.oid, 'USAGE'))
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname = 'repcloud' AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')";

/// Refuses a role that may not use the schema `repcloud` of another one; nothing in it could be read.
pub(crate) async fn check_schema(source: &Session) -> Result<(), FlowError> {
    let Some(row) = source.query_opt(SCHEMA_RIGHTS, &[]).await.map_err(source_error)? else {
        return Ok(setup::update_shared(source).await?);
    };
    let read = || -> Result<(String, Vec<String>), tokio_postgres::Error> {
        let (owner, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let role = quote_ident(&role);
        let mut grants = Vec::new();
        if !row.try_get::<_, bool>(2)? || !row.try_get::<_, bool>(3)? {
            grants.push(format!("GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}"));
        }
        for (index, rights, kind) in
            [(4, "SELECT, INSERT, UPDATE, DELETE", ""), (5, "SELECT", ""), (6, "USAGE", "SEQUENCE ")]
        {
            for name in row.try_get::<_, Vec<String>>(index)? {
                grants.push(format!("GRANT {rights} ON {kind}repcloud.{name} TO {role}"));
            }
        }
        Ok((owner, grants))
    };
    let (owner, grants) = read().map_err(source_error)?;
    if grants.is_empty() {
        return Ok(());
    }
    let problem = format!("schema repcloud belongs to {owner}, and our role may not use it");
    let finding = Finding::of_source(problem).help(grants.join("; "));
    Err(FlowError::refused_by_source(&[finding]))
}

/// Of a table that may be captured: our role owns it.
pub(crate) type Owned = Vec<(Oid, bool)>;

/// Refuses what keeps tables from being captured.
pub(crate) async fn check(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
) -> Result<(), FlowError> {
    let (_, findings) = examine(options, source, work, wanted).await?;
    if findings.is_empty() { Ok(()) } else { Err(FlowError::refused_by_source(&findings)) }
}

/// Which tables our role owns, and everything that keeps them from being captured.
pub(crate) async fn examine(
    options: &StreamOptions,
    source: &Session,
    work: &[TableWork],
    wanted: &[WantedTable],
) -> Result<(Owned, Vec<Finding>), FlowError> {
    let mut findings = given(options);
    findings.extend(publish::contradictions(wanted));
    for table in wanted {
        if let Some(condition) = &table.condition {
            findings.extend(setup::check_immutable(source, &table.table.name, &condition.sql).await?);
        }
    }
    let (owned, of_tables) = examine_tables(source, work.iter().flat_map(storage).collect()).await?;
    findings.extend(of_tables);
    Ok((owned, findings))
}

/// What keeps each of the tables from being captured; the number of queries does not depend on their number.
pub(crate) async fn refusals(
    source: &Session,
    wanted: &[WantedTable],
) -> Result<Vec<(TableName, Vec<Finding>)>, FlowError> {
    let (_, findings) =
        examine_tables(source, wanted.iter().flat_map(WantedTable::storage).collect()).await?;
    let of = |table: &WantedTable| -> Vec<Finding> {
        let is_its = |finding: &&Finding| {
            table.storage().iter().any(|stored| finding.table.as_ref() == Some(&stored.name))
        };
        findings.iter().filter(is_its).cloned().collect()
    };
    Ok(wanted.iter().map(|table| (table.table.name.clone(), of(table))).collect())
}

/// $1 the tables: our role and its rights on each, and whether it has a queue.
const TABLE_RIGHTS: &str = "\
SELECT c.oid, pg_catalog.pg_has_role(c.relowner, 'USAGE'), pg_catalog.has_table_privilege(c.oid, 'TRIGGER'),
       pg_catalog.has_table_privilege(c.oid, 'SELECT'), pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), current_user::text,
       EXISTS (SELECT FROM pg_catalog.pg_class q JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace
                WHERE n.nspname = 'repcloud' AND q.relname = 'queue_' || c.oid)
  FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)";

/// Rights of our role on one table.
struct Rights {
    table: Oid,
    owner: bool,
    trigger: bool,
    select: bool,
    hides_rows: bool,
    schema: bool,
    role: String,
    queue: bool,
}

impl Rights {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Rights {
            table: row.try_get(0)?,
            owner: row.try_get(1)?,
            trigger: row.try_get(2)?,
            select: row.try_get(3)?,
            hides_rows: row.try_get(4)?,
            schema: row.try_get(5)?,
            role: quote_ident(row.try_get(6)?),
            queue: row.try_get(7)?,
        })
    }

    /// What is missing.
    fn judge(&self, table: &TableDef, findings: &mut Vec<Finding>) {
        let (name, role) = (&table.name, &self.role);
        let schema = quote_ident(&name.schema);
        for (missing, problem, help) in [
            (
                !self.schema,
                "our role may not use its schema",
                format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
            ),
            (
                !self.trigger,
                "our role lacks the right TRIGGER on it",
                format!("GRANT TRIGGER ON {name} TO {role}"),
            ),
            (
                !self.select,
                "our role lacks the right SELECT on it",
                format!("GRANT SELECT ON {name} TO {role}"),
            ),
            (
                self.hides_rows,
                "row-level security hides rows from our role",
                format!("ALTER ROLE {role} BYPASSRLS"),
            ),
            (
                table.persistence == 'u',
                "it is UNLOGGED: a crash of the source would empty it and its queue, and not the target",
                format!("ALTER TABLE {name} SET LOGGED"),
            ),
        ] {
            if missing {
                findings.push(Finding::new(name, problem).help(help));
            }
        }
    }
}

/// Each table once.
async fn examine_tables(
    source: &Session,
    mut tables: Vec<&TableDef>,
) -> Result<(Owned, Vec<Finding>), FlowError> {
    tables.sort_by_key(|t| t.oid);
    tables.dedup_by_key(|t| t.oid);
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let rows = source.query(TABLE_RIGHTS, &[&oids]).await.map_err(source_error)?;
    let rights: Vec<Rights> =
        rows.iter().map(Rights::read).collect::<Result<_, _>>().map_err(source_error)?;
    let earlier = setup::earlier_triggers(source, &oids).await?;
    let taken = taken(source, rights.iter().filter(|r| r.queue).map(|r| r.table).collect()).await?;
    let (mut owned, mut findings) = (Vec::new(), Vec::new());
    for table in tables {
        if !matches!(table.kind, TableKind::Ordinary | TableKind::Partitioned) {
            findings.push(Finding::new(&table.name, "it is not a table, and has no changes of its own"));
            continue;
        }
        // One that is gone by now is missed where it is looked for next.
        let Some(rights) = rights.iter().find(|r| r.table == table.oid) else { continue };
        rights.judge(table, &mut findings);
        for (_, rename) in earlier.iter().filter(|(of, _)| *of == table.oid) {
            findings.push(Finding::new(&table.name, setup::FIRES_FIRST).help(rename.clone()));
        }
        owned.push((table.oid, rights.owner));
        if taken.contains(&table.oid) {
            let problem = "a repack has its triggers on it; start again when that has ended";
            findings.push(Finding::new(&table.name, problem));
        }
    }
    Ok((owned, findings))
}

/// Those of `queues` that no stream reads.
async fn taken(source: &Session, queues: Vec<Oid>) -> Result<BTreeSet<Oid>, FlowError> {
    let mut taken: BTreeSet<Oid> = queues.iter().copied().collect();
    if taken.is_empty() || !setup::is_there(source, "repcloud.reads").await? {
        return Ok(taken);
    }
    let sql = "SELECT DISTINCT queue FROM repcloud.reads WHERE queue = ANY ($1)";
    for row in source.query(sql, &[&queues]).await.map_err(source_error)? {
        taken.remove(&row.try_get::<_, Oid>(0).map_err(source_error)?);
    }
    Ok(taken)
}

fn given(options: &StreamOptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, is_given) in
        [("slot_name", options.slot_name.is_some()), ("publication", options.publication.is_some())]
    {
        if is_given {
            findings.push(Finding::of_source(format!(
                "{key} is configured, and triggers use none; take it away"
            )));
        }
    }
    findings
}
