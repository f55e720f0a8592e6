//! `demo`. It needs no configuration.

use crate::cli::args::Global;
use crate::cli::report::{Exit, Failure};

/// Not there yet.
pub fn run(_global: &Global) -> Result<Exit, Failure> {
    Err(Failure::not_built("demo"))
}
