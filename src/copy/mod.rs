//! Floor 3: first rows.
