//! Comparing while a writer changes the source and a slow stand-in for a stream follows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use repcloud::model::Lsn;
use repcloud::verify::{self, Progress, VerifyOptions, VerifyOutcome, VerifySpec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::support::db::Db;
use crate::support::{scaled, wait};
use crate::world::{World, samples, spec};

/// Changes on their way to the target; their delay is what makes the target lag.
const UNDER_WAY: usize = 120;

/// Further rounds until a row was seen that differed at first sight: without a key, what has arrived between the two
/// steps of a comparison is not even listed.
const MORE_ROUNDS: usize = 60;

/// A writer on the source and a follower on the target.
struct Load {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicU64>,
    /// Rows that differed at first sight.
    suspects: AtomicU64,
    applied: watch::Receiver<Lsn>,
    writer: JoinHandle<()>,
    follower: JoinHandle<()>,
}

impl Load {
    async fn start(world: &World, statements: fn(u64) -> String) -> Self {
        let (source, target) = (writer(world, "source").await, writer(world, "target").await);
        let stop = Arc::new(AtomicBool::new(false));
        let changes = Arc::new(AtomicU64::new(0));
        let (sender, mut changes_under_way) = mpsc::channel::<(String, Lsn)>(UNDER_WAY);
        let (reached, applied) = watch::channel(Lsn(0));
        let (stopping, counted) = (stop.clone(), changes.clone());
        let writer = tokio::spawn(async move {
            let mut number = 0;
            while !stopping.load(Ordering::Relaxed) {
                number += 1;
                let sql = statements(number);
                source.exec(&sql).await;
                let lsn = source.value("select pg_current_wal_insert_lsn()").await.parse().unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                sender.send((sql, lsn)).await.unwrap();
            }
        });
        let follower = tokio::spawn(async move {
            let mut behind = VecDeque::new();
            let mut writing = true;
            while writing || !behind.is_empty() {
                match changes_under_way.recv().await {
                    Some(change) => behind.push_back(change),
                    None => writing = false,
                }
                // Lag: while the writer writes, so many changes are always under way.
                if let Some((sql, lsn)) = next(&mut behind, writing) {
                    target.exec(&sql).await;
                    reached.send_replace(lsn);
                }
            }
            reached.send_replace(Lsn(u64::MAX));
        });
        Self { stop, changes, suspects: AtomicU64::new(0), applied, writer, follower }
    }

    async fn verify(&self, world: &World, spec: &VerifySpec) -> VerifyOutcome {
        let (source, target) = (world.session("source").await, world.session("target").await);
        let applied = self.applied.clone();
        let wait_applied = move |lsn: Lsn| {
            let mut applied = applied.clone();
            async move {
                let reached = applied.wait_for(|at| *at >= lsn).await;
                reached.map(|_| ()).map_err(|_| "the follower is gone".to_owned())
            }
        };
        let options =
            VerifyOptions { chunk_rows: 300, list_rows: 100, attempts: 40, ..VerifyOptions::default() };
        let mut suspects = 0;
        let progress = |now: Progress| suspects = suspects.max(now.suspects);
        let outcome = verify::verify(&source, &target, spec, &options, wait_applied, progress).await.unwrap();
        self.suspects.fetch_add(suspects, Ordering::Relaxed);
        outcome
    }

    async fn count(&self, world: &World, spec: &VerifySpec) -> VerifyOutcome {
        let (source, target) = (world.session("source").await, world.session("target").await);
        let applied = self.applied.clone();
        let wait_applied = move |lsn: Lsn| {
            let mut applied = applied.clone();
            async move { applied.wait_for(|at| *at >= lsn).await.map(|_| ()).map_err(|e| e.to_string()) }
        };
        let options = VerifyOptions { attempts: 40, ..VerifyOptions::default() };
        verify::count(&source, &target, spec, &options, wait_applied, |_| {}).await.unwrap()
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await.unwrap();
        self.follower.await.unwrap();
    }
}

fn next(behind: &mut VecDeque<(String, Lsn)>, writing: bool) -> Option<(String, Lsn)> {
    if writing && behind.len() <= UNDER_WAY { None } else { behind.pop_front() }
}

async fn writer(world: &World, database: &str) -> Db {
    let db = Db::connect_to(&world.conninfo(database)).await;
    db.exec("set synchronous_commit = off").await;
    db
}

/// Insert, update, delete, a changed key and a hot row, over rows 1 to 2000; the same on both sides.
fn changes(number: u64) -> String {
    // Every row meets every kind of change in turn, so that rows come and go for ever: soon after its end it is made again, so
    // that most are there at any time, however many changes there were.
    let row = (number / 5 + (4 - number % 5) * 137).wrapping_mul(2_654_435_761) % 2000 + 1;
    let make = format!(
        "insert into t select x, 'K' || x, 'made {number}' from (select {row} as x) r \
         where not exists (select from t where n = {row})"
    );
    match number % 5 {
        0 => format!("delete from t where n = {row}"),
        1 => make,
        2 => format!("update t set k = k || 'x' where n = {row} and length(k) < 12; {make}"),
        3 => "update t set v = v || '.' where n = 1000".to_owned(),
        _ => format!("update t set v = 'changed {number}' where n = {row}"),
    }
}

async fn under_load(columns: &str, key: &[&str]) {
    let world = World::start().await;
    world.both(&format!("create table t (n int {columns}; create index on t (n)")).await;
    world.both("insert into t select n, 'K' || n, 'v' from generate_series(1, 2000) n").await;
    // Rows nobody writes to.
    world.both("insert into t select n, 'Q' || n, 'quiet' from generate_series(3001, 3100) n").await;
    let spec = spec("t", key);
    let load = Load::start(&world, changes).await;
    let mut had = 0;
    let rounds = scaled(3, 20);
    for round in 0..rounds + MORE_ROUNDS {
        if round >= rounds && load.suspects.load(Ordering::Relaxed) > 0 {
            break;
        }
        let some = async || load.changes.load(Ordering::Relaxed) > had + 100;
        wait::until("the writer writes", Duration::from_secs(60), some).await;
        had = load.changes.load(Ordering::Relaxed);
        let outcome = load.verify(&world, &spec).await;
        assert_eq!(outcome.differences, 0, "round {round}: {outcome:?}");
        assert!(outcome.rows > 1000 && outcome.complete);
        assert_eq!(load.count(&world, &spec).await.differences, 0);
    }
    assert!(load.suspects.load(Ordering::Relaxed) > 0, "the target did not lag, so this tests nothing");
    // Real ones, under the same load.
    world.target.exec("update t set v = 'other' where n = 3050; delete from t where n = 3001").await;
    world.target.exec("insert into t values (3200, 'Q3200', 'extra')").await;
    let outcome = load.verify(&world, &spec).await;
    let expected = if key.is_empty() { (2, 2, 0) } else { (1, 1, 1) };
    assert_eq!((outcome.missing, outcome.extra, outcome.different), expected, "{outcome:?}");
    if let ["n"] = key {
        let keys: Vec<String> = samples(&outcome).into_iter().map(|(_, key)| key).collect();
        assert_eq!(keys, ["3001", "3200", "3050"]);
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_is_no_difference_in_key_order() {
    under_load("primary key, k text, v text)", &["n"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_is_no_difference_by_hash_of_the_key() {
    under_load(", k text collate \"en-x-icu\" primary key, v text)", &["k"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_is_no_difference_without_a_key() {
    under_load(", k text, v text)", &[]).await;
}
