//! Floor 3: changes out of the source.

pub mod assemble;
