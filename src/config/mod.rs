//! Floor 7: the only room that knows TOML and the environment.

pub mod settings;

pub use settings::{
    Capture, Connection, DEFAULT_DELETED_COLUMN, Grant, LogDest, LogLevel, Logging, Mode, OnConflict,
    OnSchemaChange, Plugin, Publish, ReplicateEntry, Settings, SslMode,
};
