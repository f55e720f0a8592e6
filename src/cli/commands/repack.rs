//! `repack`, `prepare`, `swap`, `abort`, `create-schema`, `drop-schema`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tokio::sync::watch;

use super::dry_run;
use crate::cli::args::{ConnectionArgs, OnFailureArg, PrepareArgs, RepackArgs};
use crate::cli::commands::repack_bar;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, connection_events, repack as options_of, repack_of};
use crate::repack::error::RepackError;
use crate::repack::job::Goal;
use crate::repack::options::RepackOptions;
use crate::repack::report::{NOTHING_TO_UNDO, Outcome, TableReport};
use crate::repack::run as repack;
use crate::service::shutdown::{Asked, Shutdown};

/// What is done to the selected tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Repack,
    Prepare,
    Swap,
    Abort,
}

/// Rebuilds tables.
pub fn repack(context: &Context, args: &RepackArgs) -> Result<Exit, Failure> {
    if args.dry_run {
        return dry_run::run(context, args);
    }
    tables(context, args, Work::Repack)
}

/// Everything but the swap; with `--follow` until `swap` asks for it.
pub fn prepare(context: &Context, args: &PrepareArgs) -> Result<Exit, Failure> {
    if args.repack.dry_run {
        return dry_run::run(context, &args.repack);
    }
    if !args.follow {
        return tables(context, &args.repack, Work::Prepare);
    }
    let repack = RepackArgs { postpone_swap: true, ..args.repack.clone() };
    tables(context, &repack, Work::Repack)
}

/// Exchanges what is prepared.
pub fn swap(context: &Context, args: &RepackArgs) -> Result<Exit, Failure> {
    without_effect(args, "swap", &[])?;
    tables(context, args, Work::Swap)
}

/// Undoes what is unfinished.
pub fn abort(context: &Context, args: &RepackArgs) -> Result<Exit, Failure> {
    let abort_only =
        [("--window", args.window.is_some()), ("--on-failure", args.on_failure != OnFailureArg::Keep)];
    without_effect(args, "abort", &abort_only)?;
    tables(context, args, Work::Abort)
}

/// Options that the command shares with `repack` and that would promise what it does not do.
fn without_effect(args: &RepackArgs, command: &str, more: &[(&str, bool)]) -> Result<(), Failure> {
    let shared = [
        ("--dry-run", args.dry_run),
        ("--postpone-swap", args.postpone_swap),
        ("--min-bloat", args.min_bloat.is_some()),
        ("--min-size", args.min_size.is_some()),
        ("--order-by", args.order_by.is_some()),
        ("--tablespace", args.tablespace.is_some()),
        ("--column-order", args.column_order.is_some()),
    ];
    let given: Vec<&str> =
        shared.iter().chain(more).filter(|(_, given)| *given).map(|(option, _)| *option).collect();
    if given.is_empty() {
        return Ok(());
    }
    let problem = format!("`repcloud {command}` knows no {}", given.join(", "));
    Err(Failure::usage(problem).hint("it takes the unfinished repacks of --connection, --table and --schema"))
}

fn tables(context: &Context, args: &RepackArgs, work: Work) -> Result<Exit, Failure> {
    let connections = context.connections(args.connection.as_deref())?;
    let all: Vec<RepackOptions> = connections.into_iter().map(|c| options_of(c, args)).collect();
    block_on(async {
        let shutdown = Shutdown::listen().map_err(|e| Failure::from(anyhow::Error::new(e)))?;
        let mut reports = Vec::new();
        let mut failure = None;
        for options in &all {
            let result = one(context, options, work, &shutdown.stop, &mut reports).await;
            if let Err(error) = result {
                if all.len() > 1 {
                    tracing::error!("{}: {error}", options.connection);
                }
                failure = failure.or(Some(repack_failure(error)));
            }
            if reports.last().is_some_and(|report| report.ends_run) {
                break;
            }
        }
        match (failure, shutdown.asked()) {
            (Some(failure), _) if reports.is_empty() => Err(failure),
            (None, Some(Asked::Interrupt | Asked::Terminate)) => Ok(Exit::Interrupted),
            (None, None) if reports.iter().any(|report| report.interrupted) => Ok(Exit::Interrupted),
            (failure, _) => {
                if reports.is_empty() {
                    return nothing(context, work);
                }
                Ok(exit(&reports, work, failure.is_some()))
            }
        }
    })
}

async fn one(
    context: &Context,
    options: &RepackOptions,
    work: Work,
    stop: &watch::Receiver<bool>,
    reports: &mut Vec<TableReport>,
) -> Result<(), RepackError> {
    let events = connection_events(&options.connection);
    let told = |report: &TableReport| tell(context, report);
    let work = async {
        match work {
            Work::Repack => repack::repack(options, Goal::Repack, &events, stop, told).await,
            Work::Prepare => repack::repack(options, Goal::Prepare, &events, stop, told).await,
            Work::Swap => repack::swap(options, &events, stop, told).await,
            Work::Abort => repack::abort(options, &events, stop, told).await,
        }
    };
    let done = match context.progress && std::io::stderr().is_terminal() {
        false => work.await?,
        true => tokio::select! {
            biased;
            done = work => done?,
            never = repack_bar::keep(options) => match never {},
        },
    };
    reports.extend(done);
    Ok(())
}

