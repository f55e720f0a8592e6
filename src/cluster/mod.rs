//! Floor 1: private PostgreSQL servers: made, started, stopped and removed again.
//!
//! `repcloud demo`, the integration tests and the benchmarks need real servers that nobody else uses. A [`Cluster`] is one:
//! its own data directory, its own free port on 127.0.0.1, its own Unix socket, trust authentication unless told otherwise.
//! Plain blocking code: it starts programs and writes files.
//!
//! A server never outlives its owner:
//!
//! - dropping a [`Cluster`] stops the server and removes its directory, also when a test panics;
//! - a small guard process reads from a pipe that only the owner holds; when the owner is killed, the pipe closes and the
//!   guard does the same work;
//! - the first cluster a process starts sweeps away what dead owners may have left in spite of both.
//!
//! PostgreSQL refuses to run as root. When the caller is root, everything runs as the `postgres` user.

mod binaries;
mod builder;
mod error;
mod guard;
mod process;
mod server;
mod template;
mod workplace;

pub use binaries::{Binaries, SEARCH_VARIABLE};
pub use builder::ClusterBuilder;
pub use error::ClusterError;
pub use server::{Cluster, StopMode};
pub use workplace::BASE_VARIABLE;
