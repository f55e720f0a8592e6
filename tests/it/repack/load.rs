//! Repacks under an application that goes on writing and reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{Live, connect};
use crate::support::db::Db;
use crate::support::scaled;

/// What one writer knows of its rows: table and key to value.
pub(crate) type Journal = BTreeMap<(usize, i64), i64>;

/// Writers and readers that note what they did; none may ever see an error.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pub(crate) transactions: Arc<AtomicU64>,
    writers: JoinSet<Journal>,
    readers: JoinSet<()>,
}

pub(crate) const TABLES: usize = 5;

/// Five tables with a view each; table 0 is `t0`.
pub(crate) fn schema(rows: usize) -> String {
    let mut sql = String::new();
    for t in 0..TABLES {
        sql.push_str(&format!(
            "CREATE TABLE t{t} (id bigint PRIMARY KEY, v bigint NOT NULL, u bigint UNIQUE DEFERRABLE INITIALLY DEFERRED, pad text);
             INSERT INTO t{t} SELECT -i, i, -i, repeat('x', 100) FROM generate_series(1, {rows}) i;
             DELETE FROM t{t} WHERE id % 2 = 0;
             CREATE INDEX ON t{t} (v);
             CREATE VIEW w{t} AS SELECT id, v FROM t{t} WHERE id > 0;"
        ));
    }
    sql.push_str(
        "CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO hot VALUES (1, 0); ANALYZE",
    );
    sql
}

impl Load {
    pub(crate) async fn start(live: &Live, writers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let transactions = Arc::new(AtomicU64::new(0));
        let mut load = Load {
            stop: stop.clone(),
            transactions: transactions.clone(),
            writers: JoinSet::new(),
            readers: JoinSet::new(),
        };
        for number in 0..writers {
            let db = connect(&live.cluster, "writer").await;
            let (stop, transactions) = (stop.clone(), transactions.clone());
            load.writers.spawn(async move {
                let mut writer = Writer::new(db, number);
                while !stop.load(Ordering::Relaxed) {
                    writer.transaction().await;
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
                writer.journal
            });
        }
        for number in 0..2 {
            let db = connect(&live.cluster, "reader").await;
            let stop = stop.clone();
            load.readers.spawn(async move {
                let mut random = StdRng::seed_from_u64(number);
                while !stop.load(Ordering::Relaxed) {
                    let t = random.random_range(0..TABLES);
                    db.exec(&format!("SELECT count(*), sum(v) FROM w{t} WHERE id < 2000; SELECT * FROM t{t} JOIN w{t} USING (id) LIMIT 5")).await;
                }
            });
        }
        load
    }

    /// Ends it; the journals of all writers.
    pub(crate) async fn finish(mut self) -> Journal {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Journal::new();
        while let Some(journal) = self.writers.join_next().await {
            all.append(&mut journal.expect("a client of the application failed"));
        }
        while let Some(read) = self.readers.join_next().await {
            read.expect("a reader of the application failed");
        }
        all
    }
}

struct Writer {
    db: Db,
    number: i64,
    next: i64,
    random: StdRng,
    journal: Journal,
}

impl Writer {
    fn new(db: Db, number: usize) -> Self {
        Writer {
            db,
            number: number as i64 + 1,
            next: 0,
            random: StdRng::seed_from_u64(number as u64 + 100),
            journal: Journal::new(),
        }
    }

    /// One to four changes, some inside a savepoint that is given up, some transactions given up whole.
    async fn transaction(&mut self) {
        let mut noted = self.journal.clone();
        let mut sql = String::from("BEGIN;");
        if self.random.random_bool(0.3) {
            sql.push_str("SET LOCAL synchronous_commit = off;");
        }
        for _ in 0..self.random.random_range(1..=4) {
            let given_up = self.random.random_bool(0.1);
            let before = given_up.then(|| noted.clone());
            if given_up {
                sql.push_str("SAVEPOINT s;");
            }
            sql.push_str(&self.change(&mut noted));
            if let Some(before) = before {
                sql.push_str("ROLLBACK TO SAVEPOINT s;");
                noted = before;
            }
        }
        sql.push_str("UPDATE hot SET n = n + 1;");
        if self.random.random_bool(0.05) {
            sql.push_str("ROLLBACK");
        } else {
            sql.push_str("COMMIT");
            *noted.entry((TABLES, self.number)).or_default() += 1;
            self.journal = noted;
        }
        self.db.exec(&sql).await;
    }

