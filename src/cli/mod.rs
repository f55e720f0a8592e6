//! Floor 8: what a person types.
