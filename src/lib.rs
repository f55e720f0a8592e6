//! repcloud: online table repack and table replication for PostgreSQL.
//!
//! The floors of the house, highest first; a room uses lower floors only (`tests/layering.rs` checks it):
//!
//! ```text
//! 8 cli        what a person types
//! 7 config     the only room that knows TOML and the environment
//! 6 service  doctor    keeps jobs alive: shutdown, status; what a run needs, tried on the live server
//! 5 repack     rebuilds a live table (modes and notify will live here)
//! 4 flow       joins capture, copy and apply; owns the channels
//! 3 capture  copy  apply  verify     neighbours without doors between them
//! 2 catalog    what tables look like
//! 1 pg (opens sockets)  decode (bytes → messages)  sql (values → SQL text)
//!   cluster (private PostgreSQL servers for the demo, the tests and the benches)
//! 0 model      the words of the house
//! ```

pub mod apply;
pub mod capture;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod copy;
pub mod decode;
pub mod doctor;
pub mod flow;
pub mod model;
pub mod pg;
pub mod repack;
pub mod service;
pub mod sql;
pub mod verify;
