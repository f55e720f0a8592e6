//! Floor 6: keeps jobs alive.
