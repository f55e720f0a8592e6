//! Sessions for tests: ask and compare, everything as text.

use std::ops::Deref;

use repcloud::cluster::Cluster;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One session; gives the `tokio_postgres::Client` by deref. Ends when dropped.
pub(crate) struct Db {
    client: Client,
    connection: JoinHandle<()>,
}

impl Db {
    /// Connects as superuser over the Unix socket.
    pub(crate) async fn connect(cluster: &Cluster, database: &str) -> Self {
        Self::connect_to(&cluster.conninfo(database)).await
    }

    /// Connects to any connection string, without TLS.
    pub(crate) async fn connect_to(conninfo: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(conninfo, NoTls)
            .await
            .unwrap_or_else(|error| panic!("connecting to {conninfo}: {error:?}"));
        let connection = tokio::spawn(async move {
            // A server stopped by the test ends the session; the next query of the test says so.
            let _ended = connection.await;
        });
        Self { client, connection }
    }

    /// Runs statements; the test fails with the server's message when one fails.
    pub(crate) async fn exec(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}\n{}", full(&error)));
    }

    /// Runs statements and gives the server's message when one fails.
    pub(crate) async fn try_exec(&self, sql: &str) -> Result<(), String> {
        self.client.batch_execute(sql).await.map_err(|error| full(&error))
    }

    /// Rows of a query, every value as the server prints it, NULL as `None`.
    pub(crate) async fn query_text(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages =
            self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}\n{}", full(&error)));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()).collect()
    }

    /// The one value of a query that gives one row with one column; NULL as an empty text.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let mut rows = self.query_text(sql).await;
        assert!(
            rows.len() == 1 && rows[0].len() == 1,
            "{sql}\ngave {} rows, one value was expected",
            rows.len()
        );
        rows.remove(0).remove(0).unwrap_or_default()
    }

    /// md5 over all rows of a table as text, in the order of that text: equal for equal content, whatever the order of
    /// rows. `table` is SQL, so quote names that need it.
    pub(crate) async fn table_hash(&self, table: &str) -> String {
        self.query_hash(&format!("select * from {table}")).await
    }

    /// The same over the rows of a query.
    pub(crate) async fn query_hash(&self, sql: &str) -> String {
        self.value(&format!(
            "select count(*) || ' ' || md5(coalesce(string_agg(r::text, E'\\n' order by r::text collate \"C\"), '')) \
             from ({sql}) r"
        ))
        .await
    }
}

impl Deref for Db {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Fails the test with both row counts when a table's content differs between two sessions.
pub(crate) async fn assert_same(source: &Db, target: &Db, table: &str) {
    let (source, target) = (source.table_hash(table).await, target.table_hash(table).await);
    assert_eq!(source, target, "{table} differs (rows, md5), left is the source");
}

fn full(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => format!("{} {}", server.code().code(), server.message()),
        None => format!("{error:?}"),
    }
}
