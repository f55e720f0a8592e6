//! Floor 3: changes out of the source.

pub mod assemble;
pub mod slot;

pub use slot::{CaptureError, SlotOptions, SlotReader, Written};
