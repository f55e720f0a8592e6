//! `doctor` against servers that lack each thing it looks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

#[path = "../it/support/mod.rs"]
mod support;

mod bundle;
mod cases;
mod patient;
mod remedies;
mod streams;
mod work;
