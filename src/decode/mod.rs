//! Floor 1: bytes to messages; pure.