/// Who asks for a swap relies on it: that there is none to be done is no success.
fn nothing(context: &Context, work: Work) -> Result<Exit, Failure> {
    let (text, exit) = match work {
        Work::Repack | Work::Prepare => ("no table is selected", Exit::Done),
        Work::Swap => ("nothing is prepared", Exit::Refused),
        Work::Abort => ("there is nothing to undo", Exit::Done),
    };
    if !context.output.json {
        context.output.text(&format!("{text}\n"))?;
    }
    Ok(exit)
}

/// One table, as soon as it is done.
fn tell(context: &Context, report: &TableReport) {
    let written = if context.output.json {
        context.output.document(report)
    } else {
        context.output.text(&text(report))
    };
    if let Err(error) = written {
        tracing::error!("{error:#}");
    }
}

fn text(report: &TableReport) -> String {
    let mut text = match report.outcome {
        Outcome::Swapped => format!(
            "{}: {} → {}, {} rows copied, {} changes applied, locked {:.1} ms (attempt {}), {:.1} s\n",
            report.table,
            size(report.bytes_before),
            size(report.bytes_after),
            report.rows_copied,
            report.changes_replayed,
            report.lock_ms,
            report.swap_attempts,
            report.total_seconds
        ),
        Outcome::Prepared => {
            format!(
                "{}: prepared, {} rows copied, {:.1} s\n",
                report.table, report.rows_copied, report.total_seconds
            )
        }
        Outcome::Aborted if report.reason.as_deref() == Some(NOTHING_TO_UNDO) => {
            return format!("{}: {NOTHING_TO_UNDO}\n", report.table);
        }
        Outcome::Aborted => format!("{}: undone\n", report.table),
        Outcome::Refused => format!("{}: refused, nothing was changed\n", report.table),
        Outcome::Failed => format!("{}: failed\n", report.table),
        Outcome::Ambiguous => format!("{}: not known\n", report.table),
        Outcome::DryRun => format!("{}: dry run\n", report.table),
    };
    for (label, line) in report
        .reason
        .iter()
        .map(|line| ("reason", line))
        .chain(report.hint.iter().map(|line| ("hint", line)))
        .chain(report.notes.iter().map(|line| ("note", line)))
    {
        let _infallible = writeln!(text, "  {label}: {line}");
    }
    text
}

fn size(bytes: i64) -> String {
    let bytes = bytes.max(0) as f64;
    if bytes < 1e6 { format!("{:.0} kB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}

/// What was undone by somebody else is done only where that was asked for.
fn exit(reports: &[TableReport], work: Work, failed: bool) -> Exit {
    let done = reports
        .iter()
        .filter(|r| match r.outcome {
            Outcome::Swapped | Outcome::Prepared | Outcome::DryRun => true,
            Outcome::Aborted => work == Work::Abort,
            Outcome::Refused | Outcome::Failed | Outcome::Ambiguous => false,
        })
        .count();
    let refused = reports.iter().filter(|r| r.outcome == Outcome::Refused).count();
    match (done, reports.len()) {
        (done, all) if done == all && !failed => Exit::Done,
        (0, all) if refused == all && !failed => Exit::Refused,
        (0, _) => Exit::Failed,
        _ => Exit::Partly,
    }
}

/// A failure of the whole connection.
pub(crate) fn repack_failure(error: RepackError) -> Failure {
    let exit = match &error {
        RepackError::Refused(_) => Exit::Refused,
        _ => Exit::Failed,
    };
    let hint = error.hint();
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Makes our schemas.
pub fn create_schema(context: &Context, args: &ConnectionArgs) -> Result<Exit, Failure> {
    for connection in context.connections(args.connection.as_deref())? {
        let options = repack_of(connection);
        block_on(async { repack::create_schema(&options).await.map_err(repack_failure) })?;
        tracing::info!("{}: schemas repcloud, repcloud_new and repcloud_old are there", connection.name);
    }
    Ok(Exit::Done)
}

/// Removes our schemas and everything unfinished.
pub fn drop_schema(context: &Context, args: &ConnectionArgs) -> Result<Exit, Failure> {
    for connection in context.connections(args.connection.as_deref())? {
        let options = repack_of(connection);
        let events = connection_events(&connection.name);
        block_on(async { repack::drop_schema(&options, &events).await.map_err(repack_failure) })?;
        tracing::info!("{}: nothing of repcloud is left", connection.name);
    }
    Ok(Exit::Done)
}
