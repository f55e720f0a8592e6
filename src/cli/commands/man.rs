//! `man`: the manual pages, one after the other.

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::args::CommandLine;
use crate::cli::output::Output;
use crate::cli::report::{Exit, Failure};

/// Prints the program's page, then one for each command.
pub fn run(output: Output) -> Result<Exit, Failure> {
    let mut program = CommandLine::command();
    // Gives each command its page's name, repcloud-COMMAND.
    program.build();
    let mut pages = Vec::new();
    let mut render =
        |command: clap::Command| Man::new(command).render(&mut pages).context("cannot write the manual");
    render(program.clone())?;
    for command in program.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        render(command.clone())?;
    }
    output.bytes(&pages)?;
    Ok(Exit::Done)
}
