//! One connection, from the first packet to the last table.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Check, Level, Remedy};
use super::platform::Platform;
use super::server::{self, ServerFacts, Wanted};
use super::{capture, leftovers, read, tables};
use crate::capture::auto::Asked;
use crate::capture::auto::CaptureOptions;
use crate::flow::StreamOptions;
use crate::pg::{self, ConnectOptions, PgError, Session};
use crate::repack::options::RepackOptions;
use crate::repack::state;

/// The longest that one part of the examination may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection, and what is configured for it.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its name.
    pub name: String,
    /// How to reach it.
    pub connect: ConnectOptions,
    /// How its changes are to be read.
    pub capture: CaptureOptions,
    /// Streams that read from it.
    pub reads: Vec<StreamOptions>,
    /// Streams that write to it.
    pub writes: Vec<StreamOptions>,
    /// Tables of it are to be repacked.
    pub repack: Option<RepackOptions>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The connection.
    pub name: String,
    /// The way changes will be read: `slot` or `trigger`; `None`: none works, or none is needed.
    pub capture: Option<&'static str>,
    /// In the order of looking.
    pub checks: Vec<Check>,
}

impl Report {
    /// Something that the configured work needs is missing.
    pub fn is_failed(&self) -> bool {
        self.checks.iter().any(|c| c.level == Level::Fail)
    }
}

/// Looks at everything. What cannot be asked is a failed check, and the rest goes on.
pub async fn examine(work: &Work) -> Report {
    let mut report = Report { name: work.name.clone(), capture: None, checks: Vec::new() };
    if let Some(warning) = Platform::host_warning(&work.connect.host, work.connect.port) {
        report
            .checks
            .push(Check::fail("pooler", warning).help(Remedy::note("change host or port of the connection")));
    }
    let session = match pg::connect(&work.connect).await {
        Ok(session) => session,
        Err(error) => {
            report.checks.push(unreachable(&error));
            return report;
        }
    };
    report.checks.push(Check::ok("reachable", work.connect.target()));
    match limited("the server", read::server(&session)).await {
        Ok(facts) => with_server(work, &session, &facts, &mut report).await,
        Err(check) => report.checks.push(check),
    }
    // Whether it ends politely is no finding.
    drop(session.close().await);
    report
}

fn unreachable(error: &PgError) -> Check {
    let text = error.to_string();
    let note = if text.contains("startup parameter") {
        "a pooler stands between: give host and port of the server itself"
    } else {
        "check host, port, user, password and sslmode of the connection, the network, and the server's pg_hba.conf"
    };
    Check::fail("reachable", text).help(Remedy::note(note))
}

/// Runs one part with the limit; its failure is a check.
async fn limited<T, E: std::fmt::Display>(
    what: &str,
    part: impl Future<Output = Result<T, E>>,
) -> Result<T, Check> {
    match timeout(LIMIT, Box::pin(part)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(Check::fail(what, format!("could not be examined: {error}"))),
        Err(_) => Err(Check::fail(what, format!("no answer within {} s", LIMIT.as_secs()))),
    }
}

fn merge(report: &mut Report, found: Result<Vec<Check>, Check>) {
    let checks = found.unwrap_or_else(|check| vec![check]);
    for check in checks {
        if !report.checks.contains(&check) {
            report.checks.push(check);
        }
    }
}

async fn with_server(work: &Work, session: &Session, facts: &ServerFacts, report: &mut Report) {
    let slots = limited("slots", slots_there(session)).await;
    let there = slots.as_ref().ok();
    let new = work.reads.iter().filter(|s| there.is_none_or(|t| !t.contains(&s.slot()))).count();
    let reads = !work.reads.is_empty() || work.repack.is_some();
    // A repack that is to read triggers needs nothing of the server; a stream cannot yet.
    let triggers = work.capture.asked == Asked::Trigger && work.reads.is_empty();
    let wanted = Wanted {
        reads: reads && !triggers,
        new_slots: i64::try_from(new).unwrap_or(i64::MAX - 16)
            + i64::from(work.repack.is_some() && !triggers),
        writes: !work.writes.is_empty(),
        local: work.connect.is_unix(),
    };
    report.checks.extend(server::judge(facts, wanted));
    let decodes = facts.setting("wal_level") == Some("logical") || triggers;
    if reads && decodes && !facts.in_recovery {
        read_changes(work, facts, report).await;
    }
    if work.repack.is_some() && !facts.may_create {
        let (role, database) =
            (crate::model::quote_ident(&facts.role), crate::model::quote_ident(&facts.database));
        report.checks.push(
            Check::fail("publication", format!("role {role} may not make one in database {database}"))
                .help(Remedy::run([format!("GRANT CREATE ON DATABASE {database} TO {role}")])),
        );
    }
    for options in &work.reads {
        merge(report, limited("source tables", tables::source(session, options)).await);
    }
    for options in &work.writes {
        merge(report, written(session, facts, options).await);
    }
    if let Some(options) = &work.repack {
        merge(report, limited("tables to repack", tables::repack(session, options)).await);
    }
    merge(report, limited("leftovers", left(work, session)).await);
}

async fn read_changes(work: &Work, facts: &ServerFacts, report: &mut Report) {
    match limited("capture", capture::try_ways(&work.connect, work.capture, !work.reads.is_empty(), facts))
        .await
    {
        Ok((way, checks)) => {
            report.capture = way;
            report.checks.extend(checks);
            if way == Some("slot") {
                match limited("pooler", read::is_pooled(&work.connect)).await {
                    Ok(false) => report.checks.push(Check::ok("pooler", "none in between")),
                    Ok(true) => report.checks.push(
                        Check::fail(
                            "pooler",
                            "a pooler stands between, and a stream needs a session of its own",
                        )
                        .help(Remedy::note("give host and port of the server itself")),
                    ),
                    Err(check) => report.checks.push(check),
                }
            }
        }
        Err(check) => report.checks.push(check),
    }
}

/// The target side of a stream; the source is asked which tables there are.
async fn written(
    session: &Session,
    facts: &ServerFacts,
    options: &StreamOptions,
) -> Result<Vec<Check>, Check> {
    let what = format!("target tables of {}", options.key.source);
    let Ok(source) = pg::connect(&options.source).await else {
        return Ok(vec![Check::warn(&what, "not examined: the source is not reachable")]);
    };
    let found = limited(&what, tables::target(&source, session, facts, options)).await;
    // Whether it ends politely is no finding.
    drop(source.close().await);
    found
}

async fn slots_there(session: &Session) -> Result<BTreeSet<String>, PgError> {
    let sql = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots";
    let mut slots = BTreeSet::new();
    for row in session.query(sql, &[]).await? {
        slots.insert(row.try_get(0)?);
    }
    Ok(slots)
}

async fn left(work: &Work, session: &Session) -> Result<Vec<Check>, crate::repack::error::RepackError> {
    let mut slots: BTreeSet<String> = work.reads.iter().map(StreamOptions::slot).collect();
    let mut unfinished = 0;
    if state::exists(session).await? {
        for row in state::read_all(session).await?.iter().filter(|row| row.is_unfinished()) {
            unfinished += 1;
            slots.insert(row.slot.clone());
        }
    }
    let found = leftovers::read(session).await?;
    Ok(leftovers::judge(&found, &slots, unfinished > 0, &work.name))
}
