//! Securing a connection before its first message: which of TLS and plain to try, in which order, and the
//! request for TLS. Both kinds of session begin here.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::pg::error::{ConnectFailure, PgError};
use crate::pg::failure::{FailureClass, Report};
use crate::pg::options::{ConnectOptions, SslMode};
use crate::pg::socket::{self, Transport};
use crate::pg::tls::{self, TlsSetup};

/// One way of connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// Without TLS.
    Plain,
    /// With TLS if the server has it, else without (the first leg of `prefer`).
    Offered,
    /// With TLS.
    Tls,
}

/// The legs an sslmode permits, in order.
fn legs(options: &ConnectOptions) -> &'static [Leg] {
    if options.is_unix() {
        return &[Leg::Plain];
    }
    match options.sslmode {
        SslMode::Disable => &[Leg::Plain],
        SslMode::Allow => &[Leg::Plain, Leg::Tls],
        SslMode::Prefer => &[Leg::Offered, Leg::Plain],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Leg::Tls],
    }
}

/// Goes through the legs: `leg()` is to be tried; `failed()` says whether another one remains.
pub(crate) struct Plan {
    legs: &'static [Leg],
    at: usize,
    first: Option<PgError>,
}

impl Plan {
    pub(crate) fn new(options: &ConnectOptions) -> Self {
        Plan { legs: legs(options), at: 0, first: None }
    }

    pub(crate) fn leg(&self) -> Leg {
        self.legs.get(self.at).copied().unwrap_or(Leg::Plain)
    }

    /// TLS may be needed on one of the legs.
    pub(crate) fn may_use_tls(&self) -> bool {
        self.legs.iter().any(|leg| *leg != Leg::Plain)
    }

    /// The leg failed. Goes on to the next one as libpq does: when the server refused this kind of connection
    /// (or, on the way to TLS, the handshake failed); a server that is not there is not asked twice.
    pub(crate) fn failed(&mut self, error: PgError) -> Result<(), PgError> {
        let another = self.at + 1 < self.legs.len()
            && matches!(&error, PgError::Connect(f) if f.in_tls || f.class == FailureClass::Privilege);
        if another {
            self.at += 1;
            self.first = Some(error);
            return Ok(());
        }
        Err(match (self.first.take(), error) {
            (Some(PgError::Connect(first)), PgError::Connect(mut last)) => {
                let (one, other) = match self.legs.first() {
                    Some(Leg::Plain) => ("without TLS", "with TLS"),
                    _ => ("with TLS", "without TLS"),
                };
                last.reason = format!("{one}: {}; {other}: {}", first.reason, last.reason);
                last.hint = last.hint.or(first.hint);
                PgError::Connect(last)
            }
            (_, error) => error,
        })
    }
}

/// A connection on which the start-up message may be sent.
pub(crate) struct Established {
    pub(crate) transport: Transport,
    /// The server certificate's hash, for SCRAM with channel binding.
    pub(crate) binding: Option<Vec<u8>>,
}

impl Established {
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }
}

/// Connects on one leg.
pub(crate) async fn open(
    options: &ConnectOptions,
    leg: Leg,
    setup: Option<&TlsSetup>,
    deadline: Instant,
) -> Result<Established, PgError> {
    let transport = socket::dial(options, deadline).await?;
    match (transport, leg, setup) {
        (Transport::Tcp(stream), Leg::Offered | Leg::Tls, Some(setup)) => {
            let limit = options.connect_timeout;
            match timeout_at(deadline, secure(options, leg, setup, stream)).await {
                Ok(result) => result,
                Err(_) => Err(PgError::timeout(&format!("securing {}", options.target()), limit)),
            }
        }
        (transport, _, _) => Ok(Established { transport, binding: None }),
    }
}

/// Asks for TLS, and does its handshake when the server has it.
async fn secure(
    options: &ConnectOptions,
    leg: Leg,
    setup: &TlsSetup,
    mut stream: TcpStream,
) -> Result<Established, PgError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let broken = |error: io::Error| tls_failure(options, &error, FailureClass::Transient);
    stream.write_all(&request).await.map_err(broken)?;
    // Exactly one byte: whatever somebody sent after it in clear is then read as TLS, and fails.
    match stream.read_u8().await.map_err(broken)? {
        b'S' => {}
        b'N' if leg == Leg::Offered => {
            return Ok(Established { transport: Transport::Tcp(stream), binding: None });
        }
        b'N' => {
            let mut failure = refusal(options, "the server does not accept TLS".to_owned());
            failure.hint = Some(
                "set sslmode to \"prefer\" or \"disable\", or turn on ssl in the server's configuration"
                    .to_owned(),
            );
            return Err(PgError::Connect(Box::new(failure)));
        }
        _ => {
            let mut failure =
                refusal(options, "the server did not understand the request for TLS".to_owned());
            failure.hint = Some("is this a PostgreSQL server's port?".to_owned());
            return Err(PgError::Connect(Box::new(failure)));
        }
    }
    let connector = TlsConnector::from(setup.config.clone());
    let stream = connector
        .connect(setup.name.clone(), stream)
        .await
        .map_err(|error| tls_failure(options, &error, FailureClass::Other))?;
    let binding = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| tls::end_point_binding(certificate));
    Ok(Established { transport: Transport::Tls(Box::new(stream)), binding })
}

