//! Floor 4: joins capture, copy and apply; owns the channels.
//!
//! `start` decides (pure), `targets` looks at what is there before, `prepare` carries out, `stream` runs the tasks side by side: reader → `planner` → applier,
//! with the flusher and the `monitor` beside them (several planners and appliers: `lanes`). `queues` takes the slot's place where triggers capture,
//! `queue_setup` makes them and `queued` prepares. `parking`, `unpark`, `unfit` and `followed` are about tables that wait beside it, `newcomers` about
//! those that appear, `replaced` and `remade` about those whose name another one has, on the source and on the target. `status_read`, `reset`, `skip_txn` and `drop_table` are what a
//! person does to a stream from outside.

mod casts;
mod circles;
mod clock;
pub mod compare;
pub mod control;
mod copy_order;
pub mod drop_table;
mod emptied;
mod entries;
pub mod error;
mod facts;
mod first_rows;
mod followed;
pub mod gate;
mod hold;
mod join;
pub mod lanes;
mod leaves;
mod locked;
mod monitor;
mod newcomers;
pub mod options;
mod own_rights;
mod parking;
mod patience;
pub mod pipeline;
pub mod planner;
mod plugin;
mod prepare;
mod queue_rights;
mod queue_setup;
mod queued;
mod queues;
mod remade;
mod replaced;
pub mod reset;
mod resolve;
mod routing;
mod running;
pub mod skip_txn;
pub mod slot;
pub mod start;
pub mod status;
pub mod status_read;
mod stop_reason;
pub mod stream;
pub mod survey;
pub mod survey_slot;
mod targets;
mod unfit;
mod unpark;
pub mod view;
pub mod work;

pub use error::FlowError;
pub use options::{EntryOptions, StreamOptions};
pub use stream::{Until, run};
