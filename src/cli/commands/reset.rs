//! `reset`.

use std::io::{self, IsTerminal as _, Write as _};

use crate::cli::args::ResetArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, flow_failure, stream_events, streams};
use crate::flow::StreamOptions;
use crate::flow::reset::{Choice, Reset, Scope};
use crate::model::TableName;

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
        for reset in &resets {
            context.output.text(&format!("{}\n", reset.describe().join("\n")))?;
        }
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

/// Asks the person at the terminal; without one, `--yes` is needed.
fn agree(effects: &[String]) -> Result<(), Failure> {
    let mut out = io::stderr().lock();
    for effect in effects {
        // Nobody can be asked where standard error is gone; the answer read below is then no.
        let _ = writeln!(out, "{effect}");
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask at")
            .hint("add --yes to do this; nothing was changed"));
    }
    let _ = write!(out, "Go on? [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::from(anyhow::Error::new(e)))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was changed")),
    }
}
