//! One table on one server: sends the statements of [`SideSql`] and reads the answers. Every statement has a limit and is
//! cancelled when it reaches it; every statement is a transaction of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Row, Statement};

use crate::catalog::table_def::TableDef;
use crate::catalog::{self, CatalogError};
use crate::model::{Lsn, TableName};
use crate::pg::{PgError, Session};
use crate::verify::chunk::{Key, Range};
use crate::verify::digest::{Listing, Totals, add_row};
use crate::verify::error::{Place, VerifyError};
use crate::verify::judge::{Count, State};
use crate::verify::sql::{Hash, SideSql};

/// Hidden rows must be an error, not a difference; a wrong guess of the planner about a chunk must not last; nothing here
/// writes. `synchronous_commit`: what [`Server::position`] commits is flushed here and waits for no standby.
const SETTINGS: &str = "SET row_security = off; SET plan_cache_mode = force_custom_plan; SET jit = off; \
     SET default_transaction_read_only = on; SET synchronous_commit = local";

/// A session and the table it is used for.
#[derive(Debug, Clone)]
pub(crate) struct Server<'a> {
    pub(crate) place: Place,
    pub(crate) table: TableName,
    pub(crate) limit: Duration,
    session: &'a Session,
}

impl<'a> Server<'a> {
    /// Sets the session up. `limit`: of one short statement.
    pub(crate) async fn new(
        place: Place,
        table: &TableName,
        session: &'a Session,
        limit: Duration,
    ) -> Result<Self, VerifyError> {
        let server = Server { place, table: table.clone(), limit, session };
        server.limited("setting up the session", limit, session.batch_execute(SETTINGS)).await?;
        Ok(server)
    }

    /// The table's definition.
    pub(crate) async fn definition(&self) -> Result<TableDef, VerifyError> {
        let read = catalog::read_table(self.session, &self.table);
        let answer: Result<_, CatalogError> = match tokio::time::timeout(self.limit, read).await {
            Ok(answer) => answer,
            Err(_) => return Err(self.too_long("reading the definition", self.limit).await),
        };
        answer
            .map_err(|error| VerifyError::Catalog { place: self.place, error: Box::new(error) })?
            .ok_or_else(|| VerifyError::NoTable { place: self.place, table: self.table.clone() })
    }

    /// The encoding the database stores text in.
    pub(crate) async fn encoding(&self) -> Result<String, VerifyError> {
        const WHAT: &str = "reading the encoding";
        let query = self.session.query_one("SELECT current_setting('server_encoding')", &[]);
        let row = self.limited(WHAT, self.limit, query).await?;
        self.get(WHAT, &row, 0)
    }

    /// The best digest this server offers.
    pub(crate) async fn hash(&self) -> Result<Hash, VerifyError> {
        const WHAT: &str = "trying md5()";
        match self.limited(WHAT, self.limit, self.session.query_one("SELECT md5('')", &[])).await {
            Ok(_) => Ok(Hash::Md5),
            Err(VerifyError::Server { error, .. }) if matches!(*error, PgError::Server { .. }) => {
                Ok(Hash::Sha256)
            }
            Err(error) => Err(error),
        }
    }

    /// A position in the source's log behind everything that was visible before, and flushed: the stream gets there.
    ///
    /// A visible commit need not be flushed yet (`synchronous_commit = off`), and the end of what is written but not flushed
    /// may stay unsent for long; the commit of an empty message flushes everything before it.
    pub(crate) async fn position(&self) -> Result<Lsn, VerifyError> {
        const WHAT: &str = "reading the end of the log";
        let standby = self.session.query_one("SELECT pg_is_in_recovery()", &[]);
        let row = self.limited(WHAT, self.limit, standby).await?;
        let end = if self.get::<bool>(WHAT, &row, 0)? {
            "SELECT pg_last_wal_replay_lsn()::text"
        } else {
            let message = "SELECT pg_logical_emit_message(true, 'repcloud', '')";
            self.limited(WHAT, self.limit, self.session.batch_execute(message)).await?;
            "SELECT pg_current_wal_flush_lsn()::text"
        };
        let row = self.limited(WHAT, self.limit, self.session.query_one(end, &[])).await?;
        let text: String = self.get(WHAT, &row, 0)?;
        text.parse().map_err(|error| {
            let error = PgError::Protocol { during: WHAT.to_owned(), what: format!("{error}") };
            self.failed(WHAT, error)
        })
    }

