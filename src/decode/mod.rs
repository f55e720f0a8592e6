//! Floor 1: bytes to messages; pure.

pub mod cursor;
pub mod pgoutput;

pub use cursor::{DecodeError, Problem};
