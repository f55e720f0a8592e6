//! Floor 6: what a run needs of a connection, tried on the live server, and the statement or setting that mends what is
//! missing.
//!
//! `read` asks, `login`, `server`, `capture`, `target`, `own_schema`, `leftovers` and `platform` judge (pure); `examine` does both for one connection,
//! `ways` finds how each piece of work reads changes, and `tables` looks at what is configured, by that way. `remedies` has what mends a
//! server by platform, `statements` every kind of statement that is printed. `bundle` collects what support needs, without secrets and
//! without rows. Nothing is changed: a temporary slot is made and dropped.

mod bundle;
mod capture;
mod examine;
mod finding;
mod leftovers;
mod login;
mod own_schema;
mod platform;
mod read;
mod remedies;
mod server;
mod slots;
mod statements;
mod tables;
mod target;
mod ways;

pub use bundle::DatabaseState;
pub use examine::{Report, Work, examine};
pub use finding::{Check, Level, Remedy};
pub use platform::{Platform, alter_system_list};
pub use statements::{SHAPES, shape};
pub use ways::Reading;
