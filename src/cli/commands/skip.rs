//! `skip`.

use crate::cli::args::SkipArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(context: &Context, args: &SkipArgs) -> Result<Exit, Failure> {
    context.source(&args.source)?;
    Err(Failure::not_built("skip"))
}
