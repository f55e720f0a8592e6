//! Floor 3: changes out of the source.
//!
//! `assemble` turns decoded messages into batches and `publish` decides what is published and how (both pure);
//! `slot` reads a slot; `setup` is the only place that changes publications.

pub mod assemble;
pub mod publish;
pub mod setup;
pub mod slot;

pub use slot::{CaptureError, SlotOptions, SlotReader, Written};
