//! Floor 3: first rows.

pub mod chunk;
pub mod error;
pub mod format;
pub mod indexes;
pub mod target;
pub mod worker;

pub use chunk::{PageRange, split};
pub use error::CopyError;
pub use format::{CopyFormat, choose_format};
pub use worker::{CopyOutcome, CopySpec, Heap, copy_chunk, read_heap};
