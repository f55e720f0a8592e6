//! One session on the target: prepared statements, pipelined execution, row counts checked.
//!
//! A *flight* is a list of commands sent without waiting for answers in between. The answers are then awaited in
//! order; the first one that fails decides, what follows it failed for the same reason.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, poll};
use tokio_postgres::Statement;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::apply::encode::TextArray;
use crate::apply::parked::{PARK, PARK_PARAMETERS};
use crate::apply::plan::Step;
use crate::apply::route::{RouteId, RouteTable};
use crate::model::{TableName, quote_ident};
use crate::pg::{PgError, Session};
use crate::sql::empty::empty;
use crate::sql::shape::{ColumnSet, Shape};

/// One command of a flight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command<'a> {
    /// SQL without parameters or result.
    Sql(&'a str),
    /// A step of a plan.
    Step(&'a Step),
    /// A prepared statement of the checkpoint; must touch one row.
    Prepared(&'a Statement, &'a [String]),
}

/// The first command of a flight that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Index into the flight.
    pub(crate) at: usize,
    pub(crate) cause: Cause,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Cause {
    /// It touched another number of rows than it should.
    RowCount { expected: u64, touched: u64 },
    /// The server or the connection.
    Error { error: PgError, sqlstate: Option<String>, table: Option<TableName> },
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        let sqlstate = error.code().map(|c| c.code().to_owned());
        let db = error.as_db_error();
        let table = db.and_then(|db| Some(TableName::new(db.schema()?, db.table()?)));
        Cause::Error { error: error.into(), sqlstate, table }
    }
}

/// What is prepared once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum StatementKey {
    Shape(RouteId, Shape),
    Copy(RouteId, ColumnSet),
    StampAll(RouteId),
    Park,
}

/// See the module.
pub struct TargetSession {
    session: Session,
    routes: Arc<RouteTable>,
    statements: HashMap<StatementKey, Statement>,
}

impl std::fmt::Debug for TargetSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetSession").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Settings of a session that applies changes. Index access whatever the planner thinks of a table that was empty
/// when the statement was prepared; commits that do not wait for the disk (see `progress`).
const APPLY_SETTINGS: &str = "SET synchronous_commit = off; SET plan_cache_mode = force_generic_plan; SET jit = off; \
     SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off";

impl TargetSession {
    /// Takes a connected session and sets it up. `replica_role`: triggers and foreign keys of the target rest while
    /// changes are written (`session_replication_role`), which the role must be allowed to set.
    pub async fn new(session: Session, routes: Arc<RouteTable>, replica_role: bool) -> Result<Self, PgError> {
        session.batch_execute(APPLY_SETTINGS).await?;
        if replica_role {
            session.batch_execute("SET session_replication_role = replica").await?;
        }
        Ok(TargetSession { session, routes, statements: HashMap::new() })
    }

