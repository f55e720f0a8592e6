//! What we read from, and make in, real databases before a stream begins: definitions, target tables,
//! publications, first rows.

mod cluster;
mod definitions;
