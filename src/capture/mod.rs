//! Floor 3: changes out of the source.
//!
//! `assemble` turns decoded messages into batches and `publish` decides what is published and how (both pure);
//! `slot` reads a slot, in the way that `reading` says and `auto` chooses; `wal2json` tells that plugin's decoder the tables;
//! `setup` is the only place that changes publications.

pub mod assemble;
pub mod auto;
pub mod publish;
pub mod reading;
pub mod setup;
pub mod slot;
pub mod wal2json;

pub use reading::{Plugin, Reading};
pub use slot::{CaptureError, SlotOptions, SlotReader, Written};
