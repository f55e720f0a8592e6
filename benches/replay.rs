//! Rows per second from recorded frames into a private target: decode, assemble, plan and apply, one session.
//!
//! The frames are recorded once a run from a private source. Every measured pass brings them to a target in the state
//! the source had before. Needs PostgreSQL's programs; `fsync` is off, commits are as the applier sets them.

// A benchmark may stop at the first surprise, and its group has no words of its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use repcloud::apply::checkpoint::{self, CheckpointWriter, StreamKey};
use repcloud::apply::group::GroupLimits;
use repcloud::apply::plan::PlanOptions;
use repcloud::apply::progress::Progress;
use repcloud::apply::route::RouteTable;
use repcloud::apply::target_session::TargetSession;
use repcloud::apply::{Applier, ApplyOptions};
use repcloud::capture::assemble::{AssembleOptions, Assembler};
use repcloud::cluster::{Cluster, ClusterBuilder};
use repcloud::decode::pgoutput::Decoder;
use repcloud::flow::planner;
use repcloud::model::Lsn;
use repcloud::pg::{self, ConnectOptions, Session, SslMode};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

const DATABASE: &str = "postgres";
const ROWS: usize = 60_000;
/// Rows there at the beginning of every pass.
const BASE: usize = 100_000;
const TABLE: &str = "CREATE TABLE items (id bigint PRIMARY KEY, customer int NOT NULL, amount numeric(12,2) NOT NULL, \
     created_at timestamptz NOT NULL, name text NOT NULL, details jsonb, status smallint NOT NULL, note text)";
const ROW: &str = "i, (i * 37 % 1000)::int, (i * 1.37)::numeric(12,2), timestamptz '2024-01-01 00:00:00.123456+00' + i * \
     interval '1 second', 'customer number ' || i, jsonb_build_object('items', jsonb_build_array(i, i + 1), 'paid', \
     true), (i % 5)::smallint, 'a note of some length'";

/// Transactions of 1,000 rows; `statement` has the number of the transaction as `t`. Keys are met in scattered order.
fn history(statement: &str) -> String {
    format!("DO $$ BEGIN FOR t IN 0..{} LOOP {statement} COMMIT; END LOOP; END $$", ROWS / 1_000 - 1)
}

fn histories() -> Vec<(&'static str, String)> {
    let insert = |rows: usize| {
        format!(
            "INSERT INTO items SELECT {ROW} FROM generate_series({BASE} + t * {rows} + 1, {BASE} + (t + 1) * {rows}) i;"
        )
    };
    let keys = |rows: usize, from: usize| {
        format!(
            "(SELECT (k::bigint * 7919 + {from}) % {BASE} + 1 FROM generate_series(t * {rows}, (t + 1) * {rows} - 1) k)"
        )
    };
    let change = "UPDATE items SET amount = amount + 1, status = (status + 1) % 5, created_at = created_at + interval '1 day'";
    // 7919 is prime to 100,000: no key comes twice in 60,000; a third of it later the deletes meet others.
    let third = 333;
    vec![
        ("insert", history(&insert(1_000))),
        ("update", history(&format!("{change} WHERE id IN {};", keys(1_000, 0)))),
        ("delete", history(&format!("DELETE FROM items WHERE id IN {};", keys(1_000, 0)))),
        (
            "mixed",
            history(&format!(
                "{} {change} WHERE id IN {}; DELETE FROM items WHERE id IN {};",
                insert(third),
                keys(third, 0),
                keys(third, 7919 * third * ROWS / 1_000)
            )),
        ),
        ("hot_keys", history(&format!("FOR n IN 1..10 LOOP {change} WHERE id <= 100; END LOOP;"))),
    ]
}

fn psql(cluster: &Cluster, sql: &str) -> String {
    cluster.psql(DATABASE, sql).unwrap()
}

/// What a slot sends for `sql`, frame by frame, and the number of row changes among it.
fn record(source: &Cluster, sql: &str) -> (Vec<Bytes>, u64) {
    psql(source, "TRUNCATE items");
    psql(source, &format!("INSERT INTO items SELECT {ROW} FROM generate_series(1, {BASE}) i"));
    psql(source, "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')");
    psql(source, sql);
    let options = "'proto_version', '1', 'publication_names', 'bench'";
    let text = psql(
        source,
        &format!(
            "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('bench', NULL, NULL, {options})"
        ),
    );
    psql(source, "SELECT pg_drop_replication_slot('bench')");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let frames: Vec<Bytes> =
        text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>().into()).collect();
    let changes = frames.iter().filter(|frame| matches!(frame[0], b'I' | b'U' | b'D')).count() as u64;
    (frames, changes)
}

/// A target that can be put back to the beginning.
struct Target {
    cluster: Cluster,
    key: StreamKey,
    routes: Arc<RouteTable>,
}

