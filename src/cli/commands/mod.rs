//! One file for each command: from its options to the rooms below and back to words.

pub mod completions;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod drop_table;
pub mod dry_run;
pub mod init;
pub mod man;
pub mod repack;
mod repack_bar;
pub mod reset;
pub mod show_connections;
pub mod skip;
pub mod status;
pub mod stream;
pub mod verify;
