//! Floor 3: changes into the target.
//!
//! `route` says where a table's changes go; `group`, `coalesce`, `table_plan`, `single` and `plan` turn groups of
//! transactions into statements, `encode` into bytes, `parked` keeps changes that wait, `lanes` divides one table's changes
//! between several sessions, `progress` says what may be confirmed: all pure. `checkpoint` is the stream's state in the target
//! (`table_state`, `lane_rows`, `parked_store`, `skip` and `state_read` belong to it), `target_session`, `serial`, `applier` and
//! `flusher` write.

pub mod applier;
mod blame;
pub mod checkpoint;
pub mod coalesce;
mod conflict;
pub mod encode;
pub mod error;
mod flusher;
pub mod group;
mod lane_rows;
pub mod lanes;
pub mod parked;
pub mod parked_store;
pub mod plan;
pub mod progress;
pub mod requests;
pub mod route;
pub mod row;
mod serial;
mod shape_error;
mod single;
pub mod skip;
pub mod state_read;
mod table_plan;
mod table_state;
pub mod target_relation;
pub mod target_session;
pub mod writers;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod lanes_tests;

pub use applier::{Applier, ApplyOptions, ApplyReport};
pub use error::ApplyError;
pub use flusher::Flusher;
