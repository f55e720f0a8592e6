//! Floor 4: joins capture, copy and apply; owns the channels.

pub mod planner;
pub mod start;
