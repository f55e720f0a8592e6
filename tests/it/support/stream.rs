//! A pair of databases with one stream between them.

use std::time::Duration;

use repcloud::cluster::Cluster;

use super::cluster::Pair;
use super::db::Db;
use super::process::{Finished, Repcloud};

/// Plenty for any one command of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// `[connections.NAME]` for a private server.
pub(crate) fn connection(name: &str, cluster: &Cluster, database: &str) -> String {
    format!(
        "[connections.{name}]\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\n",
        cluster.socket_dir().display(),
        cluster.port()
    )
}

/// Source and target servers, a session on each, and the program with a configuration.
pub(crate) struct Stream {
    pub(crate) pair: Pair,
    pub(crate) source: Db,
    pub(crate) target: Db,
    pub(crate) program: Repcloud,
}

impl Stream {
    /// Runs `schema` on the source, and `target_schema` on the target; `entries` are `[[replicate]]` bodies without
    /// source and target.
    pub(crate) async fn new(schema: &str, target_schema: &str, entries: &[&str]) -> Self {
        Self::over(Pair::start(), schema, target_schema, entries).await
    }

    /// The same over servers that are there.
    pub(crate) async fn over(pair: Pair, schema: &str, target_schema: &str, entries: &[&str]) -> Self {
        pair.create_database("app");
        let source = Db::connect(&pair.source, "app").await;
        let target = Db::connect(&pair.target, "app").await;
        source.exec(schema).await;
        target.exec(target_schema).await;
        let program = Repcloud::new(&configuration(&pair, entries));
        Stream { pair, source, target, program }
    }

    /// `stream --until caught-up`, which must end with 0.
    pub(crate) fn catch_up(&self) -> Finished {
        self.try_catch_up().expect_code(0)
    }

    /// `stream --until caught-up`, however it ends.
    pub(crate) fn try_catch_up(&self) -> Finished {
        self.program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT)
    }
}

/// The configuration text of a pair.
pub(crate) fn configuration(pair: &Pair, entries: &[&str]) -> String {
    let mut text = connection("prod", &pair.source, "app") + &connection("copy", &pair.target, "app");
    for entry in entries {
        text.push_str(&format!("[[replicate]]\nsource = \"prod\"\ntarget = \"copy\"\n{entry}\n"));
    }
    text
}
