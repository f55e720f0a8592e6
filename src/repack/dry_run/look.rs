//! Looks at every selected table as a repack would before it begins. Writes nothing.

use serde::Serialize;
use tokio::time::Instant;

use super::{DryRun, DryRunLine, LockForecast};
use crate::model::Events;
use crate::pg::{self, Session};
use crate::repack::dependents;
use crate::repack::error::RepackError;
use crate::repack::options::RepackOptions;
use crate::repack::plan::{PlanError, PlanOptions, RepackPlan, plan};
use crate::repack::preflight::{self, Finding, is_refused, space};
use crate::repack::report::TableReport;
use crate::repack::runner::KEPT_PLANS;
use crate::repack::select::{Missing, TableFacts, select};

/// What was seen of one table.
#[derive(Debug, Clone)]
pub struct Seen {
    /// For people.
    pub text: String,
    /// For `--json`.
    pub line: SeenLine,
    /// A repack would refuse it.
    pub refused: bool,
}

/// One line of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum SeenLine {
    /// It was looked at.
    Table(Box<DryRunLine>),
    /// It is not there.
    Missing(Box<TableReport>),
}

impl Seen {
    fn missing(missing: Missing) -> Self {
        let Missing { asked, reason } = missing;
        let text = format!(
            "table {asked}\n  outcome    refused, nothing would be changed\n  refused because:\n    {reason}\n"
        );
        let line = SeenLine::Missing(Box::new(TableReport::refused(asked, reason)));
        Seen { text, line, refused: true }
    }
}

/// Tells of each selected table, most bloat first.
///
/// # Errors
/// The selection could not be made, or the server did not answer.
pub async fn look(
    options: &RepackOptions,
    events: &Events,
    mut told: impl FnMut(Seen),
) -> Result<(), RepackError> {
    let session = pg::connect(&options.connect).await?;
    session.batch_execute(KEPT_PLANS).await?;
    let chosen = select(&session, &options.selection, &options.rules).await?;
    for (table, reason) in &chosen.left_out {
        events.info(format!("{table} is left out: {reason}"));
    }
    for missing in chosen.missing {
        told(Seen::missing(missing));
    }
    let server = preflight::check_server(&session, options).await?;
    for table in &chosen.tables {
        told(look_at(&session, options, &server, table).await?);
    }
    session.close().await?;
    Ok(())
}

async fn look_at(
    session: &Session,
    options: &RepackOptions,
    server: &[Finding],
    table: &TableFacts,
) -> Result<Seen, RepackError> {
    let mut findings = server.to_vec();
    findings.extend(preflight::check_table(session, options, table).await?);
    let planned =
        if table.kind == 'r' { planned(session, options, table, &mut findings).await? } else { None };
    let (plan, lock) = planned.unzip();
    let forecast = space::forecast(table);
    let run = DryRun {
        table,
        findings: &findings,
        plan: plan.as_ref(),
        lock,
        forecast: &forecast,
        jobs: options.run.jobs,
    };
    Ok(Seen { text: run.text(), line: SeenLine::Table(Box::new(run.json())), refused: is_refused(&findings) })
}

/// The statements, where the table is not refused; what hangs on it and refuses it joins `findings`.
async fn planned(
    session: &Session,
    options: &RepackOptions,
    table: &TableFacts,
    findings: &mut Vec<Finding>,
) -> Result<Option<(RepackPlan, LockForecast)>, RepackError> {
    const CHECK: &str = "dependents";
    let inventory = dependents::read(session, &table.name).await?;
    findings.extend(preflight::dependents::judge(&inventory, findings));
    if is_refused(findings) {
        return Ok(None);
    }
    let fillfactor = options.table_settings(&table.name).fillfactor;
    match plan(&inventory, &PlanOptions::new(fillfactor, &options.run.rebuild)) {
        Ok(plan) => {
            if let Some(identity) = &plan.key.identity {
                let problem = "its replica identity does not name the rows of a change";
                let finding = Finding::refuse("key", &table.name, problem);
                findings.push(finding.help(format!("run: {}", identity.set)));
                return Ok(None);
            }
            // Once more, by plans that are made already: as under the lock.
            let began = Instant::now();
            dependents::read(session, &table.name).await?;
            let lock = LockForecast::new(&plan, began.elapsed().as_secs_f64() * 1000.0);
            Ok(Some((plan, lock)))
        }
        Err(
            error @ (PlanError::Refused { .. } | PlanError::Definition { .. } | PlanError::Options { .. }),
        ) => {
            findings.push(Finding::refuse(CHECK, &table.name, error.to_string()));
            Ok(None)
        }
    }
}
