//! A load on the source whose every transaction can be recognised on the target, and what must hold of it there.
//!
//! Writer `w`'s transaction `n` adds `(w, n)` to `events` (with a key) and to `trail` (without one: nothing but exactly
//! once keeps a row from coming twice), moves money between two accounts, counts on a hot row, and adds, changes and
//! removes rows of `log` (logdel).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use repcloud::cluster::{Cluster, ClusterBuilder};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::wait;

/// Enough for anything that should take a moment, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const ACCOUNTS: u64 = 50;
const MONEY: u64 = 1000;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE public.events (writer int, n bigint, note text, PRIMARY KEY (writer, n));
    CREATE TABLE public.trail (writer int, n bigint);
    CREATE TABLE public.accounts (id int PRIMARY KEY, balance bigint NOT NULL, note text);
    CREATE TABLE public.hot (id int PRIMARY KEY, hits bigint NOT NULL, last text);
    CREATE TABLE public.log (id bigint PRIMARY KEY, v text UNIQUE);
    INSERT INTO accounts SELECT i, 1000, repeat('x', 100) FROM generate_series(1, 50) i;
    INSERT INTO hot SELECT i, 0, '' FROM generate_series(0, 2) i";

pub(crate) const ENTRIES: &[&str] = &[
    "mode = \"dml\"\ntables = [\"public.events\", \"public.accounts\", \"public.hot\"]",
    "mode = \"dml\"\npublish = \"insert\"\ntables = [\"public.trail\"]",
    "mode = \"logdel\"\ntables = [\"public.log\"]",
];

/// Servers of which the target waits for the disk where it promises to.
pub(crate) fn durable_pair(source: ClusterBuilder) -> Pair {
    Pair::start_with(source, builder("target").setting("fsync", "on"))
}

/// The pair of databases, empty but for the accounts, with first rows copied.
pub(crate) async fn loaded_stream(pair: Pair) -> Stream {
    let stream = Stream::over(pair, SCHEMA, "", ENTRIES).await;
    stream.catch_up();
    stream
}

/// `repcloud stream`, until it is stopped.
pub(crate) fn follow(stream: &Stream) -> Running {
    stream.program.spawn(&["stream", "--source", "prod"])
}

/// Writers that go on through restarts of the source.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(source: &Cluster, writers: u64) -> Self {
        Load::with(source, writers, "on")
    }

    /// Writers whose commits are acknowledged before they are written: a crash of the source undoes the last of them.
    pub(crate) fn asynchronous(source: &Cluster, writers: u64) -> Self {
        Load::with(source, writers, "off")
    }

    fn with(source: &Cluster, writers: u64, synchronous_commit: &str) -> Self {
        let conninfo =
            format!("{} options='-c synchronous_commit={synchronous_commit}'", source.conninfo("app"));
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let writers = (1..=writers)
            .map(|writer| tokio::spawn(write(conninfo.clone(), writer, stop.clone(), committed.clone())))
            .collect();
        Load { stop, committed, writers }
    }

    /// Transactions acknowledged so far.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Waits until so many more transactions have committed.
    pub(crate) async fn goes_on(&self, transactions: u64) {
        let goal = self.committed() + transactions;
        wait::until("the load goes on", LIMIT, async || self.committed() >= goal).await;
    }

    /// Ends the writers; a panic of one is the test's.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            tokio::time::timeout(LIMIT, writer)
                .await
                .expect("a writer ends")
                .expect("a writer does not panic");
        }
        self.committed.load(Ordering::Relaxed)
    }
}

async fn write(conninfo: String, writer: u64, stop: Arc<AtomicBool>, committed: Arc<AtomicU64>) {
    /// Between transactions: the machine is to be busy, not drowned.
    const PACE: Duration = Duration::from_millis(2);
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, NoTls).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        // Whether the last transaction committed is the server's to say.
        let last = client
            .query_one("SELECT coalesce(max(n), 0) FROM events WHERE writer = $1", &[&(writer as i32)])
            .await;
        if let Ok(row) = last {
            let mut n = row.get::<_, i64>(0) as u64 + 1;
            while !stop.load(Ordering::Relaxed) && client.batch_execute(&transaction(writer, n)).await.is_ok()
            {
                committed.fetch_add(1, Ordering::Relaxed);
                n += 1;
                tokio::time::sleep(PACE).await;
            }
        }
        connection.abort();
    }
}

