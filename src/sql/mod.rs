//! Floor 1: statement shapes. Pure: names in, SQL text out.

pub mod empty;
pub mod shape;
