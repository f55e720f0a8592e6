//! `stream`.

use crate::cli::args::StreamArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(context: &Context, args: &StreamArgs) -> Result<Exit, Failure> {
    context.source(&args.source)?;
    Err(Failure::not_built("stream"))
}
