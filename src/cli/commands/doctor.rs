//! `doctor`: what the configured work needs, tried on the live servers, and what mends what is missing.

mod bundle;
mod words;

use crate::cli::args::DoctorArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, capture_options, connect_options, repack_of, stream, streams};
use crate::config::{Connection, Settings};
use crate::doctor::{Report, Work, examine};

/// Examines the connections, one after the other.
pub fn run(context: &Context, args: &DoctorArgs) -> Result<Exit, Failure> {
    let connections = context.connections(args.connection.as_deref())?;
    if let Some(file) = &args.bundle {
        bundle::is_free(file)?;
    }
    let works: Vec<Work> = connections.iter().map(|c| work(&context.settings, c)).collect();
    let reports = block_on(async {
        let mut reports = Vec::with_capacity(works.len());
        for work in &works {
            reports.push(Box::pin(examine(work)).await);
        }
        Ok(reports)
    })?;
    if let Some(file) = &args.bundle {
        bundle::write(context, &connections, &works, &reports, file)?;
    }
    if context.output.json {
        context.output.document(&words::document(&reports))?;
    } else {
        context.output.text(&words::text(&reports))?;
        if let Some(file) = &args.bundle {
            context.output.text(&format!("everything for support is in {}\n", file.display()))?;
        }
    }
    Ok(if reports.iter().any(Report::is_failed) { Exit::Refused } else { Exit::Done })
}

/// A connection that feeds and gets nothing, or names tables of its own, is there for repack.
fn work(settings: &Settings, connection: &Connection) -> Work {
    let reads = streams(settings, connection);
    let writes: Vec<_> = settings
        .connections
        .values()
        .filter(|source| settings.entries_of(&source.name).any(|e| e.target == connection.name))
        .map(|source| stream(settings, source, connection))
        .collect();
    let selection = &connection.repack.selection;
    let named = !selection.tables.is_empty() || !selection.schemas.is_empty();
    let mut repack = repack_of(connection);
    repack.selection = selection.clone();
    let repack = (named || (reads.is_empty() && writes.is_empty())).then_some(repack);
    Work {
        name: connection.name.clone(),
        connect: connect_options(connection),
        capture: capture_options(connection, None),
        reads,
        writes,
        repack,
    }
}
