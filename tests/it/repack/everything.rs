//! A table with everything of the whitelist, under writers and readers that use all of it, repacked and cut off in every state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use super::{Capture, LIMIT, Live};
use crate::repack_dependents::whole::EVERYTHING;
use crate::repack_dependents::world::dump;
use crate::support::cluster::has_wal2json;
use crate::support::db::Db;
use crate::support::wait::until;

const TABLE: [&str; 4] = ["--table", "public.t", "--attempts", "200"];

/// So that the writer may change what it wrote.
const MORE: &str = "CREATE POLICY changed ON t FOR UPDATE TO writer USING (true);
    CREATE POLICY removed ON t FOR DELETE TO writer USING (true)";

/// What the application knows of its rows.
type Journal = BTreeMap<i64, i64>;

const READS: [&str; 7] = [
    "SELECT count(*) FROM t",
    "SELECT * FROM v3 LIMIT 3",
    "SELECT sum(amount) FROM v1",
    "SELECT count(*) FROM v4",
    "SELECT sum(n) FROM m1",
    "SELECT n FROM m2",
    "SELECT total()",
];

struct Application {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Journal>,
    reader: JoinHandle<u32>,
}

impl Application {
    async fn start(live: &Live) -> Application {
        let stop = Arc::new(AtomicBool::new(false));
        let (writer, reader) = (live.session("writer").await, live.session("reader").await);
        let (stopped, also) = (stop.clone(), stop.clone());
        Application {
            stop,
            writer: tokio::spawn(async move { write(&writer, &stopped).await }),
            reader: tokio::spawn(async move {
                let mut reads = 0;
                while !also.load(Ordering::Relaxed) {
                    // Each by itself: together they would hold the table while they wait for a view.
                    for sql in READS {
                        reader.exec(sql).await;
                    }
                    reads += 1;
                }
                reads
            }),
        }
    }

    async fn finish(self) -> Journal {
        self.stop.store(true, Ordering::Relaxed);
        let reads = self.reader.await.expect("a reader failed");
        let journal = self.writer.await.expect("a writer failed");
        assert!(reads > 10 && journal.len() > 10, "{reads} reads, {} rows", journal.len());
        journal
    }
}

async fn write(db: &Db, stop: &AtomicBool) -> Journal {
    let mut journal = Journal::new();
    let mut round = 0_i64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let customer = round % 30 + 1;
        let sql = format!(
            "INSERT INTO t (customer, amount, doc) VALUES ({customer}, 5, '{{\"n\": {round}}}') RETURNING id"
        );
        let id: i64 = db.value(&sql).await.parse().unwrap();
        let last = journal.last_key_value().map_or(0, |(last, _)| *last);
        assert!(id > last, "{id} after {last}: the sequence went back");
        journal.insert(id, 5);
        db.exec(&format!("UPDATE t SET amount = amount + {customer} WHERE id = {id}")).await;
        journal.insert(id, 5 + customer);
        match round % 4 {
            0 => {
                db.exec(&format!("DELETE FROM t WHERE id = {id}")).await;
                journal.remove(&id);
            }
            // A call that waits in a bound body for the exchange is told to try again, and nothing of it is lost.
            1 => {
                let sql = format!("CALL forget({id})");
                while let Err(error) = db.try_exec(&sql).await {
                    assert!(error.starts_with("40001"), "{error}");
                }
                journal.remove(&id);
            }
            2 => db.exec(&format!("INSERT INTO lines SELECT coalesce(max(n), 0) + 1, {id} FROM lines")).await,
            _ => db.exec("INSERT INTO v3 (id) VALUES (1)").await,
        }
    }
    journal
}

/// What must be as it was: the schema, and the rows nobody writes.
async fn picture(live: &Live) -> (Vec<String>, String) {
    let rows = "SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY id)) FROM t WHERE note IS NULL";
    (dump(&live.cluster, "app"), live.admin.value(rows).await)
}

async fn compare(live: &Live, before: &(Vec<String>, String), when: &str) {
    let after = picture(live).await;
    let differs =
        |a: &[String], b: &[String]| a.iter().filter(|p| !b.contains(p)).cloned().collect::<Vec<_>>();
    let (gone, new) = (differs(&before.0, &after.0), differs(&after.0, &before.0));
    assert_eq!((gone, new), (Vec::new(), Vec::new()), "{when}: gone and new");
    assert_eq!((before.0.len(), &before.1), (after.0.len(), &after.1), "{when}");
    let mut left = live.left_behind().await;
    left.retain(|row| row != "publication pub" && row != "constraint later");
    assert!(left.is_empty(), "{when}: left behind: {left:?}");
}