    /// The session itself.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// Sends `flight` and checks every answer.
    pub(crate) async fn run(&mut self, flight: &[Command<'_>]) -> Result<(), Failure> {
        for (at, command) in flight.iter().enumerate() {
            if let Command::Step(step) = command {
                self.prepare(step).await.map_err(|e| Failure { at, cause: e.into() })?;
            }
        }
        let mut start = 0;
        while start < flight.len() {
            // COPY talks in both directions: it ends a run of commands that need no answer to go on.
            let alone =
                |c: &Command<'_>| matches!(c, Command::Step(Step::Copy { .. } | Step::ReadAndReplace { .. }));
            let end = flight[start..].iter().position(alone).map_or(flight.len(), |i| start + i);
            self.pipelined(&flight[start..end]).await.map_err(|f| Failure { at: f.at + start, ..f })?;
            if let Some(Command::Step(step)) = flight.get(end) {
                let result = match step {
                    Step::Copy { route, columns, rows, data } => {
                        self.copy(*route, columns, *rows, data).await
                    }
                    Step::ReadAndReplace { route, key, new } => self.read_and_replace(*route, key, new).await,
                    _ => Ok(()),
                };
                result.map_err(|cause| Failure { at: end, cause })?;
            }
            start = end + 1;
        }
        Ok(())
    }

    async fn pipelined(&self, flight: &[Command<'_>]) -> Result<(), Failure> {
        type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), Cause>> + Send + 'a>>;
        let mut answers: Vec<Answer<'_>> =
            flight.iter().map(|command| -> Answer<'_> { Box::pin(self.one(*command)) }).collect();
        // The first poll of each sends it, in order.
        let mut done: Vec<Option<Result<(), Cause>>> = Vec::with_capacity(answers.len());
        for answer in &mut answers {
            done.push(match poll!(answer.as_mut()) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            });
        }
        let mut first: Result<(), Failure> = Ok(());
        for (at, (answer, ready)) in answers.into_iter().zip(done).enumerate() {
            let result = match ready {
                Some(result) => result,
                None => answer.await,
            };
            if let (Err(cause), true) = (result, first.is_ok()) {
                first = Err(Failure { at, cause });
            }
        }
        first
    }

    async fn one(&self, command: Command<'_>) -> Result<(), Cause> {
        match command {
            Command::Sql(sql) => Ok(self.session.batch_execute(sql).await?),
            Command::Prepared(statement, values) => {
                let touched = self.session.execute_raw(statement, values.iter().map(String::as_str)).await?;
                counted(1, touched)
            }
            Command::Step(Step::Rows { route, shape, rows, params }) => {
                let statement = self.statement(&StatementKey::Shape(*route, shape.clone()))?;
                let params: Vec<Param<'_>> = params.iter().map(Param).collect();
                let touched = self.session.execute_raw(statement, &params).await?;
                counted(*rows as u64, touched)
            }
            Command::Step(Step::Park { rows, params }) => {
                let statement = self.statement(&StatementKey::Park)?;
                let params: Vec<Param<'_>> = params.iter().map(Param).collect();
                counted(*rows as u64, self.session.execute_raw(statement, &params).await?)
            }
            Command::Step(Step::StampAll { route, stamp }) => {
                let statement = self.statement(&StatementKey::StampAll(*route))?;
                self.session.execute_raw(statement, &[Param(stamp)]).await?;
                Ok(())
            }
            Command::Step(Step::Truncate { routes, restart_identity }) => {
                let names: Vec<_> =
                    routes.iter().map(|&r| self.routes.route(r).shape.sql_name.as_str()).collect();
                Ok(self.session.batch_execute(&empty(&names, *restart_identity, false)).await?)
            }
            Command::Step(Step::Copy { .. } | Step::ReadAndReplace { .. }) => Ok(()),
        }
    }

    fn statement(&self, key: &StatementKey) -> Result<&Statement, Cause> {
        self.statements.get(key).ok_or_else(|| Cause::Error {
            error: PgError::Protocol {
                during: "applying".into(),
                what: "a statement was not prepared".into(),
            },
            sqlstate: None,
            table: None,
        })
    }

    /// True when no statement has to be prepared before `steps` can be sent.
    pub(crate) fn has_prepared(&self, steps: &[Step]) -> bool {
        steps.iter().filter_map(statement_key).all(|key| self.statements.contains_key(&key))
    }

    /// Prepares what `step` needs and is not prepared yet.
    async fn prepare(&mut self, step: &Step) -> Result<(), tokio_postgres::Error> {
        let Some(key) = statement_key(step).filter(|key| !self.statements.contains_key(key)) else {
            return Ok(());
        };
        let (sql, parameters) = match &key {
            StatementKey::Shape(route, shape) => {
                let table = &self.routes.route(*route).shape;
                (table.sql(shape), table.parameter_count(shape))
            }
            StatementKey::Copy(route, columns) => (self.routes.route(*route).shape.copy_in(columns), 0),
            StatementKey::StampAll(route) => {
                (self.routes.route(*route).shape.stamp_all().unwrap_or_default(), 1)
            }
            StatementKey::Park => (PARK.to_owned(), PARK_PARAMETERS),
        };
        let statement = self.session.prepare_typed(&sql, &vec![Type::TEXT_ARRAY; parameters]).await?;
        self.statements.insert(key, statement);
        Ok(())
    }

    async fn copy(
        &self,
        route: RouteId,
        columns: &ColumnSet,
        rows: usize,
        data: &Bytes,
    ) -> Result<(), Cause> {
        /// A chunk of COPY data: large enough to cost nothing, small enough not to be copied into a huge buffer.
        const CHUNK: usize = 64 << 10;
        let statement = self.statement(&StatementKey::Copy(route, columns.clone()))?;
        // When COPY is refused before it takes data, tokio-postgres has already sent a Sync too many: every later answer
        // would be taken for that of the next statement. Without its SQLSTATE the failure counts as the connection's,
        // and the session is given up.
        let broken =
            |error: tokio_postgres::Error| Cause::Error { error: error.into(), sqlstate: None, table: None };
        let sink = self.session.copy_in(statement).await.map_err(broken)?;
        let mut sink = std::pin::pin!(sink);
        let mut data = data.clone();
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK));
            sink.send(chunk).await?;
        }
        let copied = sink.finish().await?;
        counted(rows as u64, copied)
    }

    /// DELETE … RETURNING, then INSERT with what was not sent taken from the deleted row.
    async fn read_and_replace(
        &self,
        route: RouteId,
        key: &[TextArray],
        new: &[(u16, TextArray)],
    ) -> Result<(), Cause> {
        let table = &self.routes.route(route).shape;
        let returning: Vec<_> =
            table.columns.iter().map(|c| format!("t.{}::text", quote_ident(&c.name))).collect();
        let delete = format!("{} RETURNING {}", table.sql(&Shape::Delete), returning.join(", "));
        let delete = self.session.prepare_typed(&delete, &vec![Type::TEXT_ARRAY; key.len()]).await?;
        let key: Vec<Param<'_>> = key.iter().map(Param).collect();
        let params: Vec<&(dyn ToSql + Sync)> = key.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        let rows = self.session.query(&delete, &params).await?;
        counted(1, rows.len() as u64)?;
        let mut values = Vec::with_capacity(table.columns.len());
        for column in 0..table.columns.len() {
            let sent = new.iter().find(|(c, _)| usize::from(*c) == column);
            values.push(match (sent, rows.first()) {
                (Some((_, array)), _) => array.clone(),
                (None, Some(row)) => {
                    let text: Option<String> = row.try_get(column)?;
                    let value = text
                        .as_ref()
                        .map_or(crate::model::Value::Null, |t| crate::model::Value::Text(t.as_bytes()));
                    TextArray::of(std::iter::once(value)).map_err(|e| Cause::Error {
                        error: PgError::Protocol { during: "applying".into(), what: e.to_string() },
                        sqlstate: None,
                        table: None,
                    })?
                }
                (None, None) => return counted(1, 0),
            });
        }
        let insert = table.sql(&Shape::Insert((0..table.columns.len() as u16).collect()));
        let insert = self.session.prepare_typed(&insert, &vec![Type::TEXT_ARRAY; values.len()]).await?;
        let params: Vec<Param<'_>> = values.iter().map(Param).collect();
        counted(1, self.session.execute_raw(&insert, &params).await?)
    }
}

