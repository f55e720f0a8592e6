//! What would make a repack fail, or harm somebody, found before anything is written. A file a check.
//!
//! Each check reads with a limit and judges purely. All findings come at once.

pub mod dependents;
pub mod finding;
pub(crate) mod firing;
pub mod key;
pub mod kind;
pub mod large_objects;
pub mod leftovers;
pub mod limits;
pub mod order;
pub mod publications;
pub mod rights;
pub mod row_security;
pub mod server;
pub mod slot;
pub mod space;
pub(crate) mod streams;
pub mod throttle;
pub mod transactions;

use std::time::Duration;

pub use finding::{Finding, Severity, is_refused};

use super::ask::AskError;
use super::cleanup::Cleanup;
use super::options::RepackOptions;
use super::select::TableFacts;
use crate::capture::setup::SetupError;
use crate::catalog::{CatalogError, read_table};
use crate::model::RetryAdvice;
use crate::pg::{PgError, Session};

/// A transaction open for longer than this is named.
pub const OLD: Duration = Duration::from_secs(60);

/// Why pre-flight could not say anything.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The catalogs did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The table's definition could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Streams that read it.
    #[error(transparent)]
    Streams(#[from] SetupError),
    /// Trying a slot failed for a reason that says nothing about the right to have one.
    #[error("trying a replication slot failed: {0}")]
    Slot(#[source] PgError),
}

impl PreflightError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            PreflightError::Ask(error) => error.advice(),
            PreflightError::Catalog(error) => error.advice(),
            PreflightError::Streams(error) => error.advice(),
            PreflightError::Slot(error) => error.advice(),
        }
    }
}

/// Everything that speaks against repacking `table`, or should be known before: [`check_server`] and
/// [`check_table`].
pub async fn check(
    session: &Session,
    options: &RepackOptions,
    table: &TableFacts,
) -> Result<Vec<Finding>, PreflightError> {
    let mut findings = check_server(session, options).await?;
    findings.extend(check_table(session, options, table).await?);
    Ok(findings)
}

/// What our role may not make on this server, whatever table it is about.
pub async fn check_rights(session: &Session) -> Result<Vec<Finding>, PreflightError> {
    Ok(server::judge(&server::read(session).await?, &[]))
}

/// What does not depend on the table; once a run.
pub async fn check_server(
    session: &Session,
    options: &RepackOptions,
) -> Result<Vec<Finding>, PreflightError> {
    let server = server::read(session).await?;
    let mut findings = server::judge(&server, &options.settings.capture.ways());
    findings.extend(limits::judge(&server, &options.settings));
    findings.extend(publications::check(session).await?);
    findings.extend(throttle::check(session, &options.settings.throttle).await?);
    // What the settings rule out already need not be tried.
    if server.decodes() {
        findings.extend(slot::check(session, options, &server).await?);
    }
    Ok(findings)
}

/// What depends on the table.
pub async fn check_table(
    session: &Session,
    options: &RepackOptions,
    table: &TableFacts,
) -> Result<Vec<Finding>, PreflightError> {
    let server = server::read(session).await?;
    let mut findings = kind::check(session, table, &options.settings.capture.ways()).await?;
    findings.extend(rights::check(session, table, &server).await?);
    findings.extend(leftovers::check(session, options, table).await?);
    findings.extend(streams::check(session, table.oid, &table.name).await?);
    let ways = options.settings.capture.ways();
    findings.extend(firing::check(session, (table.oid, &table.name), &ways).await?);
    findings.extend(transactions::check(session, table, OLD).await?);
    // Of what is no plain table the rest would only say so again.
    if table.kind != 'r' {
        return Ok(findings);
    }
    findings.extend(row_security::check(session, table).await?);
    findings.extend(order::check(session, table, &options.run.rebuild.order_by).await?);
    let forecast = space::forecast(table);
    findings.extend(space::judge(table, &forecast, &server, &options.settings));
    match read_table(session, &table.name).await? {
        Some(definition) => {
            findings.extend(key::judge(&definition, server.version));
            findings.extend(large_objects::judge(&definition));
            findings.extend(Cleanup::plan(&definition, &options.table_settings(&table.name)).1);
        }
        None => findings.push(Finding::refuse("kind", &table.name, "it has just been dropped or renamed")),
    }
    Ok(findings)
}
