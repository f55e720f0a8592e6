//! An ordinary SQL session, on tokio-postgres.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{ChannelBinding, SslMode as RawSslMode, SslNegotiation};
use tokio_postgres::{CancelToken, Client, Config, Connection, Statement};
use tokio_util::task::AbortOnDropHandle;

use crate::pg::adapter::{Bound, CleartextRefused, Guarded, prepare};
use crate::pg::error::PgError;
use crate::pg::failure::Report;
use crate::pg::handshake::{self, Leg, Plan};
use crate::pg::options::{self, ConnectOptions};
use crate::pg::tls::{self, TlsSetup};

/// A connected SQL session; use it as the [`Client`] it dereferences to.
///
/// Its settings are pinned (`options.rs`). Dropping it closes the connection at once; a statement that still
/// runs on the server then goes on until it has something to send, so [`Session::cancel`] it first.
pub struct Session {
    client: Client,
    canceller: Canceller,
    server_version: u32,
    tls: bool,
    ended: watch::Receiver<Option<End>>,
    task: AbortOnDropHandle<()>,
    prepared: Mutex<HashMap<String, Statement>>,
}

/// How a session's connection ended: without an error, or with one (its text, class and SQLSTATE).
#[derive(Debug, Clone)]
enum End {
    Closed,
    Failed { sqlstate: Option<String>, text: String },
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("target", &self.canceller.options.target()).finish_non_exhaustive()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The server's version as `server_version_num` writes it (150004); 0 when the server did not say.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The statement, prepared on this session once and kept as long as it: for the few that are asked again and again.
    ///
    /// # Errors
    /// As [`Client::prepare`].
    pub async fn prepared(&self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// A handle that cancels what this session runs, from anywhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Asks the server to cancel the running statement, over a connection of its own. Returns when the server
    /// has taken the request; the statement itself then fails with SQLSTATE 57014, or was already done.
    pub async fn cancel(&self) -> Result<(), PgError> {
        self.canceller.cancel().await
    }

    /// Waits until the connection has ended, and tells why. For `select!` beside long work.
    pub async fn ended(&self) -> PgError {
        const DURING: &str = "the session was in use";
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        match end {
            Some(End::Failed { sqlstate: Some(sqlstate), text }) => {
                PgError::Server { sqlstate, message: text, hint: None }
            }
            Some(End::Failed { sqlstate: None, text }) => PgError::io(DURING, io::Error::other(text)),
            Some(End::Closed) | None => PgError::closed(DURING),
        }
    }

    /// Ends the session politely: waits (at most five seconds) until the server has been told.
    pub async fn close(self) -> Result<(), PgError> {
        const LIMIT: Duration = Duration::from_secs(5);
        let Session { client, task, .. } = self;
        drop(client);
        match timeout(LIMIT, task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(PgError::io("closing a session", io::Error::other(error))),
            Err(_) => Err(PgError::timeout("closing a session", LIMIT)),
        }
    }
}

/// Opens an SQL session with pinned settings.
///
/// Every text value then comes as PostgreSQL writes it under ISO dates, UTC, full float digits and hex bytea,
/// and names resolve in `pg_catalog` only.
pub async fn connect(options: &ConnectOptions) -> Result<Session, PgError> {
    let mut plan = Plan::new(options);
    let setup = if plan.may_use_tls() { Some(tls::setup(options).await?) } else { None };
    let deadline = Instant::now() + options.connect_timeout;
    loop {
        match attempt(options, plan.leg(), setup.as_ref(), deadline).await {
            Ok(session) => return Ok(session),
            Err(error) => plan.failed(error)?,
        }
    }
}

async fn attempt(
    options: &ConnectOptions,
    leg: Leg,
    setup: Option<&TlsSetup>,
    deadline: Instant,
) -> Result<Session, PgError> {
    let established = handshake::open(options, leg, setup, deadline).await?;
    let tls = established.is_tls();
    let (guarded, bind) = prepare(established);
    let config = raw_config(options, tls);
    let login = timeout_at(deadline, config.connect_raw(guarded, bind)).await;
    let (client, connection) = match login {
        Ok(result) => result.map_err(|error| login_failure(options, &error))?,
        Err(_) => {
            let during = format!("logging in to {}", options.target());
            return Err(PgError::timeout(&during, options.connect_timeout));
        }
    };
    let server_version = options::version_number(connection.parameter("server_version").unwrap_or_default());
    let canceller = Canceller {
        options: Arc::new(options.clone()),
        token: client.cancel_token(),
        setup: setup.filter(|_| tls).cloned(),
    };
    let (sender, ended) = watch::channel(None);
    let task = AbortOnDropHandle::new(tokio::spawn(drive(connection, sender)));
    let prepared = Mutex::default();
    let session = Session { client, canceller, server_version, tls, ended, task, prepared };
    if server_version >= 170_000 {
        // Unknown to older servers, so it cannot be a start-up option.
        let set = session.client.batch_execute("SET transaction_timeout = 0");
        match timeout_at(deadline, set).await {
            Ok(result) => result?,
            Err(_) => return Err(PgError::timeout("pinning a session's settings", options.connect_timeout)),
        }
    }
    Ok(session)
}

/// Moves the connection's bytes until it ends. Notices are dropped: what they say (a trigger's RAISE NOTICE) may
/// hold values.
async fn drive(mut connection: Connection<Guarded, Bound<Guarded>>, ended: watch::Sender<Option<End>>) {
    let end = loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(_notice)) => {}
            Some(Err(error)) => {
                let sqlstate = error.code().map(|code| code.code().to_owned());
                let text = match error.as_db_error() {
                    Some(db) => Report::of(db).line(),
                    None => crate::pg::failure::describe(&error),
                };
                break End::Failed { sqlstate, text };
            }
            None => break End::Closed,
        }
    };
    ended.send_replace(Some(end));
}

