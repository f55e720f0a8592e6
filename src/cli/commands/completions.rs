//! `completions`: a script for a shell.

use clap::CommandFactory as _;

use crate::cli::args::{CommandLine, CompletionsArgs};
use crate::cli::output::Output;
use crate::cli::report::{Exit, Failure};

/// Prints the script.
pub fn run(output: Output, args: CompletionsArgs) -> Result<Exit, Failure> {
    // Into memory first: the generator panics where its writer fails, and a pipe may be closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "repcloud", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Done)
}
