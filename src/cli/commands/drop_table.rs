//! `drop-table`.

use crate::cli::args::DropTableArgs;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;

/// Not there yet.
pub fn run(_context: &Context, _args: &DropTableArgs) -> Result<Exit, Failure> {
    Err(Failure::not_built("drop-table"))
}