impl Target {
    fn start(runtime: &Runtime) -> Self {
        let cluster = server("target");
        psql(&cluster, TABLE);
        psql(&cluster, "CREATE TABLE first_rows (LIKE items)");
        psql(&cluster, &format!("INSERT INTO first_rows SELECT {ROW} FROM generate_series(1, {BASE}) i"));
        let key = StreamKey { source: "source".to_owned(), target: "target".to_owned() };
        let target = Target { cluster, key, routes: Arc::new(RouteTable::new(vec![common::route()])) };
        runtime.block_on(async {
            let session = target.connect().await;
            checkpoint::ensure_schema(&session).await.unwrap();
            checkpoint::record_intention(&session, &target.key, "slot", "1", 1).await.unwrap();
            checkpoint::record_slot(&session, &target.key, Lsn(1)).await.unwrap();
        });
        target
    }

    async fn connect(&self) -> Session {
        let host = self.cluster.socket_dir().display().to_string();
        let mut options = ConnectOptions::new(&host, self.cluster.port(), "postgres", DATABASE);
        options.sslmode = SslMode::Disable;
        pg::connect(&options).await.unwrap()
    }

    fn reset(&self) {
        psql(
            &self.cluster,
            "TRUNCATE items; INSERT INTO items SELECT * FROM first_rows ORDER BY id; VACUUM ANALYZE items; CHECKPOINT",
        );
    }

    /// One pass; gives its time, without the connecting.
    async fn replay(&self, frames: Vec<Bytes>) -> Duration {
        let session = self.connect().await;
        let (generation, _) = checkpoint::take_over(&session, &self.key).await.unwrap();
        let session = TargetSession::new(session, self.routes.clone(), true).await.unwrap();
        let writer = CheckpointWriter::new(session.session(), self.key.clone(), generation).await.unwrap();
        let progress = Progress::resume(Lsn(1), Lsn(1));
        let (applier, flusher, report) =
            Applier::new(session, self.connect().await, writer, progress, ApplyOptions::default());
        let (batches_in, batches) = mpsc::channel(4);
        let (groups_in, groups) = mpsc::channel(1);
        let (halt_in, halt) = watch::channel(false);
        let flushing = tokio::spawn(flusher.run(halt));

        let began = Instant::now();
        let planning = tokio::spawn(planner::run(
            self.routes.clone(),
            GroupLimits::default(),
            PlanOptions::default(),
            batches,
            groups_in,
        ));
        let applying = tokio::spawn(applier.run(groups));
        // As the slot's reader does it.
        let options = AssembleOptions { skip_before: Lsn(1), max_changes: 2_500, max_bytes: 1 << 20 };
        let mut assembler = Assembler::new(options);
        let mut decoder = Decoder::new(1);
        for frame in frames {
            assembler.push(decoder.decode(frame).unwrap()).unwrap();
            if assembler.is_full() {
                batches_in.send(assembler.take()).await.unwrap();
            }
        }
        batches_in.send(assembler.take()).await.unwrap();
        drop(batches_in);
        planning.await.unwrap();
        applying.await.unwrap().unwrap();
        let took = began.elapsed();

        assert_eq!(report.borrow().row_by_row, 0, "a group went row by row");
        halt_in.send_replace(true);
        flushing.await.unwrap().unwrap();
        took
    }
}

fn server(name: &str) -> Cluster {
    let builder = ClusterBuilder::new(name).setting("autovacuum", "off").setting("shared_buffers", "256MB");
    // As bench-peers: every pass begins with a checkpoint, and whole pages after it are the disk's measure, not ours.
    let builder = builder.setting("full_page_writes", "off");
    builder.setting("max_wal_size", "8GB").setting("checkpoint_timeout", "1h").start().unwrap()
}

fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let source = server("source");
    psql(&source, TABLE);
    psql(&source, "CREATE PUBLICATION bench FOR TABLE items");
    let target = Target::start(&runtime);
    let mut group = criterion.benchmark_group("replay");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(1));
    for (name, sql) in histories() {
        let (frames, changes) = record(&source, &sql);
        group.throughput(Throughput::Elements(changes));
        group.measurement_time(Duration::from_secs(5));
        let ran = Cell::new(false);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|passes| {
                ran.set(true);
                let mut sum = Duration::ZERO;
                for _ in 0..passes {
                    target.reset();
                    sum += runtime.block_on(target.replay(frames.clone()));
                }
                sum
            });
        });
        // One that was not asked for by name has not run.
        if !ran.get() {
            continue;
        }
        // A fast replay that is wrong is none.
        let hash = "SELECT count(*) || ' ' || sum(hashtext(t::text)::bigint) FROM items t";
        assert_eq!(psql(&source, hash), psql(&target.cluster, hash), "{name}: the target differs");
    }
    group.finish();
}

criterion_group!(replaying, benches);
criterion_main!(replaying);
