//! Logging in to a replication session: the start-up message and the authentication exchange.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;

use bytes::{Buf, Bytes};
use std::io;

use crate::pg::error::PgError;
use crate::pg::failure::Report;
use crate::pg::handshake::{self, Established};
use crate::pg::options::{ConnectOptions, PINNED, version_number};
use crate::pg::replication::wire::Wire;
use crate::pg::socket::Transport;

const DURING: &str = "logging in";

/// What the server tells at login.
#[derive(Debug, Default)]
pub(crate) struct LoginFacts {
    pub(crate) backend_pid: i32,
    pub(crate) secret_key: Bytes,
    pub(crate) server_version: u32,
    pub(crate) channel_bound: bool,
}

/// A login under way.
struct Login<'a> {
    options: &'a ConnectOptions,
    wire: Wire<Transport>,
    is_private: bool,
    binding: Option<Vec<u8>>,
}

/// Logs in, up to the server's first ReadyForQuery.
pub(crate) async fn login(
    options: &ConnectOptions,
    established: Established,
) -> Result<(Wire<Transport>, LoginFacts), PgError> {
    let is_private = established.transport.is_private();
    let wire = Wire::new(established.transport);
    let mut login = Login { options, wire, is_private, binding: established.binding };
    let result = login.run().await;
    match result {
        Ok(facts) => {
            login.wire.allow_long_messages();
            Ok((login.wire, facts))
        }
        // Whatever ended the connection before it was ready: say it in terms of connecting.
        Err(PgError::Io { source, .. }) => Err(handshake::lost_at_login(options, &source)),
        Err(PgError::Closed { .. }) => {
            let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it during the login");
            Err(handshake::lost_at_login(options, &cause))
        }
        Err(error) => Err(error),
    }
}

