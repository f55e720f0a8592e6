//! `status`.

use crate::cli::args::StatusArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(_context: &Context, _args: &StatusArgs) -> Result<Exit, Failure> {
    Err(Failure::not_built("status"))
}
