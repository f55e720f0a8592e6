//! Floor 6: what a run needs of a connection, tried on the live server, and the statement or setting that mends what is
//! missing.
//!
//! `read` asks, `server`, `capture`, `target`, `leftovers` and `platform` judge (pure); `examine` does both for one connection and
//! `tables` for what is configured. `bundle` collects what support needs, without secrets and without rows. Nothing is changed: a
//! temporary slot is made and dropped.

mod bundle;
mod capture;
mod examine;
mod finding;
mod leftovers;
mod platform;
mod read;
mod server;
mod tables;
mod target;

pub use bundle::DatabaseState;
pub use examine::{Report, Work, examine};
pub use finding::{Check, Level, Remedy};
pub use platform::{Platform, alter_system_list};
