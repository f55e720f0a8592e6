//! Reads what a throttle goes by, no more often than it changes.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::Severity;

use super::{Known, ReplicaLag, ThrottleFacts, asks_for_pause, first_reason};
use crate::pg::failure::describe;
use crate::pg::{PgError, Session};
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::options::ThrottleOptions;

/// An answer is good for this long.
const FRESH: Duration = Duration::from_millis(500);
/// A rate is measured over no less.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long the user's query may take.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// Without pg_monitor the server shows that there is a walsender and nothing more. Those that decode (our own among
/// them) and base backups are no replicas. A replica that is caught up and idle has no lag.
const REPLICAS: &str = "\
SELECT coalesce(nullif(r.application_name, ''), 'pid ' || r.pid), r.state,
       extract(epoch FROM r.replay_lag)::float8, r.replay_lsn IS NOT NULL
  FROM pg_stat_replication r
 WHERE coalesce(r.state, '') <> 'backup'
   AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
 ORDER BY 1, 2";

const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";

/// Says whether the copy should pause. It asks on the session it is given, which must not be in a transaction.
#[derive(Debug)]
pub struct Throttle {
    options: ThrottleOptions,
    /// Where WAL was, and when.
    wal: Option<(f64, Instant)>,
    wal_rate: Option<f64>,
    last: Option<(Option<String>, Instant)>,
}

impl Throttle {
    /// A throttle that has measured nothing yet.
    pub fn new(options: ThrottleOptions) -> Self {
        Throttle { options, wal: None, wal_rate: None, last: None }
    }

    /// Another limit of the WAL rate, in bytes a second; `None`: no limit.
    pub fn set_max_wal_rate(&mut self, limit: Option<u64>) {
        self.options.max_wal_rate = limit;
        self.last = None;
    }

    /// Why the copy should pause now; `None`: it should not. What cannot be told is a reason to pause; only a lost
    /// connection and the like are errors. Asked again at once, it answers as before.
    pub async fn reason(&mut self, session: &Session) -> Result<Option<String>, AskError> {
        if self.options == ThrottleOptions::default() {
            return Ok(None);
        }
        if let Some((reason, at)) = &self.last
            && at.elapsed() < FRESH
        {
            return Ok(reason.clone());
        }
        let facts = self.facts(session).await?;
        let reason = first_reason(&self.options, &facts);
        self.last = Some((reason.clone(), Instant::now()));
        Ok(reason)
    }

    pub(in crate::repack) async fn facts(&mut self, session: &Session) -> Result<ThrottleFacts, AskError> {
        let mut facts = ThrottleFacts::default();
        if let Some(path) = &self.options.file {
            facts.file = Some(match tokio::fs::try_exists(path).await {
                Ok(exists) => Known::Is(exists),
                Err(error) => Known::Unknown(error.to_string()),
            });
        }
        if self.options.lag.is_some() {
            facts.replicas = Some(replicas(session).await?);
        }
        if let Some(query) = &self.options.query {
            facts.query = Some(ask(session, query).await?);
        }
        if self.options.max_wal_rate.is_some() {
            facts.wal_rate = self.measure(session).await?;
        }
        Ok(facts)
    }

    /// WAL written a second since the last measurement; the first has nothing to compare with.
    async fn measure(&mut self, session: &Session) -> Result<Option<f64>, AskError> {
        const WHAT: &str = "the position of the WAL";
        if let Some((_, at)) = self.wal
            && at.elapsed() < SHORTEST
        {
            return Ok(self.wal_rate);
        }
        let found = rows(session, WHAT, WAL, &[]).await?;
        let Some(row) = found.first() else { return Ok(self.wal_rate) };
        let (position, now) = (cell::<f64>(row, 0, WHAT)?, Instant::now());
        if let Some((before, at)) = self.wal.replace((position, now)) {
            self.wal_rate = Some((position - before) / now.duration_since(at).as_secs_f64());
        }
        Ok(self.wal_rate)
    }
}

async fn replicas(session: &Session) -> Result<Known<Vec<ReplicaLag>>, AskError> {
    const WHAT: &str = "the lag of replicas";
    let mut found = Vec::new();
    for row in rows(session, WHAT, REPLICAS, &[]).await? {
        let state: Option<String> = cell(&row, 1, WHAT)?;
        let lag: Option<f64> = cell(&row, 2, WHAT)?;
        let told: bool = cell(&row, 3, WHAT)?;
        let Some(state) = state else {
            // What is shown depends on our role alone.
            return Ok(Known::Unknown(
                "they are not visible to our role, which needs GRANT pg_monitor".to_owned(),
            ));
        };
        let lag = match (state.as_str(), lag.map(Duration::try_from_secs_f64)) {
            // One that only receives has a lag all the same, which says nothing.
            _ if !told => Known::Unknown("it does not tell what it has replayed".to_owned()),
            (_, Some(Ok(lag))) => Known::Is(lag),
            ("streaming", _) => Known::Is(Duration::ZERO),
            (state, _) => Known::Unknown(format!("its state is {state}")),
        };
        found.push(ReplicaLag { name: cell(&row, 0, WHAT)?, lag });
    }
    Ok(Known::Is(found))
}

/// The user's query, in a transaction that writes nothing and has its own limit on the server.
async fn ask(session: &Session, query: &str) -> Result<Known<bool>, AskError> {
    const WHAT: &str = "the answer to throttle_query";
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {}", QUERY_LIMIT.as_millis());
    session.batch_execute(&begin).await.map_err(AskError::of(WHAT))?;
    let answer = timeout(QUERY_LIMIT * 2, session.simple_query(query)).await;
    let known = match answer {
        Ok(Ok(messages)) => {
            let first = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0)),
                _ => None,
            });
            asks_for_pause(first.flatten())
        }
        // The session survives; the query is wrong, slow or forbidden, which its writer must see.
        Ok(Err(error)) if failure_of_the_query(&error) => {
            Known::Unknown(format!("it failed: {}", describe(&error)))
        }
        Ok(Err(error)) => return Err(AskError::of(WHAT)(error)),
        Err(_) => {
            session.cancel().await.map_err(|error| AskError { what: WHAT, error })?;
            let error = PgError::Timeout { during: format!("reading {WHAT}"), limit: QUERY_LIMIT * 2 };
            return Err(AskError { what: WHAT, error });
        }
    };
    session.batch_execute("ROLLBACK").await.map_err(AskError::of(WHAT))?;
    Ok(known)
}

/// An error that has not ended the session.
fn failure_of_the_query(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| db.parsed_severity() == Some(Severity::Error))
}
