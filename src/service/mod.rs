//! Floor 6: keeps jobs alive: how they are stopped, and where a running process shows its state.

pub mod shutdown;
pub mod status_file;
