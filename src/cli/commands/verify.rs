//! `verify`.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::repack::repack_failure;
use crate::cli::args::VerifyArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, connection_events, flow_failure, repack_of, streams};
use crate::flow::FlowError;
use crate::flow::compare::Compare;
use crate::model::{RetryAdvice, TableName};
use crate::repack::compare::Compared;
use crate::repack::error::RepackError;
use crate::repack::run as repack;
use crate::service::shutdown::Shutdown;
use crate::verify::{Kind, Progress, VerifyOutcome, VerifySpec};

/// One table, as CONTRACT 4 writes it.
#[derive(Serialize)]
struct Line {
    table: String,
    rows: u64,
    differences: u64,
    seconds: f64,
}

/// Compares the tables of every stream of a source; 1 when rows differ, 4 when some could not be settled.
pub fn run(context: &Context, args: &VerifyArgs) -> Result<Exit, Failure> {
    let Some(name) = &args.source else { return copies(context, args) };
    let source = context.source(name)?;
    let streams = streams(&context.settings, source);
    block_on(async {
        let failed = |error| flow_failure(error, name);
        let mut compares = Vec::new();
        for options in &streams {
            compares.push(Compare::open(options, &args.tables).await.map_err(failed)?);
        }
        let known = |name: &&TableName| {
            compares.iter().flat_map(|c| &c.specs).any(|s| s.source == **name || s.target == **name)
        };
        if let Some(table) = args.tables.iter().find(|table| !known(table)) {
            let mut dropped = compares.iter().flat_map(|c| &c.dropped);
            if let Some((_, told)) = dropped.find(|(dropped, _)| dropped == table) {
                return Err(Failure::new(Exit::Refused, anyhow::Error::msg(told.clone())));
            }
            return Err(Failure::usage(format!("no [[replicate]] of \"{name}\" has the table {table}")));
        }
        let (mut differences, mut unsettled, mut not_compared) = (0, 0, 0);
        for compare in &compares {
            for note in &compare.notes {
                tracing::warn!("{note}");
            }
            for missing in &compare.missing {
                tracing::error!("{missing}");
                not_compared += 1;
            }
            for spec in &compare.specs {
                let outcome = match one(context, compare, spec, args.count).await {
                    Ok(outcome) => outcome,
                    // Of another shape, parked: the other tables can be compared all the same.
                    Err(FlowError::Verify(error)) if error.advice() == RetryAdvice::Stop => {
                        tracing::error!("{}: {error}", spec.source);
                        not_compared += 1;
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                };
                show(context, spec, &outcome)?;
                differences += outcome.differences;
                unsettled += outcome.unsettled;
            }
        }
        Ok(match (differences + not_compared, unsettled) {
            (1.., _) => Exit::Failed,
            (0, 1..) => Exit::Partly,
            (0, 0) => Exit::Done,
        })
    })
}

/// Tables and their unfinished copies, in one database.
fn copies(context: &Context, args: &VerifyArgs) -> Result<Exit, Failure> {
    if args.count {
        return Err(Failure::usage(
            "--count compares a source with its targets; leave it out with --connection",
        ));
    }
    let name = args.connection.as_deref().unwrap_or_default();
    let mut options = repack_of(context.connection(name)?);
    options.selection.tables.clone_from(&args.tables);
    let events = connection_events(name);
    block_on(async {
        let shutdown = Shutdown::listen().map_err(|e| Failure::from(anyhow::Error::new(e)))?;
        let (mut shown, mut sums) = (Ok(()), Sums::default());
        let told = |table: &TableName, compared: Result<Compared, RepackError>, seconds: f64| {
            let error = compared.as_ref().err().map(ToString::to_string);
            let stopped = matches!(compared, Err(RepackError::Stopped));
            sums.add(&compared);
            let Compared { rows, differences } = compared.unwrap_or_default();
            let line =
                CopyLine { line: Line { table: table.to_string(), rows, differences, seconds }, error };
            let result = match (&line.error, context.output.json) {
                _ if stopped => Ok(()),
                (_, true) => context.output.document(&line),
                (Some(error), false) => {
                    context.output.text(&format!("{table}: not compared\n  reason: {error}\n"))
                }
                (None, false) => context.output.text(&format!(
                    "{table} and its copy: {rows} rows compared in {seconds:.1} s, {}\n",
                    counted(differences)
                )),
            };
            shown = std::mem::replace(&mut shown, Ok(())).and(result);
        };
        Box::pin(repack::verify(&options, &events, &shutdown.stop, told)).await.map_err(repack_failure)?;
        shown?;
        Ok(if shutdown.asked().is_some() { Exit::Interrupted } else { sums.exit() })
    })
}

/// One table and its copy.
#[derive(Serialize)]
struct CopyLine {
    #[serde(flatten)]
    line: Line,
    /// Why it was not compared.
    error: Option<String>,
}

/// How many tables ended how.
#[derive(Default)]
struct Sums {
    equal: usize,
    different: usize,
    refused: usize,
    failed: usize,
}

impl Sums {
    fn add(&mut self, compared: &Result<Compared, RepackError>) {
        let one = match compared {
            Ok(Compared { differences: 0, .. }) => &mut self.equal,
            Ok(_) => &mut self.different,
            Err(RepackError::Refused(_) | RepackError::Missing { .. }) => &mut self.refused,
            Err(_) => &mut self.failed,
        };
        *one += 1;
    }

    fn exit(&self) -> Exit {
        match (self.different, self.equal, self.refused, self.failed) {
            (1.., ..) => Exit::Failed,
            (0, _, 0, 0) => Exit::Done,
            (0, 0, _, 0) => Exit::Refused,
            (0, 0, _, _) => Exit::Failed,
            (0, _, _, _) => Exit::Partly,
        }
    }
}

async fn one(
    context: &Context,
    compare: &Compare<'_>,
    spec: &VerifySpec,
    count: bool,
) -> Result<VerifyOutcome, FlowError> {
    let bar = (context.progress && std::io::stderr().is_terminal()).then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg}");
        ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    });
    let shown = bar.clone();
    let outcome = compare
        .table(spec, count, move |progress: Progress| {
            if let Some(bar) = &shown {
                bar.set_message(message(spec, progress));
                bar.tick();
            }
        })
        .await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    outcome
}

