//! Floor 8: what a person types.
//!
//! [`args`] is the command line as typed, [`run`] hands it to a file of [`commands`], [`report`] turns what came of
//! it into words on standard error and an exit code. Standard output carries results only.

pub mod args;
pub mod commands;
mod confirm;
mod demo;
pub mod logging;
pub mod output;
pub mod report;
pub mod run;
mod wiring;

pub use run::main;
