//! What can go wrong with a private server.

use std::path::PathBuf;

use crate::model::RetryAdvice;

/// Why a private cluster could not be made, started, stopped or asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No directory with the server programs of the wanted major version.
    #[error(
        "PostgreSQL {wanted} server programs were not found (looked in {searched}); install them with \
         `apt-get install {package}`, or name their directory in REPCLOUD_PG_BIN"
    )]
    NoServer {
        /// The major version asked for, or "14 or newer".
        wanted: String,
        /// The Debian package that brings them.
        package: String,
        /// Where they were looked for.
        searched: String,
    },
    /// A client program (psql, pgbench, pg_recvlogical) is missing.
    #[error(
        "the PostgreSQL program {0} was not found beside the server programs nor in the PATH; install the PostgreSQL client package"
    )]
    NoProgram(String),
    /// The caller is root and there is nobody else to run the server as.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `postgres` to run it as; run as an ordinary user, or install the PostgreSQL server package"
    )]
    NoServiceUser,
    /// The directory for private clusters belongs to somebody else.
    #[error(
        "{0} belongs to another user or is not a directory; remove it, or name another place in REPCLOUD_CLUSTER_DIR"
    )]
    UnsafeBase(PathBuf),
    /// Unix socket paths are limited to 107 bytes by the kernel.
    #[error(
        "the socket path {0} is longer than the 107 bytes a Unix socket allows; name a shorter directory in REPCLOUD_CLUSTER_DIR"
    )]
    SocketPathTooLong(PathBuf),
    /// A file or directory could not be made, read, changed or removed.
    #[error("could not {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("could not start {program}: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{what} failed ({status}): {output}")]
    Failed {
        /// What was being done.
        what: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Something took longer than its limit.
    #[error("{what} did not finish within {seconds} seconds; the end of its output: {output}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The limit.
        seconds: u64,
        /// The end of what it wrote.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("the private server {name} ended while starting ({status}); the end of its log:\n{log}")]
    DiedStarting {
        /// The cluster's name.
        name: String,
        /// Exit code or signal.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The operation needs a stopped server.
    #[error("the private server {0} is already running; stop it first")]
    AlreadyRunning(String),
    /// The operation needs a running server.
    #[error("the private server {0} is not running; start it first")]
    NotRunning(String),
}

impl ClusterError {
    /// Nothing here is passing: limits are generous and a missing program stays missing.
    #[must_use]
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }

    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