fn transaction(writer: u64, n: u64) -> String {
    let (from, to) = (1 + (n * 7 + writer) % ACCOUNTS, 1 + (n * 13 + writer * 5) % ACCOUNTS);
    let amount = (n % 17) as i64 - 8;
    // In the order of keys, so that writers do not lock each other out.
    let (low, high) = (from.min(to), from.max(to));
    let hot = n % 3;
    let log = writer * 10_000_000 + n;
    let rows = if n.is_multiple_of(60) { 700 } else { 1 };
    let note = if n.is_multiple_of(10) { "repeat(md5('x'), 300)" } else { "'n'" };
    format!(
        "BEGIN;
         INSERT INTO events VALUES ({writer}, {n}, {note});
         INSERT INTO trail SELECT {writer}, {n} * 1000 + i FROM generate_series(1, {rows}) i;
         UPDATE accounts SET balance = balance - {amount} WHERE id = {low};
         SAVEPOINT s; INSERT INTO trail VALUES ({writer}, -1); ROLLBACK TO s;
         UPDATE accounts SET balance = balance + {amount} WHERE id = {high};
         INSERT INTO log VALUES ({log}, 'v{log}');
         UPDATE log SET v = 'w' || id WHERE id = {log} - 1;
         DELETE FROM log WHERE id = {log} - 4;
         UPDATE hot SET hits = hits + 1, last = '{writer}-{n}' WHERE id = {hot};
         COMMIT"
    )
}

/// What a reader of the target must find at any moment; says what is wrong.
///
/// Every writer's events are a gapless beginning of its history, the money is all there, hot rows have counted each event
/// once, and no row of the table without key is there twice.
pub(crate) const INVARIANT: &str = "
    SELECT concat_ws('; ',
        (SELECT 'money is ' || sum(balance) FROM accounts HAVING sum(balance) <> 50 * 1000),
        (SELECT 'events of a writer have gaps' FROM
            (SELECT 1 FROM events GROUP BY writer HAVING max(n) <> count(*) LIMIT 1) g),
        (SELECT 'hits are ' || sum(hits) FROM hot HAVING sum(hits) <> (SELECT count(*) FROM events)),
        (SELECT 'trail holds ' || count(*) || ' rows, ' || count(DISTINCT (writer, n)) || ' distinct' FROM trail
            HAVING count(*) <> count(DISTINCT (writer, n))),
        (SELECT 'trail and events differ' FROM trail HAVING count(DISTINCT (writer, n / 1000)) <> (SELECT count(*) FROM events)),
        (SELECT 'log holds ' || count(*) || ' rows' FROM log HAVING count(*) <> (SELECT count(*) FROM events)))";

/// Looks at the target again and again, in one statement and so one snapshot, through restarts of it.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, Vec<String>)>,
}

impl Reader {
    /// `invariant`: a query for one text, empty when all is well.
    pub(crate) fn start(target: &Cluster, invariant: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(look(target.conninfo("app"), invariant, stop.clone()));
        Reader { stop, task }
    }

    /// Ends it; fails the test when it ever saw anything wrong. Gives the number of looks.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, wrong) = tokio::time::timeout(LIMIT, self.task).await.expect("the reader ends").unwrap();
        assert!(wrong.is_empty(), "after {looks} looks a reader of the target saw: {wrong:?}");
        looks
    }
}

async fn look(conninfo: String, invariant: &'static str, stop: Arc<AtomicBool>) -> (u64, Vec<String>) {
    const PACE: Duration = Duration::from_millis(10);
    let (mut looks, mut wrong) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, connection)) = tokio_postgres::connect(&conninfo, NoTls).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) && wrong.len() < 3 {
            match client.query_one(invariant, &[]).await {
                Ok(row) => match row.get::<_, &str>(0) {
                    "" => looks += 1,
                    text => wrong.push(text.to_owned()),
                },
                Err(error)
                    if error.is_closed() || error.code().is_none_or(|c| c.code().starts_with("57P")) =>
                {
                    break;
                }
                Err(error) => wrong.push(format!("{error:?}")),
            }
            tokio::time::sleep(PACE).await;
        }
        connection.abort();
    }
    (looks, wrong)
}

/// Catches up and compares everything: the tables as they are, the logdel table by what was ever there.
pub(crate) async fn assert_all_arrived(stream: &mut Stream) {
    stream.catch_up();
    // The servers may have been restarted since the sessions began.
    stream.source = Db::connect(&stream.pair.source, "app").await;
    stream.target = Db::connect(&stream.pair.target, "app").await;
    let (source, target) = (&stream.source, &stream.target);
    assert_eq!(target.value(INVARIANT).await, "");
    for table in ["events", "trail", "accounts", "hot"] {
        assert_same(source, target, table).await;
    }
    let live = target.query_hash("SELECT id, v FROM log WHERE repcloud_source_deleted IS NULL").await;
    assert_eq!(
        source.query_hash("SELECT id, v FROM log").await,
        live,
        "live rows of log, left is the source"
    );
    let deleted = target.query_hash("SELECT id, v FROM log WHERE repcloud_source_deleted IS NOT NULL").await;
    let expected = "SELECT id, 'w' || id AS v FROM (SELECT writer * 10000000::bigint + n AS id FROM events) e \
                    WHERE NOT EXISTS (SELECT FROM log WHERE log.id = e.id)";
    assert_eq!(
        source.query_hash(expected).await,
        deleted,
        "deleted rows of log, left is what the source had"
    );
    assert_eq!(target.value("SELECT count(*) FROM repcloud.conflict").await, "0");
    assert_eq!(target.value("SELECT sum(balance) FROM accounts").await, (ACCOUNTS * MONEY).to_string());
}
