//! Tables that are configured, on either side of a stream and for repack.

use std::collections::BTreeSet;

use super::finding::{Check, Level, Remedy};
use super::remedies::Need;
use super::server::ServerFacts;
use super::statements::shape;
use super::target;
use crate::capture::auto::{self, Way};
use crate::capture::{Plugin, wal2json};
use crate::flow::start::StopReason;
use crate::flow::survey::{self, SurveyedSource};
use crate::flow::{FlowError, StreamOptions};
use crate::model::{Oid, TableName, quote_ident};
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

/// The source tables of one stream, read in this way; `None`: as configured.
pub(super) async fn source(
    session: &Session,
    server: &ServerFacts,
    options: &StreamOptions,
    way: Option<Way>,
) -> Result<Vec<Check>, FlowError> {
    let options = &way.map_or_else(|| options.clone(), |way| options.in_way(way));
    let surveyed = survey::source_tables(session, options).await?;
    let what = format!("source tables for {}", options.key.target);
    let mut checks = Vec::new();
    let bad = surveyed.iter().filter(|s| !s.findings.is_empty()).count();
    counted(&mut checks, &what, surveyed.len(), bad);
    if surveyed.is_empty() {
        checks.push(Check::warn(&what, "none"));
    }
    checks.extend(replicated_writes(server, &surveyed));
    if way == Some(Way::Slot(Plugin::Wal2json)) {
        checks.extend(by_wal2json(server, options, &surveyed).await?);
    }
    let found = surveyed.into_iter().flat_map(|s| s.findings.into_iter().map(move |f| (s.by_wildcard, f)));
    for (by_wildcard, finding) in found {
        let name = finding.table.as_ref().map_or_else(|| "publication".to_owned(), |t| format!("table {t}"));
        let check = match by_wildcard && finding.table.is_some() {
            true => Check::warn(&name, format!("the wildcard leaves it out: {}", finding.problem)),
            false => Check::fail(&name, finding.problem),
        };
        let check = match finding.statements.is_empty() {
            true => check,
            false => {
                let table = finding.table.as_ref().map(ToString::to_string);
                check.help(better(server, table.as_deref(), Remedy::one_of(finding.statements)))
            }
        };
        // What holds for the role, every table says.
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    Ok(checks)
}

/// What the rooms below advise, where this server has a better way: a platform that gives no BYPASSRLS, an owner that is a superuser.
fn better(server: &ServerFacts, table: Option<&str>, remedy: Remedy) -> Remedy {
    let [only] = remedy.statements.as_slice() else { return remedy };
    if only.ends_with(" BYPASSRLS") {
        return server.mend(&Need::EveryRow(server.role.clone()));
    }
    let role = quote_ident(&server.role);
    let gives = |owner: &&String| *only == format!("GRANT {} TO {role}", quote_ident(owner));
    match (server.superusers.iter().find(gives), table) {
        (Some(owner), Some(table)) => Remedy::run([format!("ALTER TABLE {table} OWNER TO {role}")]).and(
            format!("for its owner {} is a superuser, whose rights are not to be given", quote_ident(owner)),
        ),
        _ => remedy,
    }
}

/// Triggers of a table that we do not own fire for the application's writes only.
fn replicated_writes(server: &ServerFacts, surveyed: &[SurveyedSource]) -> Option<Check> {
    let tables: Vec<String> =
        surveyed.iter().flat_map(|s| &s.not_owned).map(|t| t.name.to_string()).collect();
    let owners: BTreeSet<&str> =
        surveyed.iter().flat_map(|s| &s.not_owned).map(|t| t.owner.as_str()).collect();
    if tables.is_empty() {
        return None;
    }
    let role = quote_ident(&server.role);
    let text = format!(
        "role {role} does not own {}: what sessions with session_replication_role = replica write there (replicated rows, some restores) is \
         missed",
        tables.join(", ")
    );
    let grants: Vec<String> = owners
        .into_iter()
        .filter(|owner| !server.is_superuser(owner))
        .map(|owner| format!("GRANT {} TO {role}", quote_ident(owner)))
        .collect();
    let remedy = match grants.is_empty() {
        true => Remedy::note(format!("where there are such sessions, make {role} the owner")),
        false => Remedy::run(grants).and("where there are such sessions"),
    };
    Some(Check::warn("replicated writes", text).help(remedy))
}

/// What this plugin cannot carry.
async fn by_wal2json(
    server: &ServerFacts,
    options: &StreamOptions,
    surveyed: &[SurveyedSource],
) -> Result<Vec<Check>, FlowError> {
    let mut checks = Vec::new();
    if server.encoding != "UTF8" {
        let text = format!("{}: wal2json sends text in it, and only UTF8 can be read", server.encoding);
        let help = Remedy::note("set plugin = \"pgoutput\"");
        checks.push(Check::fail("encoding", text).help(help));
    }
    let definitions = surveyed.iter().filter_map(|s| s.definition.as_ref());
    let lossy: Vec<String> =
        definitions.flat_map(|d| wal2json::lossy_columns(&d.table, d.columns.as_deref())).collect();
    if lossy.is_empty() || options.capture.allow_lossy_numbers {
        return Ok(checks);
    }
    let keeps = auto::wal2json_keeps_numbers(&options.source).await.map_err(FlowError::Source)?;
    if keeps == Some(false) {
        let text = format!("this wal2json sends NaN and the infinities as null, in {}", lossy.join(", "));
        let help = "set plugin = \"pgoutput\", or allow_lossy_numbers = true where there are none, or install wal2json 2.6";
        checks.push(Check::fail("numbers", text).help(Remedy::note(help)));
    }
    Ok(checks)
}

/// What is written to by one stream: rights, shapes, extensions. `server` is the target's.
pub(super) async fn target(
    source: &Session,
    session: &Session,
    server: &ServerFacts,
    options: &StreamOptions,
) -> Result<Vec<Check>, FlowError> {
    let options = &survey::in_its_way(source, options).await?;
    let sources = survey::source_tables(source, options).await?;
    let surveyed = survey::target_tables((source, session), options, &sources).await?;
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
    for full in surveyed.iter().filter(|s| s.holds_rows) {
        let reason = StopReason::TargetHoldsRows { table: full.table.clone() };
        let hint = Remedy::note(reason.hint(&options.key.source));
        checks.push(Check::fail(&format!("table {}", full.table), reason.to_string()).help(hint));
    }
    for finding in surveyed.into_iter().flat_map(|s| s.findings) {
        let check = Check::fail(&format!("table {}", finding.table), finding.problem);
        checks.push(match finding.help {
            Some(statement) => check.help(Remedy::one_of(vec![statement])),
            None => check,
        });
    }
    let needed = target::needed(source, &oids(&sources)).await.map_err(FlowError::Source)?;
    let there = target::there(session, &needed).await.map_err(FlowError::Target)?;
    checks.extend(target::judge_extensions(&needed, &there));
    Ok(checks)
}

fn oids(sources: &[SurveyedSource]) -> Vec<Oid> {
    let taken = sources.iter().filter(|s| !s.is_left_out());
    taken.filter_map(|s| s.definition.as_ref()).map(|d| d.table.oid).collect()
}

/// Every selected table as a repack's pre-flight sees it, and what of the server only a repack minds.
pub(super) async fn repack(
    session: &Session,
    server: &ServerFacts,
    options: &RepackOptions,
) -> Result<Vec<Check>, RepackError> {
    let chosen = select(session, &options.selection, &options.rules).await?;
    let mut checks = Vec::new();
    let asked = preflight::server::read(session).await.map_err(preflight::PreflightError::from)?;
    let mut of_server = preflight::limits::judge(&asked, &options.settings);
    of_server.extend(preflight::publications::check(session).await.map_err(preflight::PreflightError::from)?);
    checks.extend(of_server.into_iter().map(|finding| of_repack(server, finding)));
    let mut bad = 0;
    for table in &chosen.tables {
        let findings = preflight::check_table(session, options, table).await?;
        bad += usize::from(preflight::is_refused(&findings));
        checks.extend(findings.into_iter().map(|finding| of_repack(server, finding)));
    }
    counted(&mut checks, "tables to repack", chosen.tables.len(), bad);
    for missing in chosen.missing {
        checks.push(Check::fail(&format!("table {}", missing.asked), missing.reason));
    }
    for (table, why) in chosen.left_out {
        checks.push(Check::warn(&format!("table {table}"), format!("left out: {why}")));
    }
    Ok(checks)
}

fn of_repack(server: &ServerFacts, finding: Finding) -> Check {
    let level = match finding.severity {
        Severity::Warn => Level::Warn,
        Severity::Refuse => Level::Fail,
    };
    let check = Check { check: finding.object, level, detail: finding.problem, remedy: None };
    match finding.remedy {
        Some(text) => match text.strip_prefix("run: ") {
            Some(statement) if shape(statement).is_some() => {
                let table = check.check.strip_prefix("table ").map(str::to_owned);
                check.help(better(server, table.as_deref(), Remedy::run([statement])))
            }
            _ => check.help(Remedy::note(text)),
        },
        None => check,
    }
}
