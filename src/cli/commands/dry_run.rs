//! `--dry-run` of `repack` and `prepare`.

use crate::cli::args::RepackArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, connection_events, repack as options_of};
use crate::repack::dry_run::{Seen, look};

use super::repack::repack_failure;

/// Shows what would be done to each selected table, and what speaks against it; 3 when all are refused, 4 when some are.
pub fn run(context: &Context, args: &RepackArgs) -> Result<Exit, Failure> {
    let connections = context.connections(args.connection.as_deref())?;
    let (mut good, mut refused) = (0, 0);
    for connection in connections {
        let options = options_of(connection, args);
        let events = connection_events(&connection.name);
        let told = |seen: Seen| {
            *(if seen.refused { &mut refused } else { &mut good }) += 1;
            let written = match context.output.json {
                true => context.output.document(&seen.line),
                false => context.output.text(&seen.text),
            };
            if let Err(error) = written {
                tracing::error!("{error:#}");
            }
        };
        block_on(async { look(&options, &events, told).await.map_err(repack_failure) })?;
    }
    if good + refused == 0 && !context.output.json {
        context.output.text("no table is selected\n")?;
    }
    Ok(match (good, refused) {
        (_, 0) => Exit::Done,
        (0, _) => Exit::Refused,
        _ => Exit::Partly,
    })
}