    async fn limited<T>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, VerifyError> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(what, error.into())),
            Err(_) => Err(self.too_long(what, limit).await),
        }
    }

    /// Cancels what runs, so that the server does not go on for nobody.
    async fn too_long(&self, what: &'static str, limit: Duration) -> VerifyError {
        match self.session.cancel().await {
            Ok(()) => VerifyError::Timeout { place: self.place, table: self.table.clone(), what, limit },
            // A server that cannot even be asked to cancel is the bigger trouble.
            Err(error) => self.failed(what, error),
        }
    }

    fn failed(&self, what: &'static str, error: PgError) -> VerifyError {
        VerifyError::Server { place: self.place, table: self.table.clone(), what, error: Box::new(error) }
    }

    fn get<'r, T: FromSql<'r>>(&self, what: &'static str, row: &'r Row, at: usize) -> Result<T, VerifyError> {
        row.try_get(at).map_err(|error| self.failed(what, error.into()))
    }

    fn rows(&self, what: &'static str, row: &Row, at: usize) -> Result<u64, VerifyError> {
        Ok(u64::try_from(self.get::<i64>(what, row, at)?).unwrap_or(0))
    }
}

/// One side of a comparison.
pub(crate) struct Side<'a> {
    pub(crate) server: Server<'a>,
    sql: SideSql,
    keyed: bool,
    scan_limit: Duration,
    statements: HashMap<String, Statement>,
}

type Parameter<'p> = &'p (dyn ToSql + Sync);

impl<'a> Side<'a> {
    /// `scan_limit`: of one statement that may read the whole table.
    pub(crate) fn new(server: Server<'a>, sql: SideSql, scan_limit: Duration) -> Self {
        Side { server, keyed: sql.key_columns() > 0, sql, scan_limit, statements: HashMap::new() }
    }

    /// Number of rows, and what tells their versions.
    pub(crate) async fn count(&mut self) -> Result<Count, VerifyError> {
        const WHAT: &str = "counting rows";
        let rows = self.query(WHAT, self.scan_limit, self.sql.count(), &[]).await?;
        let Some(row) = rows.first() else { return Ok(Count::default()) };
        Ok(Count { rows: self.server.rows(WHAT, row, 0)?, versions: self.server.get(WHAT, row, 1)? })
    }

    /// Rows and digest of a range.
    pub(crate) async fn totals(&mut self, range: &Range) -> Result<Totals, VerifyError> {
        const WHAT: &str = "comparing a range of keys";
        let sql = self.sql.digest_of_range(range.ends());
        let rows = self.query(WHAT, self.range_limit(), sql, &ends(range)).await?;
        rows.first().map_or_else(|| Ok(Totals::default()), |row| self.read_totals(WHAT, row, 0))
    }

    /// The key of the row at `offset` of a range; `None` when the range has no more rows than that.
    pub(crate) async fn key_at(&mut self, range: &Range, offset: u64) -> Result<Option<Key>, VerifyError> {
        const WHAT: &str = "looking for the end of a chunk";
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let mut parameters = ends(range);
        parameters.push(&offset);
        let rows = self.query(WHAT, self.range_limit(), self.sql.key_at(range.ends()), &parameters).await?;
        rows.first().map(|row| self.read_key(WHAT, row, 0)).transpose()
    }

    /// The key of every `step`-th row of a range.
    pub(crate) async fn key_of_every(&mut self, range: &Range, step: u64) -> Result<Vec<Key>, VerifyError> {
        const WHAT: &str = "splitting a range of keys";
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let mut parameters = ends(range);
        parameters.push(&step);
        let sql = self.sql.key_of_every(range.ends());
        let rows = self.query(WHAT, self.range_limit(), sql, &parameters).await?;
        rows.iter().map(|row| self.read_key(WHAT, row, 0)).collect()
    }

    /// Key and digest of the rows of a range.
    pub(crate) async fn list_range(&mut self, range: &Range) -> Result<Listing, VerifyError> {
        const WHAT: &str = "reading the digests of a range";
        let sql = self.sql.list_range(range.ends());
        let rows = self.query(WHAT, self.range_limit(), sql, &ends(range)).await?;
        self.read_listing(WHAT, &rows)
    }

    /// Rows and digest by bucket.
    pub(crate) async fn buckets(&mut self, digits: usize) -> Result<BTreeMap<String, Totals>, VerifyError> {
        const WHAT: &str = "reading the digests of the table";
        let rows = self.query(WHAT, self.scan_limit, self.sql.buckets(digits), &[]).await?;
        rows.iter().map(|row| Ok((self.server.get(WHAT, row, 0)?, self.read_totals(WHAT, row, 1)?))).collect()
    }