fn raw_config(options: &ConnectOptions, tls: bool) -> Config {
    let mut config = Config::new();
    config
        .user(&options.user)
        .dbname(&options.database)
        .application_name(&options.application_name)
        .options(options::startup_options())
        .ssl_mode(if tls { RawSslMode::Require } else { RawSslMode::Disable })
        // The handshake is behind us: it must not be asked for again.
        .ssl_negotiation(SslNegotiation::Direct);
    if options.require_channel_binding {
        config.channel_binding(ChannelBinding::Require);
    }
    if let Some(password) = &options.password {
        config.password(password.expose_secret());
    }
    config
}

fn login_failure(options: &ConnectOptions, error: &tokio_postgres::Error) -> PgError {
    use std::error::Error as _;
    if let Some(db) = error.as_db_error() {
        return handshake::refused_by_server(options, &Report::of(db));
    }
    let cause = error.source();
    let text = error.to_string();
    // tokio-postgres does not tell its kinds apart otherwise.
    if text == "invalid configuration" {
        return handshake::password_missing(options);
    }
    if let Some(cause) = cause.and_then(|cause| cause.downcast_ref::<io::Error>()) {
        if cause.get_ref().is_some_and(|inner| inner.is::<CleartextRefused>()) {
            return handshake::cannot_authenticate(
                options,
                handshake::CLEARTEXT_REASON,
                handshake::CLEARTEXT_HINT,
            );
        }
        if text != "authentication error" {
            return handshake::lost_at_login(options, cause);
        }
    }
    if error.is_closed() {
        return handshake::lost_at_login(options, &io::ErrorKind::UnexpectedEof.into());
    }
    let reason = cause.map_or(text.clone(), |cause| format!("{text}: {cause}"));
    handshake::cannot_authenticate(options, &reason, "check the password and the server's pg_hba.conf")
}

/// Cancels a session's statement from anywhere; cheap to clone.
#[derive(Clone)]
pub struct Canceller {
    options: Arc<ConnectOptions>,
    token: CancelToken,
    setup: Option<TlsSetup>,
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("target", &self.options.target()).finish_non_exhaustive()
    }
}

impl Canceller {
    /// See [`Session::cancel`].
    pub async fn cancel(&self) -> Result<(), PgError> {
        const DURING: &str = "cancelling a statement";
        let limit = self.options.connect_timeout;
        let deadline = Instant::now() + limit;
        let leg = if self.setup.is_some() { Leg::Tls } else { Leg::Plain };
        let established = handshake::open(&self.options, leg, self.setup.as_ref(), deadline).await?;
        let (mut stream, bind) = prepare(established);
        let work = async {
            self.token.cancel_query_raw(&mut stream, bind).await?;
            // The server closes the connection when it has acted on the request.
            let mut rest = [0; 16];
            match stream.read(&mut rest).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Err(error) => Err(PgError::io(DURING, error)),
            }
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(PgError::timeout(DURING, limit)))
    }
}
