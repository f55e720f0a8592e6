//! Floor 5: rebuilds a live table beside itself and exchanges the two.

pub mod dependents;
pub mod fingerprint;
pub mod options;
pub mod plan;
pub mod window;
