//! What we read from, and make in, real databases before a stream begins: definitions, target tables,
//! publications, first rows.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod definitions;
mod first_rows;
mod publications;
