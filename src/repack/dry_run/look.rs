//! Looks at every selected table as a repack would before it begins. Writes nothing.

use serde::Serialize;
use tokio::time::Instant;

use super::{DryRun, DryRunLine, LockForecast};
use crate::model::Events;
use crate::pg::{self, Session};
use crate::repack::dependents::{self, Inventory};
use crate::repack::error::RepackError;
use crate::repack::fingerprint::{Fingerprint, fingerprint};
use crate::repack::options::{RepackOptions, typed};
use crate::repack::plan::{PlanError, PlanOptions, RepackPlan, plan};
use crate::repack::preflight::{self, Finding, is_refused, space};
use crate::repack::rebuild::Rebuild;
use crate::repack::report::TableReport;
use crate::repack::runner::KEPT_PLANS;
use crate::repack::select::{Missing, TableFacts, select};
use crate::repack::shadow;
use crate::repack::state::{self, RepackRow, RepackState};

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
    let begun = begun(session, table).await?;
    if begun.is_some() {
        // What there is of it is gone on with.
        findings.retain(|finding| finding.check != preflight::leftovers::CHECK);
    }
    let planned = match table.kind {
        'r' => planned(session, options, table, begun.as_ref(), &mut findings).await?,
        _ => None,
    };
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

/// The unfinished repack that another one would go on with.
async fn begun(session: &Session, table: &TableFacts) -> Result<Option<RepackRow>, RepackError> {
    // Where our role may not see the state, that is refused by itself.
    if !matches!(state::exists(session).await, Ok(true)) {
        return Ok(None);
    }
    match state::read_begun(session, table.oid).await? {
        None => {
            let swapped = state::read_unfinished(session, &table.name).await?;
            Ok(swapped.filter(|row| row.state == RepackState::Swapped && row.shadow_oid == table.oid))
        }
        row => Ok(row),
    }
}

/// That it is there, and what would become of it now that the table is like this.
fn go_on(options: &RepackOptions, table: &TableFacts, row: &RepackRow, inventory: &Inventory) -> Finding {
    let table = &table.name;
    let typed = typed(&options.connection, table);
    let there = format!("a repack of it is unfinished, in state {}", row.state.as_str());
    let changes = match Fingerprint::from_text(&row.fingerprint) {
        _ if row.state == RepackState::Swapped => Vec::new(),
        Ok(before) => before.differences(&fingerprint(inventory)),
        Err(error) => vec![error.to_string()],
    };
    let goes_on = match (row.state, changes.is_empty()) {
        (_, false) => {
            format!("`repcloud repack {typed}` begins anew, as it was changed since ({})", changes.join("; "))
        }
        (RepackState::Planned | RepackState::ShadowReady, _) => {
            format!(
                "`repcloud repack {typed}` goes on with it, and copies the rows once more if the copy was cut off"
            )
        }
        (RepackState::CaughtUp | RepackState::Verified, _) => {
            format!(
                "`repcloud repack {typed}` or `repcloud swap {typed}` goes on with it, without another copy"
            )
        }
        _ => format!("`repcloud repack {typed}` goes on with it, without another copy"),
    };
    Finding::warn("unfinished", table, format!("{there}; {goes_on}"))
}

/// The statements, where the table is not refused; what hangs on it and refuses it joins `findings`.
async fn planned(
    session: &Session,
    options: &RepackOptions,
    table: &TableFacts,
    begun: Option<&RepackRow>,
    findings: &mut Vec<Finding>,
) -> Result<Option<(RepackPlan, LockForecast)>, RepackError> {
    const CHECK: &str = "dependents";
    let mut inventory = dependents::read(session, &table.name).await?;
    let mut rebuild = options.run.rebuild.clone();
    if let Some(row) = begun {
        let ours = shadow::publications(&row.slot);
        inventory.forget_publications(&ours.iter().map(String::as_str).collect::<Vec<_>>());
        match Rebuild::from_text(&row.rebuild).unwrap_or_default().resumed(&rebuild) {
            Ok(resumed) => rebuild = resumed,
            Err(why) => findings.push(Finding::refuse("unfinished", &table.name, why)),
        }
        findings.push(go_on(options, table, row, &inventory));
    }
    findings.extend(preflight::dependents::judge(&inventory, findings));
    if is_refused(findings) {
        return Ok(None);
    }
    let fillfactor = options.table_settings(&table.name).fillfactor;
    match plan(&inventory, &PlanOptions::new(fillfactor, &rebuild)) {
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
