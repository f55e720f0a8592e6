//! `reset`.

use serde::Serialize;

use crate::cli::args::ResetArgs;
use crate::cli::confirm::agree;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, flow_failure, stream_events, streams};
use crate::flow::StreamOptions;
use crate::flow::reset::{Choice, Reset, Scope};
use crate::model::TableName;

/// The document of `reset --json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// Connection the changes come from.
    source: &'a str,
    /// What was chosen; null when nothing was.
    choice: Option<&'static str>,
    /// It was carried out.
    done: bool,
    /// What was done, in words.
    effects: Vec<String>,
    /// Without a choice: what each would do, by target.
    streams: Vec<StreamChoices>,
}

/// The choices of one stream.
#[derive(Debug, Serialize)]
struct StreamChoices {
    target: String,
    /// Position and slot, in words.
    state: String,
    choices: Vec<Possible>,
}

/// One choice.
#[derive(Debug, Serialize)]
struct Possible {
    choice: &'static str,
    /// What it would do, in words; empty when it is not possible.
    effects: Vec<String>,
    /// Why it is not possible.
    refused: Option<String>,
}

/// Carries out a choice for the streams of a source, or tells what each choice would do.
pub fn run(context: &Context, args: &ResetArgs) -> Result<Exit, Failure> {
    let source = context.source(&args.source)?;
    let streams = streams(&context.settings, source);
    let scope = if args.all { Scope::All } else { Scope::Tables(args.tables.clone()) };
    let choice = match (args.recopy, args.accept_target, args.accept_system) {
        (true, ..) => Some(Choice::Recopy),
        (_, true, _) => Some(Choice::AcceptTarget),
        (.., true) => Some(Choice::AcceptSystem),
        _ => None,
    };
    block_on(reset(context, args, &streams, &scope, choice))
}

async fn reset(
    context: &Context,
    args: &ResetArgs,
    streams: &[StreamOptions],
    scope: &Scope,
    choice: Option<Choice>,
) -> Result<Exit, Failure> {
    let failed = |error| flow_failure(error, &args.source);
    let mut resets = Vec::new();
    let events: Vec<_> = streams.iter().map(|options| stream_events(&options.key)).collect();
    for (options, events) in streams.iter().zip(&events) {
        let reset = Reset::open(options, scope, events).await.map_err(failed)?;
        if reset.concerns_a_table() {
            resets.push(reset);
        }
    }
    if let Some(name) = unknown(scope, &resets) {
        return Err(Failure::usage(format!("no [[replicate]] of \"{}\" has the table {name}", args.source)));
    }
    let Some(choice) = choice else {
        tell_choices(context, &args.source, &resets)?;
        return Err(Failure::usage("say which: --recopy, --accept-target or --accept-system"));
    };
    let mut effects = Vec::new();
    for reset in &resets {
        effects.extend(reset.effects(choice).map_err(failed)?);
    }
    if !args.yes {
        agree(&effects)?;
    }
    for reset in resets {
        reset.carry_out(choice).await.map_err(failed)?;
    }
    if context.output.json {
        let source = &args.source;
        let choice = Some(choice.name());
        context.output.document(&Document { source, choice, done: true, effects, streams: Vec::new() })?;
        return Ok(Exit::Done);
    }
    for effect in &effects {
        context.output.text(&format!("{effect}\n"))?;
    }
    context.output.text(&format!("done; start the stream: repcloud stream --source {}\n", args.source))?;
    Ok(Exit::Done)
}

fn unknown<'a>(scope: &'a Scope, resets: &[Reset<'_>]) -> Option<&'a TableName> {
    match scope {
        Scope::All => None,
        Scope::Tables(names) => names.iter().find(|name| !resets.iter().any(|r| r.knows(name))),
    }
}

/// What each choice would do.
fn tell_choices(context: &Context, source: &str, resets: &[Reset<'_>]) -> anyhow::Result<()> {
    if !context.output.json {
        return resets
            .iter()
            .try_for_each(|reset| context.output.text(&format!("{}\n", reset.describe().join("\n"))));
    }
    let possible = |reset: &Reset<'_>, choice: Choice| match reset.effects(choice) {
        Ok(effects) => Possible { choice: choice.name(), effects, refused: None },
        Err(error) => {
            Possible { choice: choice.name(), effects: Vec::new(), refused: Some(error.to_string()) }
        }
    };
    let streams = resets.iter().map(|reset| StreamChoices {
        target: reset.target_name().to_owned(),
        state: reset.state(),
        choices: Choice::ALL.into_iter().map(|choice| possible(reset, choice)).collect(),
    });
    let streams = streams.collect();
    context.output.document(&Document { source, choice: None, done: false, effects: Vec::new(), streams })
}
