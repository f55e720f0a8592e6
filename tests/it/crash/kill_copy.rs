//! `kill -9` while first rows are copied, at points that the test chooses.

use super::load::{LIMIT, durable_pair, follow};
use crate::support::cluster::builder;
use crate::support::db::{Db, assert_same};
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::wait;

const SCHEMA: &str = "
    CREATE TABLE public.big (id bigint PRIMARY KEY, v text, n int);
    CREATE INDEX big_v ON big (v);
    CREATE INDEX big_n ON big (n);
    INSERT INTO big SELECT i, md5(i::text) || repeat('x', 200), i % 100 FROM generate_series(1, 60000) i;
    CREATE TABLE public.small (id int PRIMARY KEY, v text);
    INSERT INTO small SELECT i, 'v' || i FROM generate_series(1, 100) i;
    CREATE TABLE public.mine (id int PRIMARY KEY, v text)";

/// The user's own table in the target, which has rows that the source does not know.
const OWN: &str =
    "CREATE TABLE public.mine (id int PRIMARY KEY, v text); INSERT INTO mine VALUES (1, 'my own')";

const ENTRIES: &[&str] = &[
    "mode = \"dml\"\ntables = [\"public.small\", \"public.big\"]",
    "mode = \"dml\"\ntables = [\"public.mine\"]\ncopy = false",
];

async fn stream() -> Stream {
    Stream::over(durable_pair(builder("source")), SCHEMA, OWN, ENTRIES).await
}

/// The application goes on writing.
async fn change(source: &Db, round: u32) {
    let sql = format!(
        "UPDATE big SET n = n + 1, v = v || '{round}' WHERE id % 50 = {round};
         DELETE FROM big WHERE id % 1000 = {round};
         UPDATE big SET id = id + 1000000 WHERE id % 1000 = 100 + {round};
         INSERT INTO big VALUES (2000000 + {round}, 'new', {round});
         UPDATE small SET v = 'w{round}' WHERE id = {round};
         INSERT INTO mine VALUES (100 + {round}, 'from the source')"
    );
    source.exec(&sql).await;
}

/// Waits until `sql`, asked on `db`, is true, while the process runs.
async fn reached(what: &str, db: &Db, running: &mut Running, sql: &str) {
    wait::until(what, LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        db.value(sql).await == "t"
    })
    .await;
}

async fn all_there(stream: &Stream) {
    stream.catch_up();
    for table in ["big", "small"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
    let indexes =
        "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'public'";
    assert_eq!(stream.target.value(indexes).await, stream.source.value(indexes).await);
    assert_eq!(
        stream.target.value("SELECT v FROM mine WHERE id = 1").await,
        "my own",
        "the user's own row is gone"
    );
    let states = "SELECT string_agg(DISTINCT state, ' ') FROM repcloud.table_state";
    assert_eq!(stream.target.value(states).await, "streaming");
    assert_eq!(
        stream.source.value("SELECT count(*) FROM pg_replication_slots").await,
        "1",
        "a slot was left"
    );
}

/// Keeps `what` of the target from going on: statements of this kind wait for an advisory lock that the test holds.
fn gate(tag: &str) -> String {
    format!(
        "CREATE FUNCTION public.gate() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN IF current_query() LIKE '%repcloud.%' THEN RETURN; END IF;
                     PERFORM pg_advisory_lock(4711); PERFORM pg_advisory_unlock(4711); END $$;
         CREATE EVENT TRIGGER gate ON ddl_command_start WHEN TAG IN ('{tag}') EXECUTE FUNCTION public.gate();
         ALTER EVENT TRIGGER gate ENABLE ALWAYS;
         SELECT pg_advisory_lock(4711)"
    )
}

const OPEN_GATE: &str = "DROP EVENT TRIGGER gate; SELECT pg_advisory_unlock(4711)";
const AT_THE_GATE: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE objid = 4711 AND NOT granted)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_rows_are_copied() {
    let stream = stream().await;
    // Rows of `small` first, a lock on the way of `big`'s: the copy stands in its middle.
    for (round, bytes) in [(1, 100_000), (2, 4_000_000), (3, 1_000_000)] {
        let mut running = follow(&stream);
        let grown = format!("SELECT coalesce(pg_relation_size(to_regclass('public.big')) > {bytes}, false)");
        reached("rows arrive", &stream.target, &mut running, &grown).await;
        change(&stream.source, round).await;
        running.kill();
        change(&stream.source, round + 10).await;
    }
    all_there(&stream).await;
}

/// Two processes are killed where statements of kind `tag` build what comes after the rows.
async fn killed_after_the_rows(tag: &str) {
    let stream = stream().await;
    let gatekeeper = Db::connect(&stream.pair.target, "app").await;
    gatekeeper.exec(&gate(tag)).await;
    for round in 1..3 {
        let mut running = follow(&stream);
        // The earlier process's session may still stand there.
        let began = "SELECT extract(epoch FROM clock_timestamp())";
        let began = stream.target.value(began).await;
        let ours = format!(
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE objid = 4711 AND NOT granted
                AND extract(epoch FROM backend_start) > {began})"
        );
        reached("an index is to be built", &stream.target, &mut running, &ours).await;
        change(&stream.source, round).await;
        running.kill();
        change(&stream.source, round + 10).await;
    }
    if tag == "ALTER TABLE" {
        let keys = "SELECT count(*) FROM pg_index WHERE indrelid IN ('big'::regclass, 'small'::regclass)";
        assert_eq!(gatekeeper.value(keys).await, "0", "no key before the rows");
    }
    gatekeeper.exec(OPEN_GATE).await;
    all_there(&stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_rows_and_the_key() {
    killed_after_the_rows("ALTER TABLE").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_indexes_are_built() {
    killed_after_the_rows("CREATE INDEX").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_table_is_made() {
    let stream = stream().await;
    let gatekeeper = Db::connect(&stream.pair.target, "app").await;
    // Schema repcloud is there: its tables do not wait at the gate.
    stream.program.run(&["reset", "--source", "prod", "--all"], LIMIT).expect_code(2);
    gatekeeper.exec(&gate("CREATE TABLE")).await;
    let mut running = follow(&stream);
    reached("a table is to be made", &stream.target, &mut running, AT_THE_GATE).await;
    change(&stream.source, 1).await;
    running.kill();
    gatekeeper.exec(OPEN_GATE).await;
    change(&stream.source, 2).await;
    all_there(&stream).await;
}

/// While the source makes the slot it waits for running transactions, and goes on waiting when we are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_slots_are_made() {
    let stream = stream().await;
    let other = Db::connect(&stream.pair.source, "app").await;
    let slots = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE active)";
    // The stream's own slot first; then, as a copy was cut off, a temporary one for a second snapshot.
    for round in 1..3 {
        other.exec(&format!("BEGIN; INSERT INTO small VALUES ({round} * -1, 'open')")).await;
        let mut running = follow(&stream);
        reached("a slot is being made", &stream.source, &mut running, slots).await;
        running.kill();
        change(&stream.source, round).await;
        let running = follow(&stream);
        wait::until("the next process sees the first one's slot", LIMIT, async || {
            running.stderr().contains("trying again") || running.stderr().contains("has waited")
        })
        .await;
        other.exec("COMMIT").await;
        change(&stream.source, round + 10).await;
        let mut running = running;
        let grown = "SELECT coalesce(pg_relation_size(to_regclass('public.big')) > 100000, false)";
        reached("rows arrive", &stream.target, &mut running, grown).await;
        running.kill();
    }
    all_there(&stream).await;
}
