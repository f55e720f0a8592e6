//! What hangs on a table comes back: read, planned, built beside and exchanged, by a plain owner on a real server.

mod behaviour;
mod inheritance;
mod kinds;
mod partitions;
mod refusals;
mod waiting;
pub(crate) mod whole;
pub(crate) mod world;
