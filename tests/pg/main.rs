//! The room `pg` against real servers: every way of securing and authenticating a connection, and the
//! replication stream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod cluster;
mod login;
mod session;
mod stream;
