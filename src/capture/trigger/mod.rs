//! Changes from a queue that triggers fill, for roles that may not use a slot (`proto-notes/trigger-queue.md`).
//!
//! `ddl` says what stands on the source, `rows` makes changes of queue rows (both pure); `tick` writes snapshots down,
//! `reader` cuts batches by them, `cleaner` removes what every consumer has.

pub mod cleaner;
pub mod ddl;
pub mod reader;
pub mod rows;
pub mod tick;

pub use reader::{QueueOptions, QueueReader, TickMarks};
pub use rows::{QueueError, QueueTable};
