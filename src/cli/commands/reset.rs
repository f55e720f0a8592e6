//! `reset`.

use crate::cli::args::ResetArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(context: &Context, args: &ResetArgs) -> Result<Exit, Failure> {
    context.source(&args.source)?;
    Err(Failure::not_built("reset"))
}
