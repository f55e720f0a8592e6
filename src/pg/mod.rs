//! Floor 1: the only room that opens sockets.
//!
//! - [`connect`]: an ordinary SQL session ([`Session`], on tokio-postgres);
//! - [`replication`]: a replication session and its stream of frames (our own frontend);
//! - [`failure`]: what an error of the server means, and how to say it without row values;
//! - [`passfile`]: libpq's password file.
//!
//! Both kinds of session share one way of reaching the server (`socket`), of securing the connection (`tls`,
//! `handshake`) and of pinning the session's settings (`options`).

pub mod failure;
pub mod passfile;
pub mod replication;

mod adapter;
mod cert_name;
mod conditions;
mod error;
mod handshake;
mod options;
mod session;
mod socket;
mod tls;
mod tls_verify;

pub use error::{ConnectFailure, PgError};
pub use failure::FailureClass;
pub use options::{ConnectOptions, SslMode};
pub use session::{Canceller, Session, connect};
