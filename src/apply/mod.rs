//! Floor 3: changes into the target.
//!
//! `route` says where a table's changes go, `coalesce`, `table_plan`, `single` and `plan` turn a group of
//! transactions into statements, `encode` into bytes: all pure. The session and the applier do the I/O.

pub mod coalesce;
pub mod encode;
pub mod plan;
pub mod progress;
pub mod route;
pub mod row;
mod single;
mod table_plan;

#[cfg(test)]
mod history_tests;
