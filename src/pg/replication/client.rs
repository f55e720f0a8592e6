//! A replication session between commands.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout, timeout_at};

use crate::model::Lsn;
use crate::pg::error::PgError;
use crate::pg::failure::Report;
use crate::pg::handshake::{self, Leg, Plan};
use crate::pg::options::ConnectOptions;
use crate::pg::replication::auth::{self, LoginFacts};
use crate::pg::replication::cancel::ReplicationCanceller;
use crate::pg::replication::command::{self, CreatedSlot, SlotRequest, SystemIdentity, TextRow};
use crate::pg::replication::stream::ReplicationStream;
use crate::pg::replication::timeline::{self, TimelineHistory};
use crate::pg::replication::wire::Wire;
use crate::pg::socket::Transport;
use crate::pg::tls::{self, TlsSetup};

/// The limit of a command that has no limit of its own.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long the server may take to end a command that was cancelled.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// A session in replication mode: replication commands, and SQL by the simple protocol.
///
/// Commands run one at a time. One that was dropped before its answer came (by `select!` or a limit) leaves the
/// session unusable: every later command says so. An exported snapshot lives until the next command.
pub struct ReplicationClient {
    wire: Wire<Transport>,
    facts: LoginFacts,
    canceller: ReplicationCanceller,
    command_limit: Duration,
    unfinished: bool,
}

impl fmt::Debug for ReplicationClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationClient")
            .field("target", &self.canceller.target())
            .field("backend_pid", &self.facts.backend_pid)
            .finish_non_exhaustive()
    }
}

/// A row as it came.
type RawRow = Vec<Option<Bytes>>;

impl ReplicationClient {
    /// Opens a replication session, by the same rules of TLS and authentication as [`crate::pg::connect`].
    pub async fn connect(options: &ConnectOptions) -> Result<Self, PgError> {
        let mut plan = Plan::new(options);
        let setup = if plan.may_use_tls() { Some(tls::setup(options).await?) } else { None };
        let deadline = Instant::now() + options.connect_timeout;
        loop {
            match Self::attempt(options, plan.leg(), setup.as_ref(), deadline).await {
                Ok(client) => return Ok(client),
                Err(error) => plan.failed(error)?,
            }
        }
    }

    async fn attempt(
        options: &ConnectOptions,
        leg: Leg,
        setup: Option<&TlsSetup>,
        deadline: Instant,
    ) -> Result<Self, PgError> {
        let established = handshake::open(options, leg, setup, deadline).await?;
        let is_tls = established.is_tls();
        let login = timeout_at(deadline, auth::login(options, established)).await;
        let (wire, facts) = login.unwrap_or_else(|_| {
            let during = format!("logging in to {}", options.target());
            Err(PgError::timeout(&during, options.connect_timeout))
        })?;
        let setup = setup.filter(|_| is_tls).cloned();
        let canceller =
            ReplicationCanceller::new(options, setup, facts.backend_pid, facts.secret_key.clone());
        Ok(ReplicationClient { wire, facts, canceller, command_limit: COMMAND_LIMIT, unfinished: false })
    }

    /// The server's version as `server_version_num` writes it (150004); 0 when the server did not say.
    pub fn server_version(&self) -> u32 {
        self.facts.server_version
    }

    /// The walsender's process id, as in `pg_stat_activity` and `pg_locks`.
    pub fn backend_pid(&self) -> i32 {
        self.facts.backend_pid
    }

