//! May we have a slot? Tried, not guessed: managed services grant it in ways no catalog tells. And with which plugin, and
//! what that plugin cannot carry.

use std::time::Duration;

use super::PreflightError;
use super::finding::{Finding, Severity, is_refused};
use super::server::ServerFacts;
use super::transactions;
use crate::capture::auto::{self, Asked, Way};
use crate::capture::{CaptureError, Plugin, wal2json};
use crate::catalog::TableDef;
use crate::model::{Events, quote_ident};
use crate::pg::replication::{ReplicationClient, SlotRequest, Snapshot};
use crate::pg::{PgError, Session};
use crate::repack::error::RepackError;
use crate::repack::options::RepackOptions;

const CHECK: &str = "slot";

/// How long the slot that is tried may wait for running transactions.
const LIMIT: Duration = Duration::from_secs(3);

/// Makes a temporary slot for pgoutput, and drops it.
pub async fn check(
    session: &Session,
    options: &RepackOptions,
    server: &ServerFacts,
) -> Result<Vec<Finding>, PreflightError> {
    check_within(session, options, server, LIMIT).await
}

/// The same with another limit.
pub async fn check_within(
    session: &Session,
    options: &RepackOptions,
    server: &ServerFacts,
    limit: Duration,
) -> Result<Vec<Finding>, PreflightError> {
    let mut all = Vec::new();
    let ways = options.settings.capture.ways();
    for way in &ways {
        let Way::Slot(plugin) = *way else { continue };
        let findings = check_plugin(session, options, server, (plugin, limit)).await?;
        if !is_refused(&findings) {
            return Ok(findings);
        }
        all.extend(findings);
    }
    // A role without the right has it with no plugin: that is said once.
    all.dedup();
    if ways.contains(&Way::Triggers) {
        // Changes are then read from triggers.
        all.iter_mut().for_each(|finding: &mut Finding| finding.severity = Severity::Warn);
    }
    Ok(all)
}

async fn check_plugin(
    session: &Session,
    options: &RepackOptions,
    server: &ServerFacts,
    (plugin, limit): (Plugin, Duration),
) -> Result<Vec<Finding>, PreflightError> {
    let refused = |error| refused(error, plugin, server);
    let mut replication = match ReplicationClient::connect(&options.connect).await {
        Ok(replication) => replication,
        Err(error) => return refused(error),
    };
    let name = format!("repcloud_preflight_{}", replication.backend_pid());
    let request = SlotRequest {
        name: name.clone(),
        plugin: plugin.as_str().to_owned(),
        temporary: true,
        snapshot: Snapshot::Nothing,
        two_phase: false,
        failover: false,
    };
    let findings = match replication.create_slot(&request, limit).await {
        Ok(_) => {
            // At once, so that the place is free again when the repack asks for it.
            replication.drop_slot(&name, false).await.map_err(PreflightError::Slot)?;
            Vec::new()
        }
        Err(PgError::Timeout { .. }) => {
            let waiting = transactions::with_xid(session).await?;
            vec![waits(limit, &waiting)]
        }
        Err(error) => return refused(error),
    };
    replication.close().await.map_err(PreflightError::Slot)?;
    Ok(findings)
}

/// A slot is made when every transaction that was running has ended: permitted, but slow.
fn waits(limit: Duration, waiting: &[String]) -> Finding {
    let problem = match waiting {
        [] => format!("making a slot took longer than {limit:?}"),
        some => format!("making a slot waits (longer than {limit:?}) for the end of {}", some.join("; ")),
    };
    Finding::of_server(CHECK, Severity::Warn, problem).help("end these transactions, or wait for their end")
}

/// An answer of the server is a finding; a broken connection says nothing.
fn refused(error: PgError, plugin: Plugin, server: &ServerFacts) -> Result<Vec<Finding>, PreflightError> {
    let Some(sqlstate) = error.sqlstate() else { return Err(PreflightError::Slot(error)) };
    let role = quote_ident(&server.role);
    let finding = match sqlstate {
        "42501" if error.to_string().contains("output plugin") => {
            let problem = format!("its output_plugin_libraries does not list {}", plugin.as_str());
            Finding::of_server(CHECK, Severity::Refuse, problem)
                .help("`repcloud doctor` prints the statement")
        }
        "42501" => {
            let remedy = match &server.replication_role {
                Some(group) => format!("run: GRANT {} TO {role}", quote_ident(group)),
                None => format!("run: ALTER ROLE {role} REPLICATION"),
            };
            Finding::of_role(CHECK, &server.role, "it may not use replication slots").help(remedy)
        }
        "53400" => {
            let problem = "every replication slot that max_replication_slots allows is in use";
            Finding::of_server(CHECK, Severity::Refuse, problem)
                .help("drop one that nobody uses, or raise the limit and restart the server")
        }
        "53300" => {
            let problem =
                "no replication connection is free: max_wal_senders or a limit of connections is reached";
            Finding::of_server(CHECK, Severity::Refuse, problem)
                .help("end one that nobody uses, or raise the limit and restart the server")
        }
        _ => {
            let problem = format!("a slot for {} cannot be made: {error}", plugin.as_str());
            Finding::of_server(CHECK, Severity::Refuse, problem)
        }
    };
    Ok(vec![finding])
}

/// How the table's changes are read: as configured, or the first way that the server lets us go. What a plugin cannot carry is
/// refused.
pub(crate) async fn way(
    options: &RepackOptions,
    table: &TableDef,
    events: &Events,
) -> Result<Way, RepackError> {
    let capture = options.settings.capture;
    let plugin = match (capture.asked, capture.plugin) {
        (Asked::Trigger, _) => return Ok(Way::Triggers),
        (Asked::Slot, plugin) => plugin.unwrap_or_default(),
        (Asked::Auto, _) => {
            let choice = auto::choose(&options.connect, &capture.ways()).await?;
            let why: Vec<String> = choice.passed_over.iter().map(ToString::to_string).collect();
            let Some(way) = choice.way else { return Err(RepackError::Refused(why)) };
            for why in why {
                events.warning(format!("passed over, {why}"));
            }
            let Way::Slot(plugin) = way else { return Ok(way) };
            plugin
        }
    };
    if plugin == Plugin::Wal2json && !capture.allow_lossy_numbers {
        let columns = wal2json::lossy_columns(table, None);
        if !columns.is_empty() && auto::wal2json_keeps_numbers(&options.connect).await? == Some(false) {
            return Err(RepackError::Refused(vec![CaptureError::LossyNumbers { columns }.to_string()]));
        }
    }
    Ok(Way::Slot(plugin))
}
