//! `REPCLOUD_HOME`: where configurations, logs and what a run keeps belong.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::ConfigError;

/// The commented example, as `init` writes it.
pub const EXAMPLE: &str = include_str!("../../config/repcloud.example.toml");

/// The folder that holds `config/`, `config/table_conf/`, `logs/`, `pid/` and `spool/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// `REPCLOUD_HOME`, else `~/.repcloud`. Nothing is made.
    pub fn locate(environment: &dyn Environment) -> Result<Home, ConfigError> {
        let set = |name| environment.var(name).filter(|value| !value.is_empty());
        let dir = match (set("REPCLOUD_HOME"), set("HOME")) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(home)) => Path::new(&home).join(".repcloud"),
            (None, None) => return Err(ConfigError::NoHome),
        };
        let dir = std::path::absolute(&dir).map_err(|e| ConfigError::io("find", &dir, e))?;
        Ok(Home { dir })
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Folder of log files.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// Folder of pid files.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Where the streams of the configuration with this name tell how they are doing. Another one may use the same names for its connections.
    pub fn streams(&self, config: &str) -> PathBuf {
        self.pid().join(config)
    }

    /// Folder of what is too big for memory.
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// The commented example.
    pub fn example(&self) -> PathBuf {
        self.dir.join("config/repcloud.example.toml")
    }

    /// Makes the folders that are not there, readable by their owner only, and the commented example.
    pub fn ensure(&self) -> Result<(), ConfigError> {
        // An empty folder made for us becomes private; one in use is left as its owner has it.
        if fs::read_dir(&self.dir).is_ok_and(|mut entries| entries.next().is_none()) {
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))
                .map_err(|e| ConfigError::io("make private", &self.dir, e))?;
        }
        for folder in ["", "config/table_conf", "logs", "pid", "spool"] {
            let path = self.dir.join(folder);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|e| ConfigError::io("make", &path, e))?;
        }
        write_new(&self.example(), EXAMPLE).map(|_| ())
    }

    /// Writes the commented example as `file`. `false`: the file was there, and is as it was.
    pub fn write_example(&self, file: &Path) -> Result<bool, ConfigError> {
        write_new(file, EXAMPLE)
    }

    /// `config/default.toml`.
    pub fn default_file(&self) -> PathBuf {
        self.dir.join("config/default.toml")
    }

    /// The file that `--config` means, and its name without folder and `.toml`: a path as it is, a bare name
    /// (with or without `.toml`) in `config/`.
    pub fn config_file(&self, config: &str) -> (PathBuf, String) {
        let path = Path::new(config);
        let stem = |text: &str| text.strip_suffix(".toml").unwrap_or(text).to_owned();
        if config.contains('/') {
            let name = path.file_name().map(|n| stem(&n.to_string_lossy())).unwrap_or_default();
            return (path.to_owned(), name);
        }
        let name = stem(config);
        let in_home = self.dir.join("config").join(format!("{name}.toml"));
        // `--config my.toml` in the folder where my.toml lies: what else could be meant?
        if config.ends_with(".toml") && !in_home.exists() && path.is_file() {
            return (path.to_owned(), name);
        }
        (in_home, name)
    }
}

/// Writes a file that is not there yet, readable by its owner only. `false`: it was there.
fn write_new(path: &Path, text: &str) -> Result<bool, ConfigError> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match opened {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(|e| ConfigError::io("write", path, e))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(ConfigError::io("write", path, error)),
    }
}
