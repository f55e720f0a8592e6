//! `pause`, `resume`, `stop`, `throttle`: asks running processes for something, wherever they run.

use futures_util::future::join_all;
use serde::Serialize;

use super::repack::repack_failure;
use crate::cli::args::ControlArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, flow_failure, repack_of, streams};
use crate::config::Connection;
use crate::flow::StreamOptions;
use crate::flow::control::{Request, ask};
use crate::repack::run as repack;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Rest.
    Pause,
    /// Go on.
    Resume,
    /// End in order.
    Stop,
    /// Write no more WAL than this, in bytes a second.
    Throttle(Option<u64>),
}

impl Wish {
    fn word(self) -> &'static str {
        match self {
            Wish::Pause => "pause",
            Wish::Resume => "resume",
            Wish::Stop => "stop",
            Wish::Throttle(_) => "throttle",
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    request: &'a str,
    /// `CONNECTION: TABLE` of a repack, `SOURCE → TARGET` of a stream.
    asked: &'a [String],
}

/// Asks the streams of `--source`, the repacks of `--connection`, or all.
pub fn run(context: &Context, args: &ControlArgs, wish: Wish) -> Result<Exit, Failure> {
    let throttles = matches!(wish, Wish::Throttle(_));
    if throttles && args.source.is_some() {
        return Err(Failure::usage("a stream has no copy to slow down while it follows changes")
            .hint("`repcloud pause --source` lets it rest; --connection names the repacks to throttle"));
    }
    let named = |name: &Option<String>| name.as_deref().map(|name| context.connection(name)).transpose();
    let (source, connection) = (named(&args.source)?, named(&args.connection)?);
    let all = || context.connections(None);
    let feeding: Vec<&Connection> = match (source, connection) {
        (Some(_), _) => vec![context.source(args.source.as_deref().unwrap_or_default())?],
        (None, None) if !throttles => all()?,
        _ => Vec::new(),
    };
    let repacked = match (source, connection) {
        (Some(_), _) => Vec::new(),
        (None, Some(connection)) => vec![connection],
        (None, None) => all()?,
    };
    let followed: Vec<StreamOptions> =
        feeding.into_iter().flat_map(|source| streams(&context.settings, source)).collect();
    let (asked, failures) = block_on(async { Ok(ask_all(&repacked, &followed, wish).await) })?;
    tell(context, wish, &asked)?;
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(Exit::Done),
        Some(first) => {
            failures.for_each(|failure| tracing::error!("{failure}"));
            Err(first)
        }
    }
}

/// All at once; one that cannot be asked does not keep the others from it.
async fn ask_all(
    repacked: &[&Connection],
    followed: &[StreamOptions],
    wish: Wish,
) -> (Vec<String>, Vec<Failure>) {
    let repacks = join_all(repacked.iter().map(|connection| ask_repacks(connection, wish))).await;
    let streams = join_all(followed.iter().map(|options| ask_stream(options, wish))).await;
    let (mut asked, mut failures) = (Vec::new(), Vec::new());
    for result in repacks.into_iter().chain(streams) {
        match result {
            Ok(names) => asked.extend(names),
            Err(failure) => failures.push(failure),
        }
    }
    (asked, failures)
}

async fn ask_repacks(connection: &Connection, wish: Wish) -> Result<Vec<String>, Failure> {
    let request = match wish {
        Wish::Throttle(limit) => repack::throttle_request(limit),
        wish => wish.word().to_owned(),
    };
    let tables = repack::control(&repack_of(connection), &request).await.map_err(repack_failure)?;
    Ok(tables.into_iter().map(|table| format!("{}: {table}", connection.name)).collect())
}

async fn ask_stream(options: &StreamOptions, wish: Wish) -> Result<Vec<String>, Failure> {
    let request = match wish {
        Wish::Pause => Some(Request::Pause),
        Wish::Stop => Some(Request::Stop),
        Wish::Resume | Wish::Throttle(_) => None,
    };
    let key = &options.key;
    let asked = ask(options, request).await.map_err(|error| flow_failure(error, &key.source))?;
    Ok(asked.then(|| format!("{} → {}", key.source, key.target)).into_iter().collect())
}

fn tell(context: &Context, wish: Wish, asked: &[String]) -> Result<(), Failure> {
    let request = wish.word();
    if context.output.json {
        context.output.document(&Document { request, asked })?;
    } else if asked.is_empty() {
        context.output.text("no process that runs now can be asked\n")?;
    } else {
        context.output.text(&format!("asked to {request}: {}\n", asked.join(", ")))?;
    }
    Ok(())
}
