//! Floor 7: the only room that knows TOML and the environment.
//!
//! [`Home`] says where files are, [`load`] turns one into [`Settings`], and [`resolve()`] does so without touching
//! a disk. Everything wrong with a file is reported at once, each [`Finding`] with file, line and key.

mod connection;
pub mod environment;
pub mod error;
pub mod home;
mod nearest;
mod not_built;
mod reader;
mod repack;
mod replicate;
pub mod resolve;
mod rpcl;
mod rules;
mod section;
pub mod settings;
mod table_conf;
mod values;

#[cfg(test)]
mod tests;

pub use environment::{Environment, Login, PassfileLookup, ProcessEnvironment};
pub use error::{ConfigError, Finding};
pub use home::Home;
pub use resolve::{Loaded, Source, resolve};
pub use settings::{
    Capture, Connection, DEFAULT_DELETED_COLUMN, Grant, LogDest, LogLevel, Logging, Mode, OnConflict,
    OnSchemaChange, Plugin, Publish, RepackConfig, ReplicateEntry, Settings, SslMode,
};
pub(crate) use values::size as parse_size;

/// Makes the home folder where it is not there, and loads the configuration that `--config` means.
pub fn load(home: &Home, config: &str, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
    home.ensure()?;
    let (file, name) = home.config_file(config);
    let text = environment.read(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::NotFound {
            advice: if file == home.default_file() {
                "`repcloud init` writes one to begin with".to_owned()
            } else {
                format!("write it; {} shows every key", home.example().display())
            },
            path: file.clone(),
        },
        _ => ConfigError::io("read", &file, error),
    })?;
    let source = Source { file: &file, name: &name, text: &text, log_dir: &home.logs() };
    resolve(source, environment).map_err(ConfigError::Invalid)
}
