//! Floor 5: rebuilds a live table beside itself and exchanges the two.

pub mod ask;
pub mod bloat;
pub mod dependents;
pub mod fingerprint;
pub mod options;
pub mod plan;
pub mod preflight;
pub mod select;
pub mod window;
