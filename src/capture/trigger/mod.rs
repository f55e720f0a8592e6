//! Changes from a queue that triggers fill, for roles that may not use a slot (`proto-notes/trigger-queue.md`).
//!
//! `ddl` says what stands on the source, `rows` makes changes of queue rows, `layout` tells how they are read and `chain` in which order they were made (all pure); `tick` writes snapshots down,
//! `reader` cuts batches by them, `conditions` asks which changes are wanted, `cleaner` removes what every consumer has. `stream_ticks`, `stream_reader` and
//! `stream_cleaner` do the same for a stream, which reads several queues at once.

mod chain;
pub mod cleaner;
mod conditions;
pub mod ddl;
mod layout;
pub mod reader;
pub mod rows;
pub mod stream_cleaner;
pub mod stream_reader;
pub mod stream_ticks;
pub mod tick;

pub use reader::{QueueOptions, QueueReader, TickMarks};
pub use rows::{QueueError, QueueTable};
pub use stream_reader::{SharedTick, StreamReader, StreamTable};
