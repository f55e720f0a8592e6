//! Comparing tables against real servers: what differs is found, what only moves is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../it/support/mod.rs"]
mod support;

mod kinds;
mod load;
mod places;
mod world;
