//! Capture by triggers: what it costs those who write, and how fast the queue is drained, beside mimeo's and beside a slot.
//!
//! The table and the changes are those of mimeo's baseline: transactions of 30 new rows, 50 changed ones and 20 deleted ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use repcloud::cluster::{Cluster, ClusterBuilder};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::Options;
use crate::machine::median;
use crate::processes::Sampler;
use crate::stage::{SETTINGS, Stage, connect, finished};

const NAME: &str = "queues";
/// Rows of a transaction.
const EACH: u64 = 100;
/// Each round's changes are made in so many pieces, in turn with the others'.
const PIECES: u64 = 4;

/// A way to capture, or none; each has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Nothing,
    Slot,
    Ours,
    Mimeo,
    Old,
}

const WAYS: [Way; 5] = [Way::Nothing, Way::Slot, Way::Ours, Way::Mimeo, Way::Old];

impl Way {
    fn table(self) -> &'static str {
        match self {
            Way::Nothing => "b_nothing",
            Way::Slot => "b_slot",
            Way::Ours => "b_ours",
            Way::Mimeo => "b_mimeo",
            Way::Old => "b_old",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Way::Nothing => "no capture, `wal_level = replica`",
            Way::Slot => "published, `wal_level = logical`",
            Way::Ours => "repcloud's trigger",
            Way::Mimeo => "mimeo's trigger (dml)",
            Way::Old => "trigger of repcloud 0.1a1 (Python)",
        }
    }
}

/// What was measured.
pub(crate) struct Queues {
    changes: u64,
    /// Of each piece.
    writing: Writing,
    /// Seconds, of each round.
    draining: BTreeMap<Way, Vec<f64>>,
    /// Who is missing, and why.
    missing: Vec<String>,
}

/// Microseconds a row that a writer took, and of the processor's.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

type Writing = BTreeMap<Way, Vec<Cost>>;

struct Bench<'a> {
    stage: &'a Stage,
    /// The source of those that need no slot.
    quiet: Cluster,
    transactions: u64,
    /// The first key that is deleted, and the first new one.
    deleted_from: u64,
    new_from: u64,
    ways: Vec<Way>,
    missing: Vec<String>,
}

pub(crate) async fn run(stage: &Stage, options: &Options) -> anyhow::Result<Queues> {
    let transactions = options.size(40, 2_000);
    let rounds = options.rounds as u64;
    println!("queues: {} changes, {rounds} rounds", transactions * EACH);
    stage.create(NAME)?;
    let builder = ClusterBuilder::new("quiet").setting("wal_level", "replica");
    let builder = SETTINGS.iter().fold(builder, |builder, (name, value)| builder.setting(name, value));
    let deleted_from = transactions * 50 + 1;
    let new_from = deleted_from + rounds * transactions * 20;
    let ways = vec![Way::Nothing, Way::Slot];
    let quiet = builder.start()?;
    let mut bench = Bench { stage, quiet, transactions, deleted_from, new_from, ways, missing: Vec::new() };
    bench.set_up().await?;
    let mut queues = Queues {
        changes: transactions * EACH,
        writing: BTreeMap::new(),
        draining: BTreeMap::new(),
        missing: bench.missing.clone(),
    };
    for round in 0..rounds {
        bench.write(round, &mut queues.writing).await?;
        bench.drain(round, &mut queues.draining).await?;
    }
    bench.same().await?;
    let slot = connect(&stage.source, NAME).await?;
    slot.execute("SELECT pg_drop_replication_slot('nobody')", &[]).await?;
    Ok(queues)
}

