//! Floor 1: bytes to messages; pure.

pub mod composite;
pub mod cursor;
pub mod pgoutput;
pub mod wal2json;

pub use cursor::{DecodeError, Problem};