fn refusal(options: &ConnectOptions, reason: String) -> ConnectFailure {
    ConnectFailure {
        target: options.target(),
        reason,
        hint: None,
        class: FailureClass::Other,
        sqlstate: None,
        in_tls: false,
    }
}

fn tls_failure(options: &ConnectOptions, error: &io::Error, class: FailureClass) -> PgError {
    let (reason, hint) = tls::explain(error);
    // A certificate that is refused today is refused tomorrow; a broken connection is not.
    let certificate = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let class = if certificate { class } else { FailureClass::Transient };
    let mut failure = refusal(options, reason);
    failure.hint = hint.map(str::to_owned);
    failure.class = class;
    failure.in_tls = true;
    PgError::Connect(Box::new(failure))
}

/// The server refused us after the connection was made: its report, with what to do.
pub(crate) fn refused_by_server(options: &ConnectOptions, report: &Report) -> PgError {
    let mut failure = refusal(options, report.line());
    failure.class = crate::pg::failure::class_of_sqlstate(&report.sqlstate);
    failure.hint = report.safe_hint().or_else(|| {
        let hint = match report.sqlstate.as_str() {
            "28P01" => "check the user and the password",
            "28000" if report.message.contains("pg_hba.conf") => {
                "the server's pg_hba.conf must allow this user, database and kind of connection"
            }
            "28000" if report.message.contains("certificate") => "set sslcert and sslkey",
            "28000" => "check the role and the server's pg_hba.conf and pg_ident.conf",
            "3D000" => "check the name of the database",
            "53300" => {
                "the server, the database or the role has no free connection (replication: max_wal_senders)"
            }
            "57P03" => "the server is starting up or shutting down",
            "42501" => "for replication the role needs the attribute REPLICATION (ALTER ROLE … REPLICATION)",
            _ => return None,
        };
        Some(hint.to_owned())
    });
    failure.sqlstate = Some(report.sqlstate.clone());
    PgError::Connect(Box::new(failure))
}

/// The connection broke, or made no sense, before the session was ready.
pub(crate) fn lost_at_login(options: &ConnectOptions, error: &io::Error) -> PgError {
    // With TLS 1.3 the server refuses our certificate only now.
    tls_failure(options, error, FailureClass::Privilege)
}

/// Authentication cannot go on, for a reason of ours.
pub(crate) fn cannot_authenticate(options: &ConnectOptions, reason: &str, hint: &str) -> PgError {
    let mut failure = refusal(options, reason.to_owned());
    failure.class = FailureClass::Privilege;
    failure.hint = Some(hint.to_owned());
    PgError::Connect(Box::new(failure))
}

/// The way to say that a password is missing.
pub(crate) fn password_missing(options: &ConnectOptions) -> PgError {
    cannot_authenticate(
        options,
        "the server asks for a password and none is configured",
        "set password, PGPASSWORD or a line in the password file",
    )
}

pub(crate) const CLEARTEXT_REASON: &str =
    "the server asks for the password in clear text over a connection without TLS";
pub(crate) const CLEARTEXT_HINT: &str =
    "set sslmode to \"require\" or better, or use scram-sha-256 in the server's pg_hba.conf";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(host: &str, sslmode: SslMode) -> ConnectOptions {
        ConnectOptions { sslmode, ..ConnectOptions::new(host, 5432, "u", "d") }
    }

    fn failed(plan: &mut Plan, class: FailureClass, in_tls: bool) -> Result<(), PgError> {
        let mut failure = refusal(&options("h", SslMode::Prefer), "no".to_owned());
        failure.class = class;
        failure.in_tls = in_tls;
        plan.failed(PgError::Connect(Box::new(failure)))
    }

    #[test]
    fn each_mode_has_its_legs() {
        assert_eq!(legs(&options("/tmp", SslMode::VerifyFull)), [Leg::Plain]);
        assert_eq!(legs(&options("h", SslMode::Disable)), [Leg::Plain]);
        assert_eq!(legs(&options("h", SslMode::VerifyCa)), [Leg::Tls]);
    }

    #[test]
    fn only_a_refusal_leads_to_the_next_leg() {
        let mut plan = Plan::new(&options("h", SslMode::Allow));
        assert!(failed(&mut plan, FailureClass::Transient, false).is_err());
        let mut plan = Plan::new(&options("h", SslMode::Allow));
        assert!(failed(&mut plan, FailureClass::Privilege, false).is_ok());
        assert_eq!(plan.leg(), Leg::Tls);
        let text = failed(&mut plan, FailureClass::Privilege, false).unwrap_err().to_string();
        assert_eq!(text, "could not connect to \"h\" port 5432 as \"u\": without TLS: no; with TLS: no");
        let mut plan = Plan::new(&options("h", SslMode::Prefer));
        assert!(failed(&mut plan, FailureClass::Other, true).is_ok());
        assert_eq!(plan.leg(), Leg::Plain);
        let mut plan = Plan::new(&options("h", SslMode::Require));
        assert!(failed(&mut plan, FailureClass::Other, true).is_err());
    }
}