impl Login<'_> {
    async fn run(&mut self) -> Result<LoginFacts, PgError> {
        let mut parameters = vec![
            ("user", self.options.user.as_str()),
            ("database", self.options.database.as_str()),
            ("replication", "database"),
            ("application_name", self.options.application_name.as_str()),
        ];
        parameters.extend_from_slice(PINNED);
        frontend::startup_message(parameters, self.wire.output())
            .map_err(|_| PgError::config("user, database or application_name holds a NUL character"))?;
        self.flush().await?;
        let channel_bound = self.authenticate().await?;
        self.session_facts(channel_bound).await
    }

    async fn flush(&mut self) -> Result<(), PgError> {
        self.wire.flush(DURING, self.options.connect_timeout).await
    }

    /// The next message; the server's errors and notices are taken care of.
    async fn message(&mut self) -> Result<(u8, Bytes), PgError> {
        loop {
            match self.wire.message(DURING).await? {
                (b'E', body) => {
                    return Err(handshake::refused_by_server(self.options, &Report::parse(&body)));
                }
                // Notices, and NegotiateProtocolVersion: we ask for 3.0 and no options.
                (b'N' | b'v', _) => {}
                message => return Ok(message),
            }
        }
    }

    /// An Authentication message: its code and what follows it.
    async fn request(&mut self) -> Result<(u32, Bytes), PgError> {
        match self.message().await? {
            (b'R', mut body) if body.len() >= 4 => Ok((body.get_u32(), body)),
            (kind, _) => Err(unexpected(kind)),
        }
    }

    /// Answers the server's requests until it is content; says whether the channel was bound.
    async fn authenticate(&mut self) -> Result<bool, PgError> {
        let request = self.request().await?;
        if self.options.require_channel_binding && request.0 != 10 {
            return Err(self.not_bound());
        }
        match request {
            (0, _) => return Ok(false),
            (3, _) if !self.is_private => {
                return Err(handshake::cannot_authenticate(
                    self.options,
                    handshake::CLEARTEXT_REASON,
                    handshake::CLEARTEXT_HINT,
                ));
            }
            (3, _) => {
                let password = self.password()?;
                self.send_password(password.as_bytes()).await?;
            }
            (5, salt) => {
                let salt = salt.as_ref().try_into().map_err(|_| unexpected(b'R'))?;
                let answer = md5_hash(self.options.user.as_bytes(), self.password()?.as_bytes(), salt);
                self.send_password(answer.as_bytes()).await?;
            }
            (10, mechanisms) => return self.scram(&mechanisms).await,
            (_, _) => {
                return Err(handshake::cannot_authenticate(
                    self.options,
                    "the server asks for an authentication method that is not supported (GSSAPI, SSPI or Kerberos)",
                    "use scram-sha-256 or cert in the server's pg_hba.conf",
                ));
            }
        }
        self.expect_ok().await.map(|()| false)
    }

    async fn expect_ok(&mut self) -> Result<(), PgError> {
        match self.request().await? {
            (0, _) => Ok(()),
            _ => Err(unexpected(b'R')),
        }
    }

    fn password(&self) -> Result<String, PgError> {
        let password = self.options.password.as_ref();
        password
            .map(|password| password.expose_secret().to_owned())
            .ok_or_else(|| handshake::password_missing(self.options))
    }

    async fn send_password(&mut self, answer: &[u8]) -> Result<(), PgError> {
        frontend::password_message(answer, self.wire.output())
            .map_err(|_| PgError::config("the password holds a NUL character"))?;
        self.flush().await
    }

    /// SCRAM-SHA-256, bound to the TLS channel whenever server and certificate allow it.
    async fn scram(&mut self, offered: &[u8]) -> Result<bool, PgError> {
        let offers = |name: &str| offered.split(|b| *b == 0).any(|offer| offer == name.as_bytes());
        let (mechanism, binding) = match (self.binding.take(), offers(SCRAM_SHA_256_PLUS)) {
            (Some(hash), true) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
            // We could and the server does not offer it: said so, that somebody in between cannot hide the offer.
            (Some(_), false) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (None, _) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        if !offers(mechanism) {
            return Err(handshake::cannot_authenticate(
                self.options,
                "the server offers no SASL mechanism that is supported",
                "use scram-sha-256 in the server's pg_hba.conf",
            ));
        }
        if self.options.require_channel_binding && mechanism != SCRAM_SHA_256_PLUS {
            return Err(self.not_bound());
        }
        let mut scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, scram.message(), self.wire.output())
            .map_err(|error| PgError::io(DURING, error))?;
        self.flush().await?;
        let (11, challenge) = self.request().await? else { return Err(unexpected(b'R')) };
        scram.update(&challenge).map_err(|error| self.scram_failure(&error))?;
        frontend::sasl_response(scram.message(), self.wire.output())
            .map_err(|error| PgError::io(DURING, error))?;
        self.flush().await?;
        let (12, outcome) = self.request().await? else { return Err(unexpected(b'R')) };
        // Here the server proves that it knows the password too.
        scram.finish(&outcome).map_err(|error| self.scram_failure(&error))?;
        self.expect_ok().await?;
        Ok(mechanism == SCRAM_SHA_256_PLUS)
    }

    fn not_bound(&self) -> PgError {
        handshake::cannot_authenticate(
            self.options,
            "the login would not be bound to the TLS channel, and channel binding is required",
            "use scram-sha-256 in the server's pg_hba.conf, and TLS",
        )
    }

    fn scram_failure(&self, error: &io::Error) -> PgError {
        handshake::cannot_authenticate(
            self.options,
            &format!("SCRAM authentication failed: {error}"),
            "is this the server the password is for?",
        )
    }

    /// Parameters and the cancel key, up to ReadyForQuery.
    async fn session_facts(&mut self, channel_bound: bool) -> Result<LoginFacts, PgError> {
        let mut facts = LoginFacts { channel_bound, ..LoginFacts::default() };
        loop {
            match self.message().await? {
                (b'S', body) => {
                    let mut parts = body.split(|b| *b == 0);
                    if parts.next() == Some(b"server_version") {
                        let version = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                        facts.server_version = version_number(&version);
                    }
                }
                (b'K', mut body) if body.len() >= 8 => {
                    facts.backend_pid = body.get_i32();
                    facts.secret_key = Bytes::copy_from_slice(&body);
                }
                (b'Z', _) => return Ok(facts),
                (kind, _) => return Err(unexpected(kind)),
            }
        }
    }
}

fn unexpected(kind: u8) -> PgError {
    PgError::protocol(DURING, format!("a message of type {:?} that does not belong here", char::from(kind)))
}
