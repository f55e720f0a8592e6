//! What stands in the way of a stream, table by table, for somebody who asks before it is started. Nothing is changed.

use crate::apply::checkpoint;
use crate::capture::auto::Way;
use crate::capture::publish::{self, Finding, WantedTable};
use crate::capture::reading::Plugin;
use crate::capture::setup;
use crate::capture::setup::TableRequest;
use crate::catalog::{TableDef, read_table};
use crate::copy::target::rows_exist;
use crate::flow::error::FlowError;
use crate::flow::options::StreamOptions;
use crate::flow::resolve::{self, Configured};
use crate::flow::work::{self, TableWork, TargetFinding};
use crate::flow::{casts, facts, plugin, queue_rights, queues};
use crate::model::{Events, RetryAdvice, TableName};
use crate::pg::Session;

/// A source table of a stream.
#[derive(Debug, Clone)]
pub struct SurveyedSource {
    /// Its name.
    pub table: TableName,
    /// Its definition and those of its leaves; `None` where it is not there, or its condition cannot be read.
    pub definition: Option<WantedTable>,
    /// What keeps it from being published or read.
    pub findings: Vec<Finding>,
    /// No entry names it: a wildcard leaves it out where something keeps it from being replicated.
    pub by_wildcard: bool,
    /// Of those that are captured by triggers: the tables that our role does not own, whose triggers cannot fire for replicated writes.
    pub not_owned: Vec<TableDef>,
}

/// The way in which this stream reads already, or is told to. `None`: it has not begun, and goes the first way that works.
pub async fn decided_way(source: &Session, options: &StreamOptions) -> Result<Option<Way>, FlowError> {
    plugin::decided(options, source).await
}

/// The source tables of a stream, judged by the way that the options ask for: triggers, or else a slot.
pub async fn source_tables(
    source: &Session,
    options: &StreamOptions,
) -> Result<Vec<SurveyedSource>, FlowError> {
    let configured = resolve::configured(source, options).await?;
    let request = |c: &Configured<'_>| resolve::request(c.entry, c.source.clone());
    let requests: Vec<TableRequest> = configured.iter().map(request).collect();
    let (wanted, missing) = setup::read_wanted(source, &requests).await?;
    if options.by_triggers() {
        return captured_tables(source, options, &configured, &wanted, &missing).await;
    }
    let server = setup::read_source(source).await?;
    let facts = setup::read_table_facts(source, &wanted).await?;
    let given = match &options.publication {
        None => None,
        Some(name) => Some((name, setup::read_publications(source, std::slice::from_ref(name)).await?)),
    };
    // Of a publication as a whole: said once, for all tables together.
    let mut of_all: Vec<Finding> = given
        .iter()
        .flat_map(|(name, there)| publish::check_ready_made(name, there.first(), &server, &facts, &wanted))
        .filter(|finding| finding.table.is_none())
        .collect();
    let mut surveyed = Vec::new();
    for (request, configured) in requests.iter().zip(&configured) {
        let definition = wanted.iter().find(|w| w.table.name == request.name);
        let mut findings = match (definition, &given) {
            (None, _) => {
                missing.iter().filter(|f| f.table.as_ref() == Some(&request.name)).cloned().collect()
            }
            (Some(table), None) => {
                publish::plan(&options.default_name(), &server, &facts, std::slice::from_ref(table), &[])
                    .err()
                    .unwrap_or_default()
            }
            (Some(table), Some((name, there))) => {
                let one = std::slice::from_ref(table);
                let found = publish::check_ready_made(name, there.first(), &server, &facts, one);
                found.into_iter().filter(|finding| finding.table.is_some()).collect()
            }
        };
        findings.append(&mut of_all);
        if options.plugin() == Plugin::Wal2json && request.condition.is_some() {
            findings.push(Finding::new(&request.name, plugin::CONDITION));
        }
        findings.extend(left_out_for_its_stamp(configured, definition));
        surveyed.push(SurveyedSource {
            table: request.name.clone(),
            definition: definition.cloned(),
            findings,
            by_wildcard: !configured.entry.names(&configured.source),
            not_owned: Vec::new(),
        });
    }
    Ok(surveyed)
}

/// A wildcard leaves it out; one that is named is judged with its target table.
fn left_out_for_its_stamp(configured: &Configured<'_>, definition: Option<&WantedTable>) -> Option<Finding> {
    let definition = definition.filter(|_| !configured.entry.names(&configured.source))?;
    resolve::stamp_in_use(configured.entry, definition)
}

