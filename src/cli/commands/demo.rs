//! `demo`. It needs no configuration.

use crate::cli::args::{DemoArgs, Global};
use crate::cli::demo;
use crate::cli::report::{Exit, Failure};

/// Shows the whole program on servers of its own.
pub fn run(global: &Global, args: &DemoArgs) -> Result<Exit, Failure> {
    demo::run(global, args)
}
