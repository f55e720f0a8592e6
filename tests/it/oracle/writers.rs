//! Several sessions whose transactions overlap, in an order that the seed decides.
//!
//! One statement is under way at a time, so a seed always gives the same history; a statement that would wait for
//! another session's lock fails at once and is rolled back like any other.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::db::Db;

use super::statements::{Act, Writer};
use super::tables::Table;

/// What came of the statements.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) done: usize,
    pub(super) failed: usize,
    pub(super) commits: usize,
    pub(super) rollbacks: usize,
}

struct Session {
    db: Db,
    /// Open savepoints, when a transaction is open.
    open: Option<usize>,
    /// Acts until it ends.
    left: usize,
}

/// The sessions.
pub(super) struct Writers {
    sessions: Vec<Session>,
    rng: StdRng,
    pub(super) tally: Tally,
    verbose: bool,
}

impl Writers {
    /// Connects `count` sessions.
    pub(super) async fn connect(conninfo: &str, count: usize, seed: u64) -> Self {
        let mut sessions = Vec::new();
        for _ in 0..count {
            let db = Db::connect_to(conninfo).await;
            db.exec(
                "SET lock_timeout = '4ms'; SET client_min_messages = error; SET deadlock_timeout = '10s'",
            )
            .await;
            sessions.push(Session { db, open: None, left: 0 });
        }
        let verbose = std::env::var_os("ORACLE_VERBOSE").is_some();
        Writers { sessions, rng: StdRng::seed_from_u64(seed), tally: Tally::default(), verbose }
    }

    /// This many acts over `tables`; transactions may stay open behind it.
    pub(super) async fn run(&mut self, tables: &[Table], acts: usize) {
        for _ in 0..acts {
            let index = self.rng.random_range(0..self.sessions.len());
            self.turn(tables, index).await;
        }
    }

    /// Ends all open transactions, most of them with COMMIT.
    pub(super) async fn settle(&mut self) {
        for index in 0..self.sessions.len() {
            if self.sessions[index].open.is_some() {
                self.end(index).await;
            }
        }
    }

    async fn turn(&mut self, tables: &[Table], index: usize) {
        match self.sessions[index].open {
            None => self.begin(index).await,
            Some(_) if self.sessions[index].left == 0 => {
                self.end(index).await;
                return;
            }
            Some(depth) => self.move_savepoint(index, depth).await,
        }
        let left = &mut self.sessions[index].left;
        *left = left.saturating_sub(1);
        if self.rng.random_bool(0.006) {
            let (a, b) = (self.rng.random_range(0..tables.len()), self.rng.random_range(0..tables.len()));
            let both = format!("TRUNCATE {}, {} CASCADE", tables[a].sql_name(), tables[b].sql_name());
            self.act(index, &Act::Sql(both)).await;
            return;
        }
        let table = &tables[self.rng.random_range(0..tables.len())];
        let writer = Writer { table, session: index, sessions: self.sessions.len() };
        for act in writer.acts(&mut self.rng) {
            if !self.act(index, &act).await {
                break;
            }
        }
    }

    /// Session 0 has the long transactions; one in five of the others writes statement by statement.
    async fn begin(&mut self, index: usize) {
        let left = if index == 0 { self.rng.random_range(20..60) } else { self.rng.random_range(1..10) };
        self.sessions[index].left = left;
        if index > 0 && self.rng.random_bool(0.2) {
            return;
        }
        self.command(index, "BEGIN").await;
        self.sessions[index].open = Some(0);
    }

    async fn move_savepoint(&mut self, index: usize, depth: usize) {
        let (command, depth) = match self.rng.random_range(0..10) {
            0..=2 => (format!("SAVEPOINT s{}", depth + 1), depth + 1),
            3 if depth > 0 => (format!("ROLLBACK TO SAVEPOINT s{depth}"), depth),
            4 if depth > 0 => (format!("RELEASE SAVEPOINT s{depth}"), depth - 1),
            _ => return,
        };
        self.command(index, &command).await;
        self.sessions[index].open = Some(depth);
    }

    async fn end(&mut self, index: usize) {
        let commit = self.rng.random_bool(0.9);
        let done = self.command(index, if commit { "COMMIT" } else { "ROLLBACK" }).await;
        self.sessions[index].open = None;
        if commit && done { self.tally.commits += 1 } else { self.tally.rollbacks += 1 }
    }

    /// False when it failed; then the last savepoint's work, or the whole transaction, is undone.
    async fn act(&mut self, index: usize, act: &Act) -> bool {
        let done = match act {
            Act::Sql(sql) => self.command(index, sql).await,
            Act::Copy(sql, data) => self.copy(index, sql, data).await,
        };
        if done {
            self.tally.done += 1;
            return true;
        }
        self.tally.failed += 1;
        match self.sessions[index].open {
            Some(depth @ 1..) => {
                self.command(index, &format!("ROLLBACK TO SAVEPOINT s{depth}")).await;
            }
            Some(0) => {
                self.command(index, "ROLLBACK").await;
                self.tally.rollbacks += 1;
                self.sessions[index].open = None;
            }
            None => {}
        }
        false
    }

    async fn command(&mut self, index: usize, sql: &str) -> bool {
        let result = self.sessions[index].db.try_exec(sql).await;
        if self.verbose {
            let start: String = sql.chars().take(300).collect();
            eprintln!("{index}: {start} -- {result:?}");
        }
        match result {
            Ok(()) => true,
            Err(error) => {
                // What the workload may run into; a mistake of the generator must not pass as bad luck.
                let known = [
                    "23505", "23P01", "23503", "23502", "23514", "55P03", "40P01", "40001", "22003", "57014",
                    "428C9",
                ];
                let start: String = sql.chars().take(1000).collect();
                assert!(known.iter().any(|code| error.starts_with(code)), "{start}\n{error}");
                false
            }
        }
    }

    /// The lock first: an error before COPY takes data leaves tokio-postgres one answer behind for good.
    async fn copy(&mut self, index: usize, sql: &str, data: &str) -> bool {
        let table = sql.trim_start_matches("COPY ").split(" (").next().unwrap_or_default().to_owned();
        let lock = format!("LOCK TABLE {table} IN ROW EXCLUSIVE MODE");
        if self.sessions[index].open.is_none() || !self.command(index, &lock).await {
            return self.sessions[index].open.is_none();
        }
        let sink = self.sessions[index].db.copy_in::<_, Bytes>(sql).await.expect("COPY begins");
        let mut sink = pin!(sink);
        sink.send(Bytes::copy_from_slice(data.as_bytes())).await.is_ok() && sink.finish().await.is_ok()
    }
}
