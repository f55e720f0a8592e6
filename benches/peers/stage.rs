//! Three private servers with the same settings: a source, a target of PostgreSQL's subscription, a target of ours.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use repcloud::cluster::{Cluster, ClusterBuilder};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};

use crate::Options;

/// The limit of everything.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// Settings of all three, as a reader of the figures must know them.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "512MB"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "on"),
    ("logical_decoding_work_mem", "256MB"),
    // A subscription that is enabled again starts at once, not after five seconds.
    ("wal_retrieve_retry_interval", "100ms"),
];

pub(crate) struct Stage {
    pub(crate) source: Cluster,
    pub(crate) native: Cluster,
    pub(crate) ours: Cluster,
    bin: PathBuf,
}

impl Stage {
    pub(crate) fn start(options: &Options) -> anyhow::Result<Self> {
        let start = |name: &str| {
            let builder = ClusterBuilder::new(name);
            SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(name, value)).start()
        };
        let stage = Stage {
            source: start("source")?,
            native: start("native")?,
            ours: start("ours")?,
            bin: options.bin.clone(),
        };
        std::fs::create_dir_all(stage.home().join("config"))?;
        Ok(stage)
    }

    fn home(&self) -> PathBuf {
        self.ours.directory().join("repcloud")
    }

    /// A database of this name everywhere, and a configuration of this name; the source connection has it too, so that
    /// slots tell the databases apart.
    pub(crate) fn create(&self, name: &str) -> anyhow::Result<()> {
        for cluster in [&self.source, &self.native, &self.ours] {
            cluster.create_database(name)?;
        }
        self.configure(name, &self.source, "", "public.*")
    }

    /// The configuration of this name: these tables of `source`, with further lines for its connection.
    pub(crate) fn configure(
        &self,
        name: &str,
        source: &Cluster,
        settings: &str,
        tables: &str,
    ) -> anyhow::Result<()> {
        let connection = |connection: &str, cluster: &Cluster, settings: &str| {
            format!(
                "[connections.{connection}]\nhost = \"{}\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{name}\"\n{settings}\n",
                cluster.socket_dir().display(),
                cluster.port()
            )
        };
        let text = format!(
            "{}{}[[replicate]]\nsource = \"{name}\"\ntarget = \"copy\"\nmode = \"dml\"\ntables = [\"{tables}\"]\n",
            connection(name, source, settings),
            connection("copy", &self.ours, "")
        );
        std::fs::write(self.home().join(format!("config/{name}.toml")), text)?;
        Ok(())
    }

    /// `repcloud stream`, started.
    pub(crate) fn stream(&self, name: &str, until: bool) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.bin);
        command.env("REPCLOUD_HOME", self.home()).args(["stream", "--source", name, "--config", name, "-q"]);
        if until {
            command.args(["--until", "caught-up"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().context("cannot start repcloud")
    }
}

/// Waits for a child that must end well.
pub(crate) async fn finished(child: Child, what: &str) -> anyhow::Result<()> {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("{what}: too slow"))??;
    if !output.status.success() {
        bail!("{what} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A session for questions.
pub(crate) async fn connect(cluster: &Cluster, database: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(&cluster.conninfo(database), NoTls).await?;
    tokio::spawn(async move {
        // The next question says what has happened.
        let _ended = connection.await;
    });
    Ok(client)
}

/// Asks every few milliseconds until the query gives `true`.
pub(crate) async fn wait_true(client: &Client, what: &str, sql: &str) -> anyhow::Result<()> {
    wait_value::<bool>(client, what, sql, |value| *value).await.map(drop)
}

/// Asks every few milliseconds until the query gives a row with a value that will do.
pub(crate) async fn wait_value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    client: &Client,
    what: &str,
    sql: &str,
    good: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    let statement = client.prepare(sql).await?;
    let began = Instant::now();
    loop {
        if let Some(row) = client.query_opt(&statement, &[]).await?
            && let Some(value) = row.get::<_, Option<T>>(0)
            && good(&value)
        {
            return Ok(value);
        }
        if began.elapsed() > LIMIT {
            bail!("{what}: not within {} s", LIMIT.as_secs());
        }
        sleep(Duration::from_millis(4)).await;
    }
}