/// The statement that `step` needs prepared, if it needs one.
fn statement_key(step: &Step) -> Option<StatementKey> {
    match step {
        Step::Rows { route, shape, .. } => Some(StatementKey::Shape(*route, shape.clone())),
        Step::Copy { route, columns, .. } => Some(StatementKey::Copy(*route, columns.clone())),
        Step::StampAll { route, .. } => Some(StatementKey::StampAll(*route)),
        Step::Park { .. } => Some(StatementKey::Park),
        Step::Truncate { .. } | Step::ReadAndReplace { .. } => None,
    }
}

fn counted(expected: u64, touched: u64) -> Result<(), Cause> {
    if expected == touched { Ok(()) } else { Err(Cause::RowCount { expected, touched }) }
}

/// A parameter that is encoded already.
#[derive(Debug)]
struct Param<'a>(&'a TextArray);

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT_ARRAY
    }

    to_sql_checked!();
}

impl Cause {
    /// The table it is about, where the server says so.
    pub(crate) fn table(&self) -> Option<TableName> {
        match self {
            Cause::Error { table, .. } => table.clone(),
            Cause::RowCount { .. } => None,
        }
    }

    /// Without values.
    pub(crate) fn text(&self) -> String {
        match self {
            Cause::RowCount { touched: 0, .. } => "the row is not there".to_owned(),
            Cause::RowCount { expected, touched } => {
                format!("{touched} rows were touched instead of {expected}")
            }
            Cause::Error { error, .. } => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        }
    }
}
