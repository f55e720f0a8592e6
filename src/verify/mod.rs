//! Floor 3: compares source and target.