impl Bench<'_> {
    fn server(&self, way: Way) -> &Cluster {
        if way == Way::Slot { &self.stage.source } else { &self.quiet }
    }

    async fn set_up(&mut self) -> anyhow::Result<()> {
        self.quiet.create_database(NAME)?;
        for way in WAYS {
            self.server(way).psql(NAME, &self.table(way))?;
        }
        for cluster in [&self.quiet, &self.stage.source] {
            cluster.psql(NAME, WRITE)?;
        }
        self.stage.source.psql(NAME, "CREATE PUBLICATION bench FOR ALL TABLES; SELECT pg_create_logical_replication_slot('nobody', 'pgoutput')")?;
        let tables = format!("public.{}", Way::Ours.table());
        self.stage.configure(NAME, &self.quiet, "capture = \"trigger\"\n", &tables)?;
        finished(self.stage.stream(NAME, true)?, "first copy").await?;
        self.ways.push(Way::Ours);
        match self.mimeo().await {
            Ok(()) => self.ways.push(Way::Mimeo),
            Err(error) => self.missing.push(format!("{}: {error}", Way::Mimeo.title())),
        }
        match self.old_repcloud().await {
            Ok(()) => self.ways.push(Way::Old),
            Err(error) => self.missing.push(format!("{}: {error}", Way::Old.title())),
        }
        for cluster in [&self.quiet, &self.stage.source, &self.stage.native, &self.stage.ours] {
            cluster.psql(NAME, "VACUUM ANALYZE; CHECKPOINT")?;
        }
        Ok(())
    }

    fn table(&self, way: Way) -> String {
        let (name, rows) = (way.table(), self.new_from - 1);
        format!(
            "CREATE TABLE public.{name} (id bigint PRIMARY KEY, account_id int NOT NULL, status text NOT NULL, amount numeric(12,2) NOT NULL, \
             note text, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, flags int NOT NULL);
             INSERT INTO public.{name} SELECT i, i % 10007, 'st' || i % 7, (i % 100000) / 100.0, md5(i::text), \
             '2026-01-01'::timestamptz + i * interval '1 second', '2026-01-01'::timestamptz + i * interval '1 second', i % 16 \
             FROM generate_series(1, {rows}::int) i"
        )
    }

    /// As its manual says: the extension on the target, a schema of the same name on the source.
    async fn mimeo(&self) -> anyhow::Result<()> {
        let target = connect(&self.stage.native, NAME).await?;
        let there = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'mimeo')";
        anyhow::ensure!(target.query_one(there, &[]).await?.get::<_, bool>(0), "it is not installed");
        self.quiet.psql(NAME, "CREATE SCHEMA mimeo")?;
        let (socket, port) = (self.quiet.socket_dir().display(), self.quiet.port());
        target
            .batch_execute(&format!(
                "CREATE SCHEMA dblink; CREATE EXTENSION dblink SCHEMA dblink; CREATE SCHEMA mimeo; CREATE EXTENSION mimeo SCHEMA mimeo;
                 INSERT INTO mimeo.dblink_mapping_mimeo (data_source, username) VALUES ('host={socket} port={port} dbname={NAME}', 'postgres')"
            ))
            .await?;
        let make = format!("SELECT mimeo.dml_maker('public.{}', 1)", Way::Mimeo.table());
        target.batch_execute(&make).await?;
        Ok(())
    }

    /// Prepared, so that its trigger is there and its log fills.
    async fn old_repcloud(&self) -> anyhow::Result<()> {
        let program = std::env::var_os("REPCLOUD_BENCH_OLD").map(PathBuf::from);
        let program = program.context("scripts/old-repcloud.sh has not installed it")?;
        let home = self.quiet.directory().join("old");
        let folder = home.join(".repcloud");
        for inner in ["config", "pid", "logs"] {
            std::fs::create_dir_all(folder.join(inner))?;
        }
        let (socket, port, table) = (self.quiet.socket_dir().display(), self.quiet.port(), Way::Old.table());
        let text = format!(
            "pid_dir = \"~/.repcloud/pid\"\n[logging]\nlog_dir = \"~/.repcloud/logs\"\nlog_level = \"debug\"\nlog_dest = \"console\"\nlog_days_keep = \"4\"\n\
             [notifier]\nenable_email = false\n[connections.{NAME}]\nuser = \"postgres\"\npassword = \"any\"\nport = \"{port}\"\nhost = \"{socket}\"\n\
             database = \"{NAME}\"\nsslmode = \"prefer\"\nschemas = []\ntables = ['public.{table}']\nmax_replay_rows = \"100000\"\n\
             lock_timeout = \"3s\"\ncheck_time = \"10\"\nanalyze_tables = \"yes\"\ndeadlock_resolution = \"nothing\"\n"
        );
        std::fs::write(folder.join("config/default.toml"), text)?;
        for command in ["create_schema", "prepare_repack"] {
            let mut child = Command::new(&program);
            child.env("HOME", &home).args([command, "--connection", NAME]).kill_on_drop(true);
            child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            finished(child.spawn()?, command).await?;
        }
        let client = connect(&self.quiet, NAME).await?;
        let sql = format!("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.{table}'::regclass");
        let triggers: i64 = client.query_one(&sql, &[]).await?.get(0);
        anyhow::ensure!(triggers > 0, "it made no trigger");
        Ok(())
    }

    /// One round's changes to every table.
    async fn write(&self, round: u64, writing: &mut Writing) -> anyhow::Result<()> {
        let piece = self.transactions / PIECES;
        for number in 0..PIECES {
            for turn in 0..self.ways.len() {
                let way = self.ways[(number as usize + turn) % self.ways.len()];
                let client = connect(self.server(way), NAME).await?;
                let (from, before) = (number * piece, round * self.transactions);
                let call = format!(
                    "CALL public.gen('{}', {piece}, {}, {}, {})",
                    way.table(),
                    self.new_from + (before + from) * 30,
                    1 + from * 50,
                    self.deleted_from + (before + from) * 20,
                );
                let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
                let sampler = Sampler::start();
                sampler.watch("writer", pid.unsigned_abs());
                let began = Instant::now();
                client.batch_execute(&call).await?;
                let seconds = began.elapsed().as_secs_f64();
                let cpu = sampler.finish().get("writer").map_or(f64::NAN, |usage| usage.cpu_seconds);
                let each = 1e6 / (piece * EACH) as f64;
                writing.entry(way).or_default().push(Cost { wall: seconds * each, cpu: cpu * each });
            }
        }
        Ok(())
    }

    async fn drain(&self, round: u64, draining: &mut BTreeMap<Way, Vec<f64>>) -> anyhow::Result<()> {
        // Nothing is analyzed by itself here.
        self.quiet.psql(NAME, "VACUUM ANALYZE")?;
        let target = connect(&self.stage.native, NAME).await?;
        let mut contenders: Vec<Way> =
            self.ways.iter().copied().filter(|way| matches!(way, Way::Ours | Way::Mimeo)).collect();
        if round % 2 == 1 {
            contenders.reverse();
        }
        for way in contenders {
            let began = Instant::now();
            if way == Way::Ours {
                finished(self.stage.stream(NAME, true)?, "repcloud").await?;
            } else {
                let refresh =
                    format!("SELECT mimeo.refresh_dml('public.{}', p_limit := 10000000)", way.table());
                target.batch_execute(&refresh).await?;
            }
            let seconds = began.elapsed().as_secs_f64();
            println!("  round {} {}: {seconds:.2} s", round + 1, way.title());
            draining.entry(way).or_default().push(seconds);
        }
        Ok(())
    }

    /// A fast copy that is wrong is no copy.
    async fn same(&self) -> anyhow::Result<()> {
        let targets = [(Way::Ours, &self.stage.ours), (Way::Mimeo, &self.stage.native)];
        for (way, target) in targets.into_iter().filter(|(way, _)| self.ways.contains(way)) {
            let sql = format!(
                "SELECT count(*) || ' ' || sum(hashtextextended((id, account_id, status, amount, note, created_at, updated_at, flags)::text, 0)) FROM public.{}",
                way.table()
            );
            let hash =
                async |client: Client| anyhow::Ok(client.query_one(&sql, &[]).await?.get::<_, String>(0));
            let source = hash(connect(&self.quiet, NAME).await?).await?;
            let copy = hash(connect(target, NAME).await?).await?;
            anyhow::ensure!(source == copy, "{}: {source} on the source, {copy} on the target", way.title());
        }
        Ok(())
    }
}

