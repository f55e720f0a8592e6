//! What came of a command: words on standard error, and an exit code.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::config::{ConfigError, Finding};

/// The exit codes, as the contract fixes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: refused by pre-flight; nothing was changed.
    Refused,
    /// 4: some tables done, some not.
    Partly,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Partly => 4,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command ended without its result.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened; its chain of causes is printed too.
    pub error: anyhow::Error,
    /// What to do, where the error itself does not say it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Failure { exit, error: error.into(), hint: None }
    }

    /// What was typed cannot be (exit 2).
    pub fn usage(problem: impl fmt::Display) -> Self {
        Failure::new(Exit::Usage, anyhow::anyhow!("{problem}"))
    }

    /// With what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::new(Exit::Failed, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::new(Exit::Usage, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            // Many errors name their cause themselves.
            if !told.contains(&cause) {
                told = format!("{told}: {cause}");
            }
        }
        write!(f, "error: {told}")?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Tells the failure on standard error.
pub fn failure(failure: &Failure) {
    to_stderr(&failure.to_string());
}

/// Tells the warnings of a configuration on standard error.
pub fn warnings(warnings: &[Finding]) {
    for warning in warnings {
        to_stderr(&format!("warning: {warning}"));
    }
}

/// Where standard error itself is gone, there is nobody left to tell.
fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let cause = anyhow::anyhow!("connection refused").context("cannot connect to \"prod\"");
        let failure = Failure::from(cause).hint("is the server up?");
        assert_eq!(
            failure.to_string(),
            "error: cannot connect to \"prod\": connection refused\nhint: is the server up?"
        );
        assert_eq!(failure.exit.code(), 1);
    }

    #[test]
    fn a_cause_that_the_error_names_already_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("target: {0}")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no such role"));
        assert_eq!(Failure::new(Exit::Failed, error).to_string(), "error: target: no such role");
    }
}
