//! One private server, and a bloated table in a database that every run gets its own copy of.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use repcloud::cluster::{Cluster, ClusterBuilder};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::Options;
use crate::tools::Tool;

/// As a reader of the figures must know them.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("shared_buffers", "512MB"),
    ("maintenance_work_mem", "256MB"),
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
];

const TEMPLATE: &str = "bloated";

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) rows: u64,
    bin: PathBuf,
    old: PathBuf,
    has_pg_repack: bool,
}

impl Stage {
    pub(crate) fn start(options: &Options) -> anyhow::Result<Self> {
        let builder = ClusterBuilder::new("repack");
        let builder = SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
        let cluster = builder.start()?;
        let old = std::env::var_os("REPCLOUD_BENCH_OLD").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/old-repcloud/bin/rpcl"),
            PathBuf::from,
        );
        let available = "select count(*) from pg_available_extensions where name = 'pg_repack'";
        let has_pg_repack =
            cluster.psql("postgres", available)? == "1" && cluster.client("pg_repack").is_ok();
        let stage = Stage { cluster, rows: options.rows, bin: options.bin.clone(), old, has_pg_repack };
        stage.make_template()?;
        Ok(stage)
    }

    /// Why a tool cannot run here.
    pub(crate) fn missing(&self, tool: Tool) -> Option<String> {
        match tool {
            Tool::PgRepack if !self.has_pg_repack => Some("the server has no extension pg_repack".into()),
            Tool::OldRepcloud if !self.old.exists() => {
                Some("scripts/old-repcloud.sh has not installed it".into())
            }
            _ => None,
        }
    }

    /// A table of orders: two foreign keys (one each way), three indexes, a view; each row was updated once, so half of it is
    /// dead.
    fn make_template(&self) -> anyhow::Result<()> {
        let rows = self.rows;
        self.cluster.psql(
            "postgres",
            "create role app login replication password 'app'; create database bloated owner app",
        )?;
        self.cluster.psql(
            TEMPLATE,
            &format!(
                "alter schema public owner to app; set role app;
                 create table customer (id int primary key, name text);
                 insert into customer select n, 'customer ' || n from generate_series(1, 1000) n;
                 create table orders (id bigserial primary key, customer int not null references customer,
                     k int not null, v int not null default 0, pad text, at timestamptz not null default now())
                     with (autovacuum_enabled = false);
                 insert into orders (customer, k, pad)
                     select 1 + n % 1000, (n * 7919 % 100000)::int, repeat('x', 80) from generate_series(1, {rows}::bigint) n;
                 create index orders_k on orders (k);
                 create index orders_customer_at on orders (customer, at);
                 create table item (id bigserial primary key, orders bigint not null references orders, note text);
                 insert into item (orders, note) select 1 + n * 37 % {rows}, 'n' from generate_series(1, 20000) n;
                 create index on item (orders);
                 create view totals as select o.id, o.v, c.name from orders o join customer c on c.id = o.customer;
                 update orders set v = v + 1;
                 reset role; vacuum analyze"
            ),
        )?;
        if self.has_pg_repack {
            self.cluster.psql(TEMPLATE, "create extension pg_repack")?;
        }
        Ok(())
    }

    /// A fresh copy of the bloated table, in a database of this name.
    pub(crate) fn copy(&self, name: &str) -> anyhow::Result<()> {
        self.cluster.psql(
            "postgres",
            &format!("create database {name} template {TEMPLATE} strategy file_copy owner app"),
        )?;
        self.cluster.psql(name, "select sum(v) from public.orders; checkpoint")?;
        Ok(())
    }

    pub(crate) fn drop(&self, name: &str) -> anyhow::Result<()> {
        self.cluster.psql("postgres", &format!("drop database {name} with (force)"))?;
        Ok(())
    }

    /// What is made before the clock starts, as a user has it from an earlier day.
    pub(crate) async fn set_up(&self, tool: Tool, name: &str) -> anyhow::Result<()> {
        let mut command = match tool {
            Tool::VacuumFull | Tool::PgRepack => return Ok(()),
            Tool::OldRepcloud => {
                self.configure_old(name)?;
                let mut command = self.old_command();
                command.args(["create_schema", "--connection", name]);
                command
            }
            Tool::Jobs1 | Tool::Jobs2 => {
                self.configure(name)?;
                let mut command = self.our_command(name);
                command.args(["create-schema", "--connection", name]);
                command
            }
        };
        let output = command.output().await.context("cannot start it")?;
        anyhow::ensure!(output.status.success(), "set-up: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The command that is measured.
    pub(crate) fn command(&self, tool: Tool, name: &str) -> anyhow::Result<Command> {
        self.command_named("repack", tool, name)
    }

    /// The same; ours as another of its commands.
    pub(crate) fn command_named(&self, word: &str, tool: Tool, name: &str) -> anyhow::Result<Command> {
        let ours = |jobs| {
            let mut command = self.our_command(name);
            command.args([
                word,
                "--connection",
                name,
                "--table",
                "public.orders",
                "--capture=slot",
                "--json",
            ]);
            command.args(["--jobs", jobs]);
            command
        };
        let mut command = match tool {
            Tool::VacuumFull => {
                let mut command = Command::from(self.cluster.client("psql")?);
                command.args(["-X", "-c", "vacuum full public.orders", name]);
                command
            }
            Tool::PgRepack => {
                let mut command = Command::from(self.cluster.client("pg_repack")?);
                command.args(["--no-order", "-t", "public.orders", "-d", name]);
                command
            }
            Tool::OldRepcloud => {
                let mut command = self.old_command();
                command.args(["repack_tables", "--connection", name]);
                command
            }
            Tool::Jobs1 => ours("1"),
            Tool::Jobs2 => ours("2"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Ok(command)
    }

    fn home(&self) -> PathBuf {
        self.cluster.directory().join("repcloud")
    }

    fn our_command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.bin);
        command.env("REPCLOUD_HOME", self.home()).args(["--config", name]);
        command
    }

    fn configure(&self, name: &str) -> anyhow::Result<()> {
        let folder = self.home().join("config");
        std::fs::create_dir_all(&folder)?;
        let text = format!(
            "[connections.{name}]\nhost = \"{}\"\nport = {}\nuser = \"app\"\ndatabase = \"{name}\"\n",
            self.cluster.socket_dir().display(),
            self.cluster.port()
        );
        std::fs::write(folder.join(format!("{name}.toml")), text)?;
        Ok(())
    }

    fn old_command(&self) -> Command {
        let mut command = Command::new(&self.old);
        command.env("HOME", self.old_home());
        command
    }

    fn old_home(&self) -> PathBuf {
        self.cluster.directory().join("old")
    }

    fn configure_old(&self, name: &str) -> anyhow::Result<()> {
        let folder = self.old_home().join(".repcloud");
        for inner in ["config", "pid", "logs"] {
            std::fs::create_dir_all(folder.join(inner))?;
        }
        let text = format!(
            "pid_dir = \"~/.repcloud/pid\"\n[logging]\nlog_dir = \"~/.repcloud/logs\"\nlog_level = \"debug\"\nlog_dest = \"console\"\nlog_days_keep = \"4\"\n\
             [notifier]\nenable_email = false\n[connections.{name}]\nuser = \"app\"\npassword = \"app\"\nport = \"{}\"\nhost = \"{}\"\n\
             database = \"{name}\"\nsslmode = \"prefer\"\nschemas = []\ntables = ['public.orders']\nmax_replay_rows = \"100000\"\n\
             lock_timeout = \"3s\"\ncheck_time = \"10\"\nanalyze_tables = \"yes\"\ndeadlock_resolution = \"nothing\"\n",
            self.cluster.port(),
            self.cluster.socket_dir().display()
        );
        std::fs::write(folder.join("config/default.toml"), text)?;
        Ok(())
    }
}

/// A session for questions or load.
pub(crate) async fn connect(conninfo: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(async move {
        // The next question says what has happened.
        let _ended = connection.await;
    });
    Ok(client)
}
