//! Making a slot, with a limit and the transactions it waits for named; a snapshot that outlives the command it came from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::capture::Plugin;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::model::{Events, quote_literal};
use crate::pg::replication::{CreatedSlot, ReplicationCanceller, ReplicationClient, SlotRequest, Snapshot};
use crate::pg::{self, ConnectOptions, PgError, Session};

/// How long the server may wait for running transactions when a slot is made.
const SLOT_LIMIT: Duration = Duration::from_secs(300);

/// What kind of slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotKind {
    /// Gone with the session.
    pub temporary: bool,
    /// Synchronised to standbys (PostgreSQL 17).
    pub failover: bool,
    /// Who decodes.
    pub plugin: Plugin,
}

/// The slot that is being made, so that whoever drops that work does not leave the server waiting on: a walsender that waits for
/// transactions does not notice that its client has gone.
#[derive(Debug, Clone, Default)]
pub struct Making(Arc<Mutex<Option<ReplicationCanceller>>>);

impl Making {
    fn set(&self, canceller: Option<ReplicationCanceller>) -> Option<ReplicationCanceller> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), canceller)
    }

    /// Ends what was dropped before it was done.
    pub(crate) async fn cancel(&self, events: &Events) {
        const LIMIT: Duration = Duration::from_secs(5);
        let Some(canceller) = self.set(None) else { return };
        let why = match timeout(LIMIT, canceller.cancel()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
        };
        events.warning(format!(
            "the source may go on making a slot until the transactions that it waits for have ended: it could not be told to stop: {why}"
        ));
    }
}

/// Makes a slot and exports its snapshot, which lasts until `replication`'s next command. While the server waits
/// for transactions that were running, they are named in warnings.
pub async fn create(
    replication: &mut ReplicationClient,
    source: &Session,
    name: &str,
    kind: SlotKind,
    making: &Making,
    events: &Events,
) -> Result<CreatedSlot, FlowError> {
    let request = SlotRequest {
        name: name.to_owned(),
        plugin: kind.plugin.as_str().to_owned(),
        temporary: kind.temporary,
        snapshot: Snapshot::Export,
        two_phase: false,
        failover: kind.failover,
    };
    let began = Instant::now();
    let mut waiting = String::new();
    making.set(Some(replication.canceller()));
    let slot = {
        let creation = replication.create_slot(&request, SLOT_LIMIT);
        tokio::pin!(creation);
        loop {
            match timeout(Duration::from_secs(5), &mut creation).await {
                Ok(result) => break result,
                Err(_) => {
                    let running = facts::running_transactions(source).await?;
                    waiting = running.join("; ");
                    events.warning(format!(
                        "slot \"{name}\" has waited {} s for the end of {waiting}",
                        began.elapsed().as_secs()
                    ));
                }
            }
        }
    };
    making.set(None);
    match slot {
        Ok(slot) => Ok(slot),
        Err(PgError::Timeout { .. }) => Err(FlowError::SlotTimeout {
            slot: name.to_owned(),
            seconds: SLOT_LIMIT.as_secs(),
            waiting_for: waiting,
        }),
        Err(error) => Err(FlowError::Source(error)),
    }
}

/// A snapshot, held open by a session of its own so that any number of others can import it.
#[derive(Debug)]
pub struct HeldSnapshot {
    holder: Session,
    id: String,
}

impl HeldSnapshot {
    /// Imports `exported` (a slot's snapshot) and exports it anew.
    pub async fn hold(options: &ConnectOptions, exported: &str) -> Result<Self, FlowError> {
        let holder = pg::connect(options).await.map_err(FlowError::Source)?;
        import(&holder, exported, "READ ONLY").await?;
        let row = holder
            .query_one("SELECT pg_export_snapshot()", &[])
            .await
            .map_err(|e| FlowError::Source(e.into()))?;
        let id = row.try_get(0).map_err(|e| FlowError::Source(e.into()))?;
        Ok(HeldSnapshot { holder, id })
    }

    /// A new one, of this moment, and what it shows (`pg_snapshot`).
    pub async fn take(options: &ConnectOptions) -> Result<(Self, String), FlowError> {
        let holder = pg::connect(options).await.map_err(FlowError::Source)?;
        let source = |e: tokio_postgres::Error| FlowError::Source(e.into());
        holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(source)?;
        let sql = "SELECT pg_export_snapshot(), pg_current_snapshot()::text";
        let row = holder.query_one(sql, &[]).await.map_err(source)?;
        let (id, shown) = (row.try_get(0).map_err(source)?, row.try_get(1).map_err(source)?);
        Ok((HeldSnapshot { holder, id }, shown))
    }

    /// The session that holds it, in a transaction under it.
    pub fn session(&self) -> &Session {
        &self.holder
    }

    /// Its identifier, for [`import`].
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Lets go of it.
    pub async fn release(self) -> Result<(), FlowError> {
        self.holder.close().await.map_err(FlowError::Source)
    }
}

/// Begins a transaction (`READ ONLY` or `READ WRITE`) of `session` under the snapshot.
pub async fn import(session: &Session, snapshot: &str, access: &str) -> Result<(), FlowError> {
    let snapshot = quote_literal(snapshot);
    session
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ {access}; SET TRANSACTION SNAPSHOT {snapshot}"
        ))
        .await
        .map_err(|e| FlowError::Source(e.into()))
}
