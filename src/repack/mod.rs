//! Floor 5: rebuilds a live table beside itself and exchanges the two.

pub mod alignment;
pub mod ask;
pub mod bloat;
mod blockers;
mod catch_up;
pub mod cleanup;
pub mod compare;
mod converge;
mod cut_over;
pub mod dependents;
pub mod dry_run;
pub mod error;
mod fill;
pub mod fingerprint;
mod indexes;
pub mod job;
pub mod options;
pub mod plan;
pub mod preflight;
pub mod rebuild;
pub mod report;
mod retries;
mod rows;
pub mod run;
mod runner;
pub mod select;
mod shadow;
pub mod state;
mod steps;
mod swap;
mod table_run;
pub mod throttle;
pub mod view;
mod watch;
pub mod window;

pub use error::RepackError;