    fn change(&mut self, noted: &mut Journal) -> String {
        let table = self.random.random_range(0..TABLES);
        let mine: Vec<i64> = noted.range((table, 0)..(table + 1, 0)).map(|((_, id), _)| *id).collect();
        let value = self.random.random_range(0..1_000_000);
        let one = |random: &mut StdRng| mine[random.random_range(0..mine.len())];
        match self.random.random_range(0..10) {
            0..4 => {
                self.next += 1;
                let id = self.number * 1_000_000 + self.next;
                noted.insert((table, id), value);
                let pad = if self.random.random_bool(0.05) { 9000 } else { 20 };
                format!(
                    "INSERT INTO t{table} VALUES ({id}, {value}, {id}, repeat(md5('{id}'), {pad} / 32 + 1));"
                )
            }
            _ if mine.is_empty() => String::new(),
            4..7 => {
                let id = one(&mut self.random);
                noted.insert((table, id), value);
                format!("UPDATE t{table} SET v = {value} WHERE id = {id};")
            }
            7 => {
                // The key changes; a unique value moves from row to row under the deferred check.
                let id = one(&mut self.random);
                self.next += 1;
                let new = self.number * 1_000_000 + self.next;
                let value = noted.remove(&(table, id)).unwrap();
                noted.insert((table, new), value);
                format!("UPDATE t{table} SET id = {new} WHERE id = {id};")
            }
            8 if mine.len() > 1 => {
                let (a, b) = (one(&mut self.random), one(&mut self.random));
                if a == b {
                    return String::new();
                }
                format!(
                    "UPDATE t{table} x SET u = y.u FROM t{table} y WHERE (x.id, y.id) IN (({a}, {b}), ({b}, {a}));"
                )
            }
            _ => {
                let id = one(&mut self.random);
                noted.remove(&(table, id));
                format!("DELETE FROM t{table} WHERE id = {id};")
            }
        }
    }
}

/// The tables hold exactly what the writers noted.
pub(crate) async fn assert_journal(live: &Live, journal: &Journal) {
    for table in 0..TABLES {
        let rows =
            live.admin.query_text(&format!("SELECT id, v FROM t{table} WHERE id > 0 ORDER BY id")).await;
        let rows: Vec<(i64, i64)> = rows
            .iter()
            .map(|row| {
                let number = |i: usize| row[i].as_ref().unwrap().parse().unwrap();
                (number(0), number(1))
            })
            .collect();
        let noted: Vec<(i64, i64)> =
            journal.range((table, 0)..(table + 1, 0)).map(|((_, id), v)| (*id, *v)).collect();
        assert_eq!(rows.len(), noted.len(), "t{table}");
        assert_eq!(rows, noted, "t{table}");
    }
    let counted: i64 = journal.range((TABLES, 0)..).map(|(_, n)| n).sum();
    assert_eq!(
        live.admin.value("SELECT n FROM hot").await,
        counted.to_string(),
        "the row that everybody updates"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_no_client_notices_and_no_change_is_lost() {
    let live = Live::new(&schema(scaled(2_000, 50_000)), "").await;
    let load = Load::start(&live, 3).await;
    for round in 0..scaled(1, 20) {
        let (finished, reports) = tokio::task::block_in_place(|| {
            live.repack(&[
                "--table",
                "public.t0",
                "--table",
                "public.t1",
                "--table",
                "public.t2",
                "--table",
                "public.t3",
                "--table",
                "public.t4",
                "--table",
                "public.hot",
                "--attempts",
                "200",
                "--verify",
                "full",
            ])
        });
        let finished = finished.expect_code(0);
        assert!(reports.iter().all(|r| r["outcome"] == "swapped"), "round {round}: {finished:?}");
    }
    let transactions = load.transactions.load(Ordering::Relaxed);
    let journal = load.finish().await;
    assert!(transactions > 100, "the application was hardly there: {transactions} transactions");
    assert_journal(&live, &journal).await;
    live.assert_clean().await;
}
