//! Floor 4: joins capture, copy and apply; owns the channels.
//!
//! `start` decides (pure), `prepare` carries out, `stream` runs the tasks side by side: reader → `planner` → applier,
//! with the flusher and the `monitor` beside them.

mod clock;
pub mod error;
mod facts;
mod first_rows;
mod monitor;
pub mod options;
pub mod planner;
mod prepare;
pub mod start;
pub mod status;
pub mod stream;
pub mod view;
pub mod work;

pub use error::FlowError;
pub use options::{EntryOptions, StreamOptions};
pub use stream::{Until, run};
