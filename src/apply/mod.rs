//! Floor 3: changes into the target.
