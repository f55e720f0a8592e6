//! What lies outside the configuration file: environment variables, other files, `.pgpass`.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// Where `env:`, `file:` and left-out passwords are looked up. A trait, so that reading a configuration stays a
/// pure function of its text and this.
pub trait Environment {
    /// An environment variable; `None` when it is not set or not UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// A file's whole text.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// The password that the password file (`passfile`, or `~/.pgpass`) holds for a login. An error says why the
    /// file could not be used, without its content.
    fn passfile_password(&self, login: Login<'_>) -> Result<Option<SecretString>, String>;
}

/// What a password is looked up by.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Host, address, or socket directory.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: &'a str,
    /// Role.
    pub user: &'a str,
}

/// Looks a login up in a password file; the first argument is the file, which need not exist.
pub type PassfileLookup = fn(&Path, Login<'_>) -> Result<Option<SecretString>, String>;

/// The process's own environment.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment {
    passfile: PassfileLookup,
}

impl ProcessEnvironment {
    /// With the function that reads password files.
    pub fn new(passfile: PassfileLookup) -> Self {
        ProcessEnvironment { passfile }
    }
}

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn passfile_password(&self, login: Login<'_>) -> Result<Option<SecretString>, String> {
        let file = match (self.var("PGPASSFILE"), self.var("HOME")) {
            (Some(file), _) if !file.is_empty() => PathBuf::from(file),
            (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".pgpass"),
            _ => return Ok(None),
        };
        (self.passfile)(&file, login)
    }
}
