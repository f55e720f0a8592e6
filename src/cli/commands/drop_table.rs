//! `drop-table`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::apply::checkpoint::{self, StateError};
use crate::apply::state_read;
use crate::cli::args::DropTableArgs;
use crate::cli::confirm::agree;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, connect_options, flow_failure, stream, stream_events};
use crate::config::Connection;
use crate::flow::StreamOptions;
use crate::flow::drop_table::{Dropped, drop_table, effects};
use crate::model::TableName;
use crate::pg;
use crate::service::status_file;

/// A connection that does not answer for so long is passed over, and named.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// The document of `drop-table --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// Connection the changes came from.
    source: &'a str,
    /// Connection of the table.
    target: &'a str,
    /// The target table.
    table: String,
    /// Its rows stay as a plain table; else it was dropped.
    archived: bool,
    /// It was the stream's last table: slot and publications that were ours are gone too.
    last: bool,
    /// What was not made by us and stays on the source.
    left: Vec<String>,
    /// An entry of the configuration still names it: the next start would copy it again.
    configured: bool,
    /// It is no longer replicated.
    done: bool,
}

/// Finds the stream that feeds the table, and takes the table out of it.
pub fn run(context: &Context, args: &DropTableArgs) -> Result<Exit, Failure> {
    block_on(async {
        let options = find(context, &args.table).await?;
        let failed = |error| flow_failure(error, &options.key.source);
        if !args.yes {
            agree(&effects(&options, &args.table, args.archive).await.map_err(failed)?)?;
        }
        let events = stream_events(&options.key);
        let dropped = drop_table(&options, &args.table, args.archive, &events).await.map_err(failed)?;
        if dropped.last {
            // What the last process said of itself is no stream's any more.
            let (folder, key) = (context.streams_folder(), &options.key);
            status_file::remove(folder.as_path(), &key.source, &key.target)
                .map_err(|e| Failure::from(anyhow::Error::new(e)))?;
        }
        tell(context, args, &options, dropped)?;
        Ok(Exit::Done)
    })
}

fn tell(
    context: &Context,
    args: &DropTableArgs,
    options: &StreamOptions,
    dropped: Dropped,
) -> anyhow::Result<()> {
    let (source, target) = (&options.key.source, &options.key.target);
    let configured = is_configured(options, &args.table);
    if context.output.json {
        return context.output.document(&Document {
            source,
            target,
            table: args.table.to_string(),
            archived: args.archive,
            last: dropped.last,
            left: dropped.left,
            configured,
            done: true,
        });
    }
    let mut text = format!(
        "{source} → {target}: {} is no longer replicated{}\n",
        args.table,
        if args.archive { "; its rows stay as a plain table" } else { " and was dropped" }
    );
    if dropped.last {
        text.push_str("it was the last table: what the stream had on the source is removed\n");
    }
    for left in &dropped.left {
        text.push_str(&format!("{left} was not made by repcloud and stays\n"));
    }
    if configured {
        text.push_str(&format!(
            "remove it from [[replicate]] in {} now: the next start of the stream would copy it again\n",
            context.settings.file.display()
        ));
    }
    context.output.text(&text)
}

/// The one stream that knows the table: asked in the targets, because the entry may be gone from the configuration.
async fn find(context: &Context, table: &TableName) -> Result<StreamOptions, Failure> {
    let mut found: BTreeSet<(String, String)> = BTreeSet::new();
    let mut silent = Vec::new();
    for connection in context.settings.connections.values() {
        match sources_of(connection, table).await {
            Ok(sources) => found.extend(sources.into_iter().map(|s| (s, connection.name.clone()))),
            Err(why) => silent.push(format!("{}: {why}", connection.name)),
        }
    }
    let found: Vec<_> = found.into_iter().collect();
    match found.as_slice() {
        [(source, target)] => {
            let source = context.connection(source)?;
            Ok(stream(&context.settings, source, context.connection(target)?))
        }
        [_, _, ..] => {
            let streams: Vec<_> =
                found.iter().map(|(source, target)| format!("{source} → {target}")).collect();
            Err(Failure::usage(format!(
                "{table} is a target table of {}; leave the connections of the others out of a configuration of your own (--config)",
                streams.join(" and of ")
            )))
        }
        [] => {
            let failure = Failure::usage(format!("no stream of this configuration has target table {table}"));
            Err(match silent.is_empty() {
                true => failure.hint("`repcloud status` lists the target tables"),
                false => failure.hint(format!("these connections could not be asked: {}", silent.join("; "))),
            })
        }
    }
}

async fn sources_of(connection: &Connection, table: &TableName) -> Result<Vec<String>, String> {
    let look = async {
        let session = pg::connect(&connect_options(connection)).await?;
        if checkpoint::schema_version(&session).await?.is_none() {
            return Ok(Vec::new());
        }
        state_read::streams_of_table(&session, &connection.name, &table.to_string()).await
    };
    match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(result) => result.map_err(|e: StateError| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOK_LIMIT.as_secs())),
    }
}

/// By name: a wildcard passes over it from now on.
fn is_configured(options: &StreamOptions, table: &TableName) -> bool {
    options.entries.iter().any(|entry| match &entry.target_table {
        Some(target) => target == table,
        None => entry.names(table),
    })
}
