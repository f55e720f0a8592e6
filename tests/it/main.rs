//! Integration tests against real, private PostgreSQL servers.
//!
//! Every test starts the servers it needs (`support::cluster::Pair`), so tests share nothing and run in any order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod support;

mod cases;
mod commands;
mod control;
mod crash;
mod demo;
mod followed;
mod gone;
mod join;
mod newcomers;
mod oracle;
mod parked;
mod private_clusters;
mod recopy;
mod rejected;
mod remade;
mod repack;
mod repack_cleanup;
mod repack_dependents;
mod repack_preflight;
mod repack_preflight_slot;
mod repack_select;
mod repack_throttle;
mod shapes;
mod slot_names;
mod slots;
mod stream_basics;
mod told;
mod trigger_join;
mod trigger_order;
mod trigger_tables;
mod trigger_wildcards;
mod triggers;
mod unfit;
mod wal2json;
mod ways_on;