/// The procedure of the baseline: so many transactions, from these keys on.
const WRITE: &str = "CREATE PROCEDURE public.gen(tbl text, ntx int, new_from bigint, changed_from bigint, gone_from bigint) LANGUAGE plpgsql AS $$
 DECLARE k bigint; BEGIN FOR k IN 0..ntx-1 LOOP
  EXECUTE format('INSERT INTO public.%I SELECT i, 1, ''new'', 1, md5(i::text), now(), now(), 1 FROM generate_series(%s, %s) i', tbl, new_from + k*30, new_from + k*30 + 29);
  EXECUTE format('UPDATE public.%I SET status = ''upd'', amount = amount + 1, updated_at = now() WHERE id BETWEEN %s AND %s', tbl, changed_from + k*50, changed_from + k*50 + 49);
  EXECUTE format('DELETE FROM public.%I WHERE id BETWEEN %s AND %s', tbl, gone_from + k*20, gone_from + k*20 + 19);
  COMMIT; END LOOP; END $$";

impl Queues {
    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "\nWithout a slot: {} changes in transactions of 100 (30 new rows, 50 changed, 20 deleted; 8 columns), as in mimeo's baseline. What writing costs, \
             medians of pieces in turn (one writer; \"CPU\" is its server process alone):\n\n\
             | | µs a row | CPU µs a row | CPU to none | CPU more than none | to mimeo's |\n|---|---:|---:|---:|---:|---:|\n",
            self.changes
        );
        let cost = |way: Way, of: fn(&Cost) -> f64| {
            self.writing.get(&way).map(|pieces| median(pieces.iter().map(of)))
        };
        let none = cost(Way::Nothing, |c| c.cpu).unwrap_or(f64::NAN);
        let mimeo = cost(Way::Mimeo, |c| c.cpu).map(|cost| cost - none);
        for way in WAYS {
            let (Some(wall), Some(cpu)) = (cost(way, |c| c.wall), cost(way, |c| c.cpu)) else { continue };
            let more = cpu - none;
            let ratio = mimeo.filter(|_| way != Way::Nothing).map(|mimeo| format!("{:.2}", more / mimeo));
            let ratio = ratio.unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} | **{wall:.1}** | {cpu:.1} | {:.2} | {more:.1} | {ratio} |",
                way.title(),
                cpu / none
            );
        }
        out += "\nDraining them, until the command (mimeo: `refresh_dml`) has ended:\n\n\
                | | seconds (each) | changes/s | to mimeo |\n|---|---|---:|---:|\n";
        let time = |way: Way| self.draining.get(&way).map(|rounds| median(rounds.iter().copied()));
        for (way, title) in
            [(Way::Mimeo, "mimeo `refresh_dml`"), (Way::Ours, "repcloud, `capture = \"trigger\"`")]
        {
            let Some(own) = time(way) else { continue };
            let each: Vec<String> =
                self.draining.get(&way).into_iter().flatten().map(|s| format!("{s:.2}")).collect();
            let faster =
                time(Way::Mimeo).map(|mimeo| format!("{:.1} times", mimeo / own)).unwrap_or_default();
            let _ = writeln!(
                out,
                "| {title} | **{own:.2}** ({}) | {:.0} | {faster} |",
                each.join(", "),
                self.changes as f64 / own
            );
        }
        for missing in &self.missing {
            let _ = writeln!(out, "\nNot measured: {missing}.");
        }
        out
    }
}