    /// The connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.canceller.is_tls()
    }

    /// The login was bound to the TLS channel (SCRAM-SHA-256-PLUS).
    pub fn is_channel_bound(&self) -> bool {
        self.facts.channel_bound
    }

    /// The limit of commands without a limit of their own; 60 seconds at first.
    pub fn set_command_limit(&mut self, limit: Duration) {
        self.command_limit = limit;
    }

    /// Cancels this session's command from anywhere.
    pub fn canceller(&self) -> ReplicationCanceller {
        self.canceller.clone()
    }

    /// IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, PgError> {
        command::read_identity(&self.simple_query("IDENTIFY_SYSTEM").await?)
    }

    /// TIMELINE_HISTORY: where the timelines before `timeline` were left. Timeline 1 has no history, and the
    /// server is not asked.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<TimelineHistory, PgError> {
        if timeline <= 1 {
            return Ok(TimelineHistory::default());
        }
        let sql = format!("TIMELINE_HISTORY {timeline}");
        let rows = self.limited(&sql, self.command_limit, "reading the timeline history").await?;
        let content = rows.first().and_then(|row| row.get(1)).and_then(|cell| cell.as_ref());
        // Raw bytes, although the column is called bytea.
        timeline::parse(content.map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    /// CREATE_REPLICATION_SLOT. The server waits for every transaction that runs now; after `limit` the command
    /// is cancelled (no slot is left) and the error is a [`PgError::Timeout`]; [`Self::backend_pid`] finds in
    /// `pg_locks` what it waits for.
    pub async fn create_slot(
        &mut self,
        request: &SlotRequest,
        limit: Duration,
    ) -> Result<CreatedSlot, PgError> {
        let sql = command::create_slot(request, self.facts.server_version)?;
        let during = format!("creating replication slot {}", request.name);
        let rows = match timeout(limit, self.run(&sql, &during)).await {
            Ok(result) => result?,
            Err(_) => {
                self.abandon(&during).await?;
                return Err(PgError::timeout(&during, limit));
            }
        };
        command::read_created_slot(&text_rows(rows)?)
    }

    /// Cancels the running command and reads its answer to the end, so that the session is usable again.
    async fn abandon(&mut self, during: &str) -> Result<(), PgError> {
        self.canceller.cancel().await?;
        let wire = &mut self.wire;
        let drain = async {
            while wire.message(during).await?.0 != b'Z' {}
            Ok(())
        };
        timeout(CANCEL_LIMIT, drain).await.unwrap_or_else(|_| Err(PgError::timeout(during, CANCEL_LIMIT)))?;
        self.unfinished = false;
        Ok(())
    }

    /// DROP_REPLICATION_SLOT. With `wait` the server waits until an active slot is released (up to the command
    /// limit); without, an active slot is an error of class [`crate::pg::FailureClass::InUse`].
    pub async fn drop_slot(&mut self, name: &str, wait: bool) -> Result<(), PgError> {
        let sql = command::drop_slot(name, wait)?;
        let during = format!("dropping replication slot {name}");
        match timeout(self.command_limit, self.run(&sql, &during)).await {
            Ok(result) => result.map(|_| ()),
            Err(_) => {
                self.abandon(&during).await?;
                Err(PgError::timeout(&during, self.command_limit))
            }
        }
    }

    /// Runs SQL or a replication command by the simple protocol; every value as text. Rows of several statements
    /// come one after the other.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<TextRow>, PgError> {
        text_rows(self.limited(sql, self.command_limit, "running a command").await?)
    }

    async fn limited(&mut self, sql: &str, limit: Duration, during: &str) -> Result<Vec<RawRow>, PgError> {
        timeout(limit, self.run(sql, during)).await.unwrap_or_else(|_| Err(PgError::timeout(during, limit)))
    }

    async fn run(&mut self, sql: &str, during: &str) -> Result<Vec<RawRow>, PgError> {
        self.send(sql, during).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.wire.message(during).await? {
                (b'D', body) => rows.push(read_row(body, during)?),
                (b'E', body) => failure = Some(Report::parse(&body)),
                (b'Z', _) => break,
                // RowDescription, CommandComplete, EmptyQueryResponse, notices, parameters.
                (b'T' | b'C' | b'I' | b'N' | b'S', _) => {}
                (kind, _) => return Err(unexpected(kind, during)),
            }
        }
        self.unfinished = false;
        failure.map_or(Ok(rows), |report| Err(report.into_error()))
    }

    async fn send(&mut self, sql: &str, during: &str) -> Result<(), PgError> {
        if self.unfinished {
            return Err(PgError::protocol(during, "an earlier command of this session was left unfinished"));
        }
        frontend::query(sql, self.wire.output())
            .map_err(|_| PgError::config(format!("{during}: the command holds a NUL character")))?;
        self.unfinished = true;
        self.wire.flush(during, self.command_limit).await
    }

    /// START_REPLICATION of a logical slot, from `start` (the server goes forward to the slot's own position
    /// silently if that is later: check it before). Any plugin; its options as names and values.
    pub async fn start_replication(
        mut self,
        slot: &str,
        start: Lsn,
        plugin_options: &[(String, String)],
    ) -> Result<ReplicationStream, PgError> {
        let sql = command::start(slot, start, plugin_options)?;
        let during = format!("starting replication from slot {slot}");
        let limit = self.command_limit;
        let begun = timeout(limit, self.begin_copy(&sql, &during)).await;
        begun.unwrap_or_else(|_| Err(PgError::timeout(&during, limit)))?;
        Ok(ReplicationStream::new(self, slot.to_owned()))
    }

    async fn begin_copy(&mut self, sql: &str, during: &str) -> Result<(), PgError> {
        self.send(sql, during).await?;
        loop {
            match self.wire.message(during).await? {
                // CopyBothResponse: its body (formats) says nothing here.
                (b'W', _) => return Ok(()),
                (b'E', body) => return Err(Report::parse(&body).into_error()),
                (b'N' | b'S', _) => {}
                (kind, _) => return Err(unexpected(kind, during)),
            }
        }
    }

    pub(crate) fn wire(&mut self) -> &mut Wire<Transport> {
        &mut self.wire
    }

    pub(crate) fn last_received(&self) -> Instant {
        self.wire.last_received()
    }

    /// The stream has ended in order: commands may follow.
    pub(crate) fn finished(mut self) -> Self {
        self.unfinished = false;
        self
    }

    /// Ends the session politely (Terminate).
    pub async fn close(mut self) -> Result<(), PgError> {
        frontend::terminate(self.wire.output());
        self.wire.flush("closing a replication session", CANCEL_LIMIT).await
    }
}

pub(crate) fn unexpected(kind: u8, during: &str) -> PgError {
    PgError::protocol(during, format!("a message of type {:?} that does not belong here", char::from(kind)))
}

/// A DataRow: a count, then for each column its length (-1: NULL) and bytes.
fn read_row(mut body: Bytes, during: &str) -> Result<RawRow, PgError> {
    let short = || PgError::protocol(during, "a row that ends too early");
    let columns = body.try_get_u16().map_err(|_| short())?;
    let mut row = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        let length = body.try_get_i32().map_err(|_| short())?;
        row.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) if length <= body.len() => Some(body.split_to(length)),
            Ok(_) => return Err(short()),
        });
    }
    Ok(row)
}

fn text_rows(rows: Vec<RawRow>) -> Result<Vec<TextRow>, PgError> {
    let text = |cell: Bytes| {
        String::from_utf8(cell.into())
            .map_err(|_| PgError::protocol("reading an answer", "a value that is not UTF-8"))
    };
    rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(text).transpose()).collect()).collect()
}
