//! Floor 5: rebuilds a live table beside itself and exchanges the two.

pub mod options;
pub mod window;
