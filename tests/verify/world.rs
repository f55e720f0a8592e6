//! A server with a source and a target database, and a comparison between them.

use repcloud::cluster::Cluster;
use repcloud::model::{Lsn, TableName};
use repcloud::pg::{self, ConnectOptions, Session};
use repcloud::verify::{self, Kind, VerifyError, VerifyOptions, VerifyOutcome, VerifySpec};

use crate::support::cluster::builder;
use crate::support::db::Db;

pub(crate) struct World {
    pub(crate) source: Db,
    pub(crate) target: Db,
    compared: (Session, Session),
    cluster: Cluster,
}

impl World {
    pub(crate) async fn start() -> Self {
        let cluster = builder("verify").start().unwrap();
        for database in ["source", "target"] {
            cluster.create_database(database).unwrap();
        }
        let source = Db::connect(&cluster, "source").await;
        let target = Db::connect(&cluster, "target").await;
        let compared =
            (open(&cluster, "postgres", "source").await, open(&cluster, "postgres", "target").await);
        Self { source, target, compared, cluster }
    }

    /// Runs statements on both sides.
    pub(crate) async fn both(&self, sql: &str) {
        self.source.exec(sql).await;
        self.target.exec(sql).await;
    }

    pub(crate) fn conninfo(&self, database: &str) -> String {
        self.cluster.conninfo(database)
    }

    pub(crate) async fn session(&self, database: &str) -> Session {
        open(&self.cluster, "postgres", database).await
    }

    pub(crate) async fn session_of(&self, user: &str, database: &str) -> Session {
        open(&self.cluster, user, database).await
    }

    /// Compares row by row where no stream runs.
    pub(crate) async fn try_verify(
        &self,
        spec: &VerifySpec,
        options: &VerifyOptions,
    ) -> Result<VerifyOutcome, VerifyError> {
        let (source, target) = &self.compared;
        verify::verify(source, target, spec, options, |_: Lsn| async { Ok(()) }, |_| {}).await
    }

    pub(crate) async fn verify(&self, spec: &VerifySpec) -> VerifyOutcome {
        self.try_verify(spec, &small()).await.unwrap()
    }

    pub(crate) async fn count(&self, spec: &VerifySpec) -> VerifyOutcome {
        let (source, target) = &self.compared;
        verify::count(source, target, spec, &small(), |_: Lsn| async { Ok(()) }, |_| {}).await.unwrap()
    }
}

async fn open(cluster: &Cluster, user: &str, database: &str) -> Session {
    let host = cluster.socket_dir().display().to_string();
    pg::connect(&ConnectOptions::new(host, cluster.port(), user, database)).await.unwrap()
}

/// Chunks so small that a hundred rows have every kind of border.
pub(crate) fn small() -> VerifyOptions {
    VerifyOptions { chunk_rows: 7, list_rows: 3, recheck_rows: 5, ..VerifyOptions::default() }
}

/// `public.<table>` on both sides.
pub(crate) fn spec(table: &str, key: &[&str]) -> VerifySpec {
    let name = TableName::new("public", table);
    VerifySpec::new(name.clone(), name, key.iter().map(|k| (*k).to_owned()).collect())
}

/// Missing, extra, different.
pub(crate) fn found(outcome: &VerifyOutcome) -> (u64, u64, u64) {
    assert_eq!(outcome.differences, outcome.missing + outcome.extra + outcome.different);
    assert_eq!(outcome.unsettled, 0);
    (outcome.missing, outcome.extra, outcome.different)
}

/// Kinds and keys of the samples, in order.
pub(crate) fn samples(outcome: &VerifyOutcome) -> Vec<(Kind, String)> {
    let mut list: Vec<_> = outcome
        .samples
        .iter()
        .map(|s| (s.kind, s.key.as_ref().map_or_else(String::new, |key| key.join("|"))))
        .collect();
    list.sort();
    list
}
