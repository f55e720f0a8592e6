//! One connection, from the first packet to the last table.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Check, Level, Remedy};
use super::own_schema::{self, OwnSchema};
use super::platform::Platform;
use super::server::{self, ServerFacts};
use super::ways::{self, Reading};
use super::{leftovers, login, read, slots, tables};
use crate::capture::auto::{CaptureOptions, Way};
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

impl Work {
    /// Changes are read here.
    pub(super) fn needs_changes(&self) -> bool {
        !self.reads.is_empty() || self.repack.is_some()
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The connection.
    pub name: String,
    /// How each piece of work reads changes.
    pub readings: Vec<Reading>,
    /// In the order of looking.
    pub checks: Vec<Check>,
}

impl Report {
    /// The way changes are read: `slot` or `trigger`; `None`: none works, or none is needed.
    pub fn capture(&self) -> Option<&'static str> {
        self.readings.first().and_then(Reading::capture)
    }

    /// Something that the configured work needs is missing.
    pub fn is_failed(&self) -> bool {
        self.checks.iter().any(|c| c.level == Level::Fail)
    }
}

/// Looks at everything. What cannot be asked is a failed check, and the rest goes on.
pub async fn examine(work: &Work) -> Report {
    let mut report = Report { name: work.name.clone(), readings: Vec::new(), checks: Vec::new() };
    if let Some(warning) = Platform::host_warning(&work.connect.host, work.connect.port) {
        report
            .checks
            .push(Check::fail("pooler", warning).help(Remedy::note("change host or port of the connection")));
    }
    let session = match pg::connect(&work.connect).await {
        Ok(session) => session,
        Err(error) => {
            report.checks.push(login::unreachable(&error, &work.connect));
            return report;
        }
    };
    report.checks.push(Check::ok("reachable", work.connect.target()));
    let shared = limited("pooler", read::is_shared(&session, &work.connect)).await;
    if matches!(shared, Ok(true)) {
        // What it answers is another session's each time.
        let text = "a pooler stands between, which gives each transaction another session";
        report.checks.push(pooled(text));
    } else {
        report.checks.extend(shared.err());
        match limited("the server", read::server(&session)).await {
            Ok(facts) => with_server(work, &session, &facts, &mut report).await,
            Err(check) => report.checks.push(check),
        }
    }
    // Whether it ends politely is no finding.
    drop(session.close().await);
    report
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

fn pooled(text: &str) -> Check {
    Check::fail("pooler", text).help(Remedy::note("give host and port of the server itself"))
}

async fn with_server(work: &Work, session: &Session, facts: &ServerFacts, report: &mut Report) {
    report.checks.extend(server::judge(facts, work.connect.is_unix()));
    let schema = match limited("schema repcloud", own_schema::read(session)).await {
        Ok(schema) => schema,
        Err(check) => {
            report.checks.push(check);
            None
        }
    };
    let readable = schema.as_ref().is_none_or(|s| s.usable && s.strangers.is_empty());
    let ways = match limited("capture", read_changes(work, session, facts, readable)).await {
        Ok(ways) => ways,
        Err(check) => {
            report.checks.push(of_capture(check));
            ways::Ways::default()
        }
    };
    report.checks.extend(ways.checks.iter().cloned());
    report.readings = ways.readings(work);
    if report.readings.iter().any(|r| matches!(r.way, Some(Way::Slot(_)))) {
        match limited("pooler", read::is_pooled(&work.connect)).await {
            Ok(false) => report.checks.push(Check::ok("pooler", "none in between")),
            Ok(true) => {
                report.checks.push(pooled("a pooler stands between, and a stream needs a session of its own"))
            }
            Err(check) => report.checks.push(of_capture(check)),
        }
    } else {
        report.checks.push(Check::ok("pooler", "none that shares sessions"));
    }
    merge(report, Ok(state_here(work, facts, &ways, schema.as_ref())));
    for (index, options) in work.reads.iter().enumerate() {
        let way = ways.streams.get(index).copied().flatten();
        if let Some(way @ Way::Slot(_)) = way {
            let found = limited("slot", slots::check(session, &options.in_way(way))).await;
            merge(report, found.map(|check| check.into_iter().collect()));
        }
        let found = limited("source tables", tables::source(session, facts, options, way)).await;
        let failed = found.as_ref().is_ok_and(|checks| checks.iter().any(|c| c.level == Level::Fail));
        merge(report, found);
        if way.is_none() || failed && way != Some(Way::Triggers) {
            merge(report, Ok(by_triggers(session, facts, options).await.into_iter().collect()));
        }
    }
    for options in &work.writes {
        merge(report, written(session, facts, options).await);
    }
    if let Some(options) = &work.repack {
        merge(report, limited("tables to repack", tables::repack(session, facts, options)).await);
    }
    if readable {
        merge(report, limited("leftovers", left(work, session)).await);
    }
}

async fn read_changes(
    work: &Work,
    session: &Session,
    facts: &ServerFacts,
    readable: bool,
) -> Result<ways::Ways, crate::flow::FlowError> {
    let slots = slots_there(session).await.map_err(crate::flow::FlowError::Source)?;
    ways::find(work, session, facts, &slots, readable).await
}

/// A pooler that knows no replication refuses its start-up parameter.
fn of_capture(check: Check) -> Check {
    match check.detail.contains("startup parameter") {
        true => pooled(&format!(
            "a pooler stands between, which takes no replication connection ({})",
            check.detail
        )),
        false => check,
    }
}

/// Schema `repcloud` where our state is kept, and the schemas of a repack.
fn state_here(work: &Work, facts: &ServerFacts, ways: &ways::Ways, schema: Option<&OwnSchema>) -> Vec<Check> {
    let triggers = ways.streams.contains(&Some(Way::Triggers));
    let mut checks = Vec::new();
    // A stream that reads a slot has nothing here.
    if triggers || work.repack.is_some() || !work.writes.is_empty() {
        checks = own_schema::judge(facts, schema);
    }
    if work.repack.is_some() && !facts.may_create {
        let check = own_schema::create_on_database(facts);
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    checks
}

/// Said where a slot asks for more than the role has, and triggers would not.
async fn by_triggers(session: &Session, facts: &ServerFacts, options: &StreamOptions) -> Option<Check> {
    let found = tables::source(session, facts, options, Some(Way::Triggers)).await.ok()?;
    let name = format!("stream to {} by triggers", options.key.target);
    let text = "the tables need nothing more for it: set capture = \"trigger\" on this connection";
    let all = facts.may_create && !facts.in_recovery && found.iter().all(|c| c.level != Level::Fail);
    all.then(|| Check::ok(&name, text))
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
    let sql = "SELECT slot_name::text FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND database = current_database()";
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