fn message(spec: &VerifySpec, progress: Progress) -> String {
    let of = progress.estimated_rows.map(|rows| format!(" of about {rows}")).unwrap_or_default();
    format!("{}: {}{of} rows, {}", spec.source, progress.rows, counted(progress.differences))
}

/// `1 difference`, `2 differences`.
fn counted(differences: u64) -> String {
    let s = if differences == 1 { "" } else { "s" };
    format!("{differences} difference{s}")
}

fn show(context: &Context, spec: &VerifySpec, outcome: &VerifyOutcome) -> Result<(), Failure> {
    let line = Line {
        table: spec.source.to_string(),
        rows: outcome.rows,
        differences: outcome.differences,
        seconds: outcome.seconds,
    };
    if context.output.json {
        context.output.document(&line)?;
        return Ok(());
    }
    let name = match spec.source == spec.target {
        true => line.table,
        false => format!("{} → {}", spec.source, spec.target),
    };
    let mut text = format!("{name}: {} rows compared in {:.1} s, ", outcome.rows, outcome.seconds);
    match outcome.differences {
        0 => text.push_str("no differences"),
        count => text.push_str(&format!(
            "{}: {} missing in the target, {} extra, {} different",
            counted(count),
            outcome.missing,
            outcome.extra,
            outcome.different
        )),
    }
    if outcome.unsettled > 0 {
        text.push_str(&format!(
            "; {} rows changed at every look, nothing can be said of them",
            outcome.unsettled
        ));
    }
    if !outcome.complete {
        text.push_str("; the comparison was not finished");
    }
    text.push('\n');
    // Where they are, not what they hold: that is the user's data.
    for sample in outcome.samples.iter().filter(|sample| !sample.place.is_empty()) {
        let (what, side) = match sample.kind {
            Kind::Missing => ("missing in the target", "source"),
            Kind::Extra => ("extra in the target", "target"),
            Kind::Different => ("different in the target", "source"),
        };
        text.push_str(&format!("  {what}: {side} table {}\n", sample.place));
    }
    context.output.text(&text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_difference_is_one() {
        assert_eq!([0, 1, 2].map(counted), ["0 differences", "1 difference", "2 differences"]);
    }
}
