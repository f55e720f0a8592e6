//! Floor 1: values to SQL text; pure.