/// The source tables of a stream by triggers: no publication, no replica identity and no ownership is asked for.
async fn captured_tables(
    source: &Session,
    options: &StreamOptions,
    configured: &[Configured<'_>],
    wanted: &[WantedTable],
    missing: &[Finding],
) -> Result<Vec<SurveyedSource>, FlowError> {
    let mut surveyed = Vec::new();
    for configured in configured {
        let name = &configured.source;
        let definition = wanted.iter().find(|w| w.table.name == *name);
        let mut not_owned = Vec::new();
        let findings = match definition {
            None => missing.iter().filter(|f| f.table.as_ref() == Some(name)).cloned().collect(),
            Some(wanted) => {
                let work = TableWork {
                    source: wanted.table.clone(),
                    leaves: wanted.leaves.clone(),
                    target: configured.target.clone(),
                    entry: configured.entry.clone(),
                };
                let (owned, findings) = queue_rights::examine(
                    options,
                    source,
                    std::slice::from_ref(&work),
                    std::slice::from_ref(wanted),
                )
                .await?;
                let is_not = |t: &&TableDef| owned.iter().any(|(oid, owned)| *oid == t.oid && !owned);
                not_owned.extend(wanted.storage().iter().filter(is_not).cloned());
                findings.into_iter().chain(left_out_for_its_stamp(configured, definition)).collect()
            }
        };
        surveyed.push(SurveyedSource {
            table: name.clone(),
            definition: definition.cloned(),
            findings,
            by_wildcard: !configured.entry.names(&configured.source),
            not_owned,
        });
    }
    Ok(surveyed)
}

impl SurveyedSource {
    /// A wildcard passes over it, so that nothing is asked of the target for it.
    pub fn is_left_out(&self) -> bool {
        self.by_wildcard && self.findings.iter().any(|finding| finding.table.is_some())
    }
}

/// The stream as it reads, or would read if it began now.
pub async fn in_its_way(source: &Session, options: &StreamOptions) -> Result<StreamOptions, FlowError> {
    let silent = Events::new(|_| ());
    match plugin::choose(options, source, &silent).await {
        Ok(way) => Ok(options.in_way(way)),
        // That it can go no way is told where the source is looked at.
        Err(FlowError::Refused(_)) => Ok(options.clone()),
        Err(error) => Err(error),
    }
}

/// A target table of a stream.
#[derive(Debug, Clone)]
pub struct SurveyedTarget {
    /// Its name.
    pub table: TableName,
    /// It is there.
    pub exists: bool,
    /// What keeps changes from being written.
    pub findings: Vec<TargetFinding>,
    /// Its first copy would be refused: rows are there that nobody knows of.
    pub holds_rows: bool,
}

/// The target tables of a stream. Tables that the source does not have, that its wildcards leave out (`sources`) and that drop-table
/// took out are left out.
pub async fn target_tables(
    (source, target): (&Session, &Session),
    options: &StreamOptions,
    sources: &[SurveyedSource],
) -> Result<Vec<SurveyedTarget>, FlowError> {
    let replica_role = facts::may_use_replica_role(target).await?;
    let Recorded { known, dropped } = recorded(target, options).await?;
    let mut surveyed = Vec::new();
    for configured in resolve::configured(source, options).await? {
        let its = sources.iter().find(|s| s.table == configured.source);
        let was_dropped = dropped.contains(&configured.target.to_string());
        if its.is_some_and(|s| s.is_left_out() || s.by_wildcard && was_dropped) {
            continue;
        }
        let Some(mut work) = table_work(source, &configured).await? else { continue };
        if options.by_triggers() {
            queues::knows_whole_rows(&mut work);
        }
        let there = read_table(target, &work.target).await?;
        let findings = match &there {
            Some(there) => findings(target, &work, there, replica_role).await?,
            None => Vec::new(),
        };
        let is_new = |known: &Vec<String>| work.entry.copy && !known.contains(&work.target.to_string());
        let is_new = known.as_ref().is_some_and(is_new);
        let holds_rows = is_new && there.is_some() && holds_rows(target, &work.target).await?;
        surveyed.push(SurveyedTarget { table: work.target, exists: there.is_some(), findings, holds_rows });
    }
    Ok(surveyed)
}

/// What the target remembers of a stream.
#[derive(Default)]
struct Recorded {
    /// The target tables of which something is recorded; `None` where our role may not look.
    known: Option<Vec<String>>,
    /// Those that drop-table took out.
    dropped: Vec<String>,
}

async fn recorded(target: &Session, options: &StreamOptions) -> Result<Recorded, FlowError> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
           AND pg_catalog.has_table_privilege(c.oid, 'SELECT')) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'repcloud' AND c.relname IN ('version', 'table_state', 'dropped')";
    let failed = |error: tokio_postgres::Error| FlowError::Target(error.into());
    let row = target.query_one(sql, &[]).await.map_err(failed)?;
    let (there, readable): (i64, i64) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if there == 0 {
        return Ok(Recorded { known: Some(Vec::new()), dropped: Vec::new() });
    }
    if readable < there {
        return Ok(Recorded::default());
    }
    let records = checkpoint::read_tables(target, &options.key).await?;
    let known = records.into_iter().map(|record| record.target_table).collect();
    Ok(Recorded { known: Some(known), dropped: checkpoint::read_dropped(target, &options.key).await? })
}

/// False where our role may not look, which its rights on the table tell.
async fn holds_rows(target: &Session, table: &TableName) -> Result<bool, FlowError> {
    match rows_exist(target, table).await {
        Err(error) if error.advice() == RetryAdvice::Stop => Ok(false),
        rows => Ok(rows?),
    }
}

async fn findings(
    target: &Session,
    work: &TableWork,
    there: &TableDef,
    replica_role: bool,
) -> Result<Vec<TargetFinding>, FlowError> {
    let mut findings = work::route(work, there, None, replica_role).err().unwrap_or_default();
    findings.extend(casts::findings(target, there).await?);
    Ok(findings)
}

async fn table_work(source: &Session, configured: &Configured<'_>) -> Result<Option<TableWork>, FlowError> {
    let Some(table) = read_table(source, &configured.source).await? else { return Ok(None) };
    let mut leaves = Vec::new();
    for leaf in &table.leaves {
        leaves.extend(read_table(source, leaf).await?);
    }
    Ok(Some(TableWork {
        source: table,
        leaves,
        target: configured.target.clone(),
        entry: configured.entry.clone(),
    }))
}

/// True when the role may let triggers and foreign keys of the target rest.
pub async fn may_use_replica_role(target: &Session) -> Result<bool, FlowError> {
    facts::may_use_replica_role(target).await
}
