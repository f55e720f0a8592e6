//! `skip`.

use serde::Serialize;

use crate::cli::args::SkipArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, flow_failure, streams};
use crate::flow::{StreamOptions, skip_txn};
use crate::service::status_file;

/// The document of `skip --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// Connection the changes come from.
    source: &'a str,
    /// Connection they go to.
    target: &'a str,
    /// Start of the transaction's commit record.
    lsn: String,
    /// The request is recorded; the stream's next run leaves the transaction out.
    done: bool,
}

/// Asks for one source transaction to be left out by the next run of its stream.
pub fn run(context: &Context, args: &SkipArgs) -> Result<Exit, Failure> {
    let source = context.source(&args.source)?;
    let streams = streams(&context.settings, source);
    let options = the_one(context, &streams, args)?;
    let parts = block_on(async {
        skip_txn::request(options, args.lsn).await.map_err(|error| flow_failure(error, &args.source))
    })?;
    let (source, target) = (&options.key.source, &options.key.target);
    if context.output.json {
        context.output.document(&Document { source, target, lsn: args.lsn.to_string(), done: true })?;
        return Ok(Exit::Done);
    }
    if !parts.is_empty() {
        context.output.text(&format!(
            "the changes of the transaction with its commit at {} that wait for {} will be left out of {source} → {target} and kept in repcloud.conflict; \
             those of other tables are in the target already; start the stream again\n",
            args.lsn,
            parts.join(", ")
        ))?;
        return Ok(Exit::Done);
    }
    context.output.text(&format!(
        "the transaction with its commit at {} will be left out of {source} → {target} and kept in repcloud.conflict; start the stream again\n",
        args.lsn
    ))?;
    Ok(Exit::Done)
}

/// With several targets, the stream that stopped at this transaction: the others want it.
fn the_one<'a>(
    context: &Context,
    streams: &'a [StreamOptions],
    args: &SkipArgs,
) -> Result<&'a StreamOptions, Failure> {
    if let [only] = streams {
        return Ok(only);
    }
    let folder = context.streams_folder();
    let lsn = args.lsn.to_string();
    let stopped_there = |options: &&StreamOptions| {
        status_file::read(&folder, &options.key.source, &options.key.target)
            .and_then(|view| view.error)
            .is_some_and(|error| error.split([' ', ',', ';']).any(|word| word == lsn))
    };
    let mut found = streams.iter().filter(stopped_there);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Failure::usage(format!(
            "\"{}\" feeds {} targets, and not exactly one of these streams has stopped at {lsn}",
            args.source,
            streams.len()
        ))
        .hint("start the stream once, so that it stops at this transaction, and skip it then")),
    }
}
