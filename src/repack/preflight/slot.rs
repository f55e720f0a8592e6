//! May we have a slot? Tried, not guessed: managed services grant it in ways no catalog tells.

use std::time::Duration;

use super::PreflightError;
use super::finding::{Finding, Severity};
use super::server::ServerFacts;
use super::transactions;
use crate::model::quote_ident;
use crate::pg::replication::{ReplicationClient, SlotRequest, Snapshot};
use crate::pg::{PgError, Session};
use crate::repack::options::RepackOptions;

const CHECK: &str = "slot";

/// How long the slot that is tried may wait for running transactions.
const LIMIT: Duration = Duration::from_secs(10);

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
    let mut replication = match ReplicationClient::connect(&options.connect).await {
        Ok(replication) => replication,
        Err(error) => return refused(error, server),
    };
    let name = format!("repcloud_preflight_{}", replication.backend_pid());
    let request = SlotRequest {
        name: name.clone(),
        plugin: "pgoutput".to_owned(),
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
        Err(error) => return refused(error, server),
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
fn refused(error: PgError, server: &ServerFacts) -> Result<Vec<Finding>, PreflightError> {
    let Some(sqlstate) = error.sqlstate() else { return Err(PreflightError::Slot(error)) };
    let role = quote_ident(&server.role);
    let finding = match sqlstate {
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
            let problem = format!("a slot for pgoutput cannot be made: {error}");
            Finding::of_server(CHECK, Severity::Refuse, problem)
        }
    };
    Ok(vec![finding])
}
