//! Floor 7: the only room that knows TOML and the environment.
