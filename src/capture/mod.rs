//! Floor 3: changes out of the source.

pub mod publish;
pub mod setup;
