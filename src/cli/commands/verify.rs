//! `verify`.

use crate::cli::args::VerifyArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(context: &Context, args: &VerifyArgs) -> Result<Exit, Failure> {
    context.source(&args.source)?;
    Err(Failure::not_built("verify"))
}
