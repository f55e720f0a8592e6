//! What is wrong with a configuration: everything at once, each with its place.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::model::RetryAdvice;

/// One thing to say about one place of a configuration file. Never holds a secret: values are shown only when
/// they stand in the file as they are, and never those of a password.
///
/// Prints as `file:line: key: problem; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key with its section (`connections.prod.port`); empty where the text is not TOML at all.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; empty where the problem says it.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// Why there is no configuration to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file was read, and this is wrong with it.
    #[error("the configuration has {}:\n{}", count(.0.len()), lines(.0))]
    Invalid(Vec<Finding>),
    /// The file is not there.
    #[error("there is no configuration {}; {}", path.display(), advice)]
    NotFound {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do.
        advice: String,
    },
    /// Neither `REPCLOUD_HOME` nor `HOME` says where files belong.
    #[error("no home folder: set REPCLOUD_HOME, or HOME")]
    NoHome,
    /// A file or folder of ours could not be read or made.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `make`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl ConfigError {
    /// A person must act, always.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }

    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        ConfigError::Io { action, path: path.to_owned(), source }
    }
}

fn count(n: usize) -> String {
    if n == 1 { "1 error".to_owned() } else { format!("{n} errors") }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|f| format!("  {f}")).collect::<Vec<_>>().join("\n")
}
