//! Tables that are configured, on either side of a stream and for repack.

use std::collections::BTreeSet;

use super::finding::{Check, Level, Remedy};
use super::target;
use crate::flow::survey::{self, SurveyedSource};
use crate::flow::{FlowError, StreamOptions};
use crate::model::{Oid, TableName};
use crate::pg::Session;
use crate::repack::error::RepackError;
use crate::repack::options::RepackOptions;
use crate::repack::preflight::{self, Finding, Severity};
use crate::repack::select::select;

/// Of a table that is fine there is nothing to read in a list of a thousand: they are counted.
fn counted(checks: &mut Vec<Check>, what: &str, all: usize, bad: usize) {
    if all > bad {
        checks.push(Check::ok(what, format!("{} of {all} have everything they need", all - bad)));
    }
}

/// The source tables of one stream.
pub(super) async fn source(session: &Session, options: &StreamOptions) -> Result<Vec<Check>, FlowError> {
    let surveyed = survey::source_tables(session, options).await?;
    let what = format!("source tables for {}", options.key.target);
    let mut checks = Vec::new();
    let bad = surveyed.iter().filter(|s| !s.findings.is_empty()).count();
    counted(&mut checks, &what, surveyed.len(), bad);
    if surveyed.is_empty() {
        checks.push(Check::warn(&what, "none"));
    }
    let found = surveyed.into_iter().flat_map(|s| s.findings.into_iter().map(move |f| (s.by_wildcard, f)));
    for (by_wildcard, finding) in found {
        let name = finding.table.as_ref().map_or_else(|| "publication".to_owned(), |t| format!("table {t}"));
        let remedy = Remedy { statements: finding.statements, one_of: true, note: None };
        let check = match by_wildcard && finding.table.is_some() {
            true => Check::warn(&name, format!("the wildcard leaves it out: {}", finding.problem)),
            false => Check::fail(&name, finding.problem),
        };
        let check = if remedy.statements.is_empty() { check } else { check.help(remedy) };
        // What holds for the role, every table says.
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    Ok(checks)
}

/// What is written to by one stream: rights, shapes, extensions. `server` is the target's.
pub(super) async fn target(
    source: &Session,
    session: &Session,
    server: &super::server::ServerFacts,
    options: &StreamOptions,
) -> Result<Vec<Check>, FlowError> {
    let surveyed = survey::target_tables(source, session, options).await?;
    let tables: BTreeSet<TableName> = surveyed.iter().map(|s| s.table.clone()).collect();
    let replica_role = survey::may_use_replica_role(session).await?;
    let facts = target::read(session, &tables, replica_role).await.map_err(FlowError::Target)?;
    let mut checks = Vec::new();
    let rights = target::judge(server, &facts, &tables);
    let is_table = |c: &Check| c.check.starts_with("table ");
    let all = rights.iter().filter(|c| is_table(c)).count();
    let bad = rights.iter().filter(|c| is_table(c) && c.level != Level::Ok).count();
    counted(&mut checks, &format!("target tables of {}", options.key.source), all, bad);
    checks.extend(rights.into_iter().filter(|c| !is_table(c) || c.level != Level::Ok));
    for finding in surveyed.into_iter().flat_map(|s| s.findings) {
        let check = Check::fail(&format!("table {}", finding.table), finding.problem);
        checks.push(match finding.help {
            Some(statement) => check.help(Remedy::run([statement])),
            None => check,
        });
    }
    let sources = survey::source_tables(source, options).await?;
    let needed = target::needed(source, &oids(&sources)).await.map_err(FlowError::Source)?;
    let there = target::there(session, &needed).await.map_err(FlowError::Target)?;
    checks.extend(target::judge_extensions(&needed, &there));
    Ok(checks)
}

fn oids(sources: &[SurveyedSource]) -> Vec<Oid> {
    sources.iter().filter_map(|s| s.definition.as_ref()).map(|d| d.table.oid).collect()
}

/// Every selected table as a repack's pre-flight sees it.
pub(super) async fn repack(session: &Session, options: &RepackOptions) -> Result<Vec<Check>, RepackError> {
    let chosen = select(session, &options.selection, &options.rules).await?;
    let mut checks = Vec::new();
    let mut bad = 0;
    for table in &chosen.tables {
        let findings = preflight::check_table(session, options, table).await?;
        bad += usize::from(preflight::is_refused(&findings));
        checks.extend(findings.into_iter().map(of_repack));
    }
    counted(&mut checks, "tables to repack", chosen.tables.len(), bad);
    for (table, why) in chosen.left_out {
        checks.push(Check::warn(&format!("table {table}"), format!("left out: {why}")));
    }
    Ok(checks)
}

fn of_repack(finding: Finding) -> Check {
    let level = match finding.severity {
        Severity::Warn => Level::Warn,
        Severity::Refuse => Level::Fail,
    };
    let remedy = finding.remedy.map(|text| match text.strip_prefix("run: ") {
        Some(statement) if !statement.starts_with("repcloud ") && !statement.contains("; and ") => {
            Remedy::run([statement])
        }
        _ => Remedy::note(text),
    });
    Check { check: finding.object, level, detail: finding.problem, remedy }
}