async fn assert_rows(live: &Live, journal: &Journal) {
    let sql = "SELECT id, amount::bigint FROM t WHERE doc ? 'n' ORDER BY id";
    let rows = live.admin.query_text(sql).await;
    let found: Journal = rows
        .iter()
        .map(|row| {
            let number = |at: usize| row[at].as_ref().unwrap().parse().unwrap();
            (number(0), number(1))
        })
        .collect();
    assert_eq!(&found, journal);
}

/// Each state but the last: where the process is held until it is killed.
const STATES: [&str; 7] =
    ["planned", "shadow_ready", "rows_copied", "indexes_built", "caught_up", "verified", "swapped"];

/// Whoever ends this state sleeps: in its transaction, so that the state stays.
async fn hold_in(live: &Live, state: &str) {
    live.admin
        .exec(&format!(
            "CREATE FUNCTION repcloud.hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
             CREATE TRIGGER hold BEFORE UPDATE ON repcloud.repack FOR EACH ROW
                 WHEN (OLD.state = '{state}' AND NEW.state <> OLD.state) EXECUTE FUNCTION repcloud.hold()"
        ))
        .await;
}

async fn killed_in_each_state(capture: Capture, end: &str) {
    repacked_and_killed(capture, end, &STATES).await;
}

/// Repacked once to the end, then killed in each of `states` and ended by the command `end`.
async fn repacked_and_killed(capture: Capture, end: &str, states: &[&str]) {
    let live = Live::by(capture, EVERYTHING, "").await;
    live.owner.exec(MORE).await;
    let before = picture(&live).await;
    let application = Application::start(&live).await;
    let (finished, reports) = tokio::task::block_in_place(|| live.repack(&TABLE));
    let finished = finished.expect_code(0);
    let how = if capture == Capture::Trigger { "trigger" } else { "slot" };
    assert_eq!(reports[0]["capture"], how, "{finished:?}");
    compare(&live, &before, "a repack").await;
    for state in states.iter().copied() {
        hold_in(&live, state).await;
        let running = live.program.spawn(&[["repack", "--no-progress"].as_slice(), &TABLE].concat());
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        until(&format!("it is held in {state}"), LIMIT, || async {
            let held = live.admin.value(sleeping).await == "1";
            assert!(held || !running.stdout().contains("failed"), "{}", running.stderr());
            held
        })
        .await;
        running.kill();
        assert_eq!(live.state().await, state);
        live.admin
            .exec(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep';
                 DROP TRIGGER hold ON repcloud.repack; DROP FUNCTION repcloud.hold()",
            )
            .await;
        let arguments = if end == "repack" { &TABLE[..] } else { &TABLE[..2] };
        let (finished, reports) = tokio::task::block_in_place(|| live.command(end, arguments));
        let finished = finished.expect_code(0);
        let wanted = if end == "repack" || state == "swapped" { "swapped" } else { "aborted" };
        assert_eq!(reports[0]["outcome"], wanted, "{state}: {finished:?}");
        compare(&live, &before, &format!("killed in {state}, {end}")).await;
    }
    let journal = application.finish().await;
    assert_rows(&live, &journal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_it_goes_on() {
    killed_in_each_state(Capture::Pgoutput, "repack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_by_triggers_it_goes_on() {
    killed_in_each_state(Capture::Trigger, "repack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_by_triggers_it_is_undone() {
    killed_in_each_state(Capture::Trigger, "abort").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repacked_by_wal2json_everything_is_as_it_was() {
    if has_wal2json() {
        repacked_and_killed(Capture::Wal2json, "", &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_it_is_undone() {
    killed_in_each_state(Capture::Pgoutput, "abort").await;
}

#[tokio::test]
async fn what_a_materialized_view_holds_never_becomes_older() {
    let live = Live::new(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t; CREATE UNIQUE INDEX ON m (n)",
        "lock_timeout = \"50ms\"",
    )
    .await;
    let reader = live.session("reader").await;
    reader.exec("BEGIN; SELECT count(*) FROM t").await;
    let running = live.program.spawn(&["repack", "--table", "public.t", "--attempts", "1000"]);
    until("an attempt was given up", LIMIT, || async {
        live.state().await == "verified"
            && live.admin.value("SELECT max(attempt) > 0 FROM repcloud.repack").await == "t"
    })
    .await;
    // The view over the copy is filled by now; what its owner fills the old one with must not be lost.
    live.owner.exec("INSERT INTO t VALUES (2), (3); REFRESH MATERIALIZED VIEW CONCURRENTLY m").await;
    reader.exec("COMMIT").await;
    let finished = running.wait(LIMIT).expect_code(0);
    assert_eq!(live.admin.value("SELECT n FROM m").await, "3", "{finished:?}");
    assert!(finished.stderr.contains("was filled meanwhile"), "{finished:?}");
    assert!(finished.stdout.contains("filled anew just before the exchange"), "{finished:?}");
    live.assert_clean().await;
}