    /// Key and digest of the rows of some buckets.
    pub(crate) async fn list_buckets(
        &mut self,
        digits: usize,
        buckets: &[String],
    ) -> Result<Listing, VerifyError> {
        const WHAT: &str = "reading the digests of differing parts";
        let rows = self.query(WHAT, self.scan_limit, self.sql.list_buckets(digits), &[&buckets]).await?;
        self.read_listing(WHAT, &rows)
    }

    /// What stands under each of `keys`, in their order.
    pub(crate) async fn states(&mut self, keys: &[&Key]) -> Result<Vec<State>, VerifyError> {
        if self.keyed { self.states_by_key(keys).await } else { self.states_by_digest(keys).await }
    }

    async fn states_by_key(&mut self, keys: &[&Key]) -> Result<Vec<State>, VerifyError> {
        const WHAT: &str = "reading rows again";
        let columns: Vec<Vec<&str>> = (0..self.sql.key_columns())
            .map(|at| keys.iter().map(|key| key.get(at).map_or("", String::as_str)).collect())
            .collect();
        let parameters: Vec<Parameter<'_>> = columns.iter().map(|column| column as Parameter<'_>).collect();
        // A key whose types differ between the two sides is found by its text, without an index.
        let rows = self.query(WHAT, self.scan_limit, self.sql.states_by_key(), &parameters).await?;
        let mut states = vec![State::default(); keys.len()];
        for row in &rows {
            let at = usize::try_from(self.server.rows(WHAT, row, 0)?).unwrap_or(0);
            if let Some(state) = at.checked_sub(1).and_then(|at| states.get_mut(at)) {
                *state = State {
                    rows: self.server.rows(WHAT, row, 1)?,
                    image: self.server.get(WHAT, row, 2)?,
                    versions: self.server.get(WHAT, row, 3)?,
                    same_key: self.server.get(WHAT, row, 4)?,
                    place: self.server.get(WHAT, row, 5)?,
                };
            }
        }
        Ok(states)
    }

    async fn states_by_digest(&mut self, keys: &[&Key]) -> Result<Vec<State>, VerifyError> {
        const WHAT: &str = "reading rows again";
        let digests: Vec<&str> = keys.iter().map(|key| key.first().map_or("", String::as_str)).collect();
        let rows = self.query(WHAT, self.scan_limit, self.sql.states_by_digest(), &[&digests]).await?;
        let mut found = HashMap::new();
        for row in &rows {
            let state = State {
                rows: self.server.rows(WHAT, row, 1)?,
                image: String::new(),
                versions: self.server.get(WHAT, row, 2)?,
                same_key: true,
                place: self.server.get(WHAT, row, 3)?,
            };
            found.insert(self.server.get::<String>(WHAT, row, 0)?, state);
        }
        Ok(digests.iter().map(|digest| found.remove(*digest).unwrap_or_default()).collect())
    }

    /// Chunks are made from the source's keys: between two of them the target may hold anything.
    fn range_limit(&self) -> Duration {
        match self.server.place {
            Place::Source => self.server.limit,
            Place::Target => self.scan_limit,
        }
    }

    async fn query(
        &mut self,
        what: &'static str,
        limit: Duration,
        sql: String,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, VerifyError> {
        let session = self.server.session;
        let statement = match self.statements.get(&sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.server.limited(what, self.server.limit, session.prepare(&sql)).await?;
                self.statements.entry(sql).or_insert(statement).clone()
            }
        };
        self.server.limited(what, limit, session.query(&statement, parameters)).await
    }

    fn read_totals(&self, what: &'static str, row: &Row, at: usize) -> Result<Totals, VerifyError> {
        Ok(Totals { rows: self.server.rows(what, row, at)?, sum: self.server.get(what, row, at + 1)? })
    }

    fn read_key(&self, what: &'static str, row: &Row, from: usize) -> Result<Key, VerifyError> {
        let columns = self.sql.key_columns().max(1);
        (from..from + columns).map(|at| self.server.get(what, row, at)).collect()
    }

    fn read_listing(&self, what: &'static str, rows: &[Row]) -> Result<Listing, VerifyError> {
        let columns = self.sql.key_columns().max(1);
        let mut listing = Listing::with_capacity(rows.len());
        for row in rows {
            add_row(&mut listing, self.read_key(what, row, 0)?, self.server.get(what, row, columns)?);
        }
        Ok(listing)
    }
}

fn ends(range: &Range) -> Vec<Parameter<'_>> {
    range.values().map(|value| value as Parameter<'_>).collect()
}
