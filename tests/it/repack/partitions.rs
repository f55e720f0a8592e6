//! Partitions under an application that writes through the partitioned table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use super::{LIMIT, Live, connect};
use crate::support::db::Db;
use crate::support::scaled;
use crate::support::wait::until;

/// `t` is a partition beside another and a default one, with a key, an index, a foreign key and a row trigger of the whole.
const PARTS: &str = "CREATE TABLE r (id int PRIMARY KEY); INSERT INTO r SELECT generate_series(0, 9); \
     CREATE TABLE fired (id bigint NOT NULL); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
       'BEGIN INSERT INTO public.fired VALUES (NEW.id); RETURN NULL; END'; \
     CREATE TABLE p (id bigint, k int NOT NULL, v bigint NOT NULL, r int REFERENCES r, PRIMARY KEY (id, k)) PARTITION BY LIST (k); \
     CREATE INDEX p_v ON p (v); CREATE TABLE t PARTITION OF p FOR VALUES IN (1); \
     CREATE TABLE t2 PARTITION OF p FOR VALUES IN (2) PARTITION BY RANGE (id); \
     CREATE TABLE t2a PARTITION OF t2 FOR VALUES FROM (MINVALUE) TO (MAXVALUE); CREATE TABLE d PARTITION OF p DEFAULT; \
     INSERT INTO p SELECT -i, i % 3 + 1, i, i % 10 FROM generate_series(1, 6000) i; \
     CREATE TRIGGER noted AFTER INSERT ON p FOR EACH ROW EXECUTE FUNCTION note(); ANALYZE";

/// What a writer knows: of each of its rows partition and value; and how often the trigger must have fired.
#[derive(Default)]
struct Journal {
    rows: BTreeMap<i64, (i32, i64)>,
    fired: usize,
}

struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Journal>,
}

impl Load {
    async fn start(live: &Live) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 1..=3 {
            let db = connect(&live.cluster, "writer").await;
            let stop = stop.clone();
            clients.spawn(async move {
                let mut random = StdRng::seed_from_u64(number);
                let mut journal = Journal::default();
                let mut next = number as i64 * 1_000_000;
                while !stop.load(Ordering::Relaxed) {
                    change(&db, &mut random, &mut journal, &mut next).await;
                }
                journal
            });
        }
        let db = connect(&live.cluster, "reader").await;
        let told = stop.clone();
        clients.spawn(async move {
            while !told.load(Ordering::Relaxed) {
                db.exec("SELECT count(*), sum(v) FROM p WHERE k = 1; SELECT * FROM p WHERE id = -5; SELECT max(v) FROM t").await;
            }
            Journal::default()
        });
        Load { stop, clients }
    }

    /// The table holds exactly what the writers noted.
    async fn finish(mut self, live: &Live) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Journal::default();
        while let Some(journal) = self.clients.join_next().await {
            let Journal { rows, fired } = journal.expect("a client of the application failed");
            all.rows.extend(rows);
            all.fired += fired;
        }
        let rows = live.admin.query_text("SELECT id, k, v FROM p WHERE id > 0 ORDER BY id").await;
        let noted: Vec<Vec<Option<String>>> = all
            .rows
            .iter()
            .map(|(id, (k, v))| vec![Some(id.to_string()), Some(k.to_string()), Some(v.to_string())])
            .collect();
        assert_eq!(rows, noted);
        assert_eq!(live.admin.value("SELECT count(*) FROM p WHERE id < 0").await, "6000");
        assert_eq!(live.admin.value("SELECT count(*) FROM fired").await, all.fired.to_string());
        assert!(all.fired > 50, "the application was hardly there");
    }
}

async fn change(db: &Db, random: &mut StdRng, journal: &mut Journal, next: &mut i64) {
    let (k, v) = (random.random_range(1..=3), random.random_range(0..1_000_000));
    let mine: Vec<i64> = journal.rows.keys().copied().collect();
    if mine.is_empty() || random.random_bool(0.4) {
        *next += 1;
        db.exec(&format!("INSERT INTO p VALUES ({next}, {k}, {v}, {})", v % 10)).await;
        journal.rows.insert(*next, (k, v));
        journal.fired += 1;
        return;
    }
    let id = mine[random.random_range(0..mine.len())];
    match random.random_range(0..3) {
        0 => {
            db.exec(&format!("DELETE FROM p WHERE id = {id}")).await;
            journal.rows.remove(&id);
        }
        1 => {
            // The row may move to another partition, which is a DELETE and an INSERT.
            db.exec(&format!("UPDATE p SET k = {k}, v = {v} WHERE id = {id}")).await;
            let before = journal.rows.insert(id, (k, v)).unwrap();
            journal.fired += usize::from(before.0 != k);
        }
        _ => {
            db.exec(&format!("UPDATE p SET v = {v} WHERE id = {id}")).await;
            journal.rows.entry(id).and_modify(|row| row.1 = v);
        }
    }
}

/// What the catalogs say of all partitions.
async fn shape(live: &Live) -> Vec<Vec<Option<String>>> {
    live.admin
        .query_text(
            "SELECT c.oid::regclass::text, i.inhparent::regclass::text, pg_get_expr(relpartbound, c.oid), \
               (SELECT string_agg(concat(conname, pg_get_constraintdef(oid), convalidated, conislocal, coninhcount), ',' ORDER BY conname) \
                FROM pg_constraint WHERE conrelid = c.oid), \
               (SELECT string_agg(concat(tgname, tgenabled, tgparentid), ',' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal) \
             FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
        )
        .await
}

async fn all_partitions(settings: &str) {
    let live = Live::new(PARTS, settings).await;
    let before = shape(&live).await;
    let load = Load::start(&live).await;
    for _ in 0..scaled(1, 10) {
        let arguments = ["--table", "public.p", "--attempts", "200", "--verify", "full"];
        let (finished, reports) = tokio::task::block_in_place(|| live.repack(&arguments));
        let finished = finished.expect_code(0);
        let mut tables: Vec<&str> = reports.iter().map(|report| report["table"].as_str().unwrap()).collect();
        tables.sort_unstable();
        assert_eq!(tables, ["public.d", "public.t", "public.t2a"], "{finished:?}");
    }
    load.finish(&live).await;
    live.assert_clean().await;
    assert_eq!(shape(&live).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_partitions_are_repacked_and_no_client_notices() {
    all_partitions("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_from_triggers() {
    all_partitions("capture = \"trigger\"").await;
}

#[tokio::test]
async fn one_bad_partition_does_not_stop_the_rest() {
    let live =
        Live::new(&format!("{PARTS}; CREATE FUNCTION of_row(t) RETURNS int LANGUAGE sql AS 'SELECT 1'"), "")
            .await;
    let (finished, reports) = live.repack(&["--table", "public.p"]);
    finished.expect_code(4);
    let outcome = |table: &str| {
        let report = reports.iter().find(|report| report["table"] == table).unwrap();
        report["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome("public.t"), "refused");
    assert_eq!([outcome("public.t2a"), outcome("public.d")], ["swapped", "swapped"]);
}

#[tokio::test]
async fn a_schema_has_its_own_partitions_and_abort_knows_those_of_a_table() {
    let live = Live::new(
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.p (id int PRIMARY KEY) PARTITION BY LIST (id); \
         CREATE TABLE a.p1 PARTITION OF a.p FOR VALUES IN (1); CREATE TABLE b.p2 PARTITION OF a.p FOR VALUES IN (2)",
        "",
    )
    .await;
    for (schema, table) in [("a", "a.p1"), ("b", "b.p2")] {
        let (finished, reports) = live.repack(&["--schema", schema]);
        finished.expect_code(0);
        assert_eq!((reports.len(), reports[0]["table"].as_str()), (1, Some(table)), "{reports:?}");
    }
    live.command("prepare", &["--table", "a.p"]).0.expect_code(0);
    let (finished, reports) = live.command("abort", &["--table", "a.p"]);
    finished.expect_code(0);
    assert_eq!(reports.len(), 2, "{reports:?}");
    live.assert_clean().await;
}

/// Holds a repack where it leaves a state, until the advisory lock is let go.
const HOLD: &str = "CREATE TABLE held (state text); INSERT INTO held VALUES (''); GRANT SELECT ON held TO app; \
     CREATE FUNCTION hold_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
       IF NEW.state <> OLD.state AND OLD.state = (SELECT state FROM public.held) THEN PERFORM pg_advisory_xact_lock(77); END IF; \
       RETURN NEW; END $$; \
     CREATE TRIGGER hold_state BEFORE UPDATE ON repcloud.repack FOR EACH ROW EXECUTE FUNCTION hold_state()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_it_goes_on() {
    killed_in_each_state("repack").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_each_state_it_is_undone() {
    killed_in_each_state("abort").await;
}

async fn killed_in_each_state(end: &str) {
    let live = Live::new(PARTS, "").await;
    live.program.run(&["create-schema"], LIMIT).expect_code(0);
    live.admin.exec(HOLD).await;
    let before = shape(&live).await;
    let load = Load::start(&live).await;
    let states =
        ["planned", "shadow_ready", "rows_copied", "indexes_built", "caught_up", "verified", "swapped"];
    for state in states {
        let holder = Db::connect(&live.cluster, "app").await;
        holder.exec("SELECT pg_advisory_lock(77)").await;
        live.admin.exec(&format!("UPDATE held SET state = '{state}'")).await;
        let running = live.program.spawn(&["repack", "--table", "public.t", "--attempts", "200"]);
        until("it leaves the state", LIMIT, || async {
            live.admin.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted").await == "1"
        })
        .await;
        running.kill();
        live.admin
            .exec("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND NOT granted; UPDATE held SET state = ''")
            .await;
        drop(holder);
        let arguments = ["--table", "public.t", "--attempts", "200"];
        let (finished, reports) = tokio::task::block_in_place(|| match end {
            "abort" => live.command("abort", &arguments[..2]),
            _ => live.repack(&arguments),
        });
        let finished = finished.expect_code(0);
        let wanted = if end == "abort" && state != "swapped" { "aborted" } else { "swapped" };
        assert_eq!(reports[0]["outcome"], wanted, "{state}, {end}: {finished:?}");
        live.assert_clean().await;
        assert_eq!(shape(&live).await, before, "{state}, {end}");
    }
    load.finish(&live).await;
}

/// What the refusals print is run as it stands, for each partition; then ATTACH has nothing to scan.
#[tokio::test]
async fn a_large_default_partition_that_keeps_the_rows_out_is_not_in_the_way() {
    let long = format!("É \"{}", "b".repeat(58));
    let quoted = format!("\"{}\"", long.replace('"', "\"\""));
    let schema = format!(
        "CREATE TABLE q (k text PRIMARY KEY, v text) PARTITION BY LIST (k); \
        CREATE TABLE qa PARTITION OF q FOR VALUES IN ('a', 'it''s'); CREATE TABLE qd PARTITION OF q DEFAULT; \
        CREATE TABLE {quoted} PARTITION OF q FOR VALUES IN ('b'); \
        ALTER TABLE qd ALTER v SET STORAGE PLAIN; INSERT INTO q VALUES ('a', 'v'), ('b', 'w'); \
        INSERT INTO qd SELECT 'd' || i, repeat('x', 1900) FROM generate_series(1, 20000) i"
    );
    let live = Live::new(&schema, "").await;
    for name in ["qa", &quoted] {
        let table = format!("public.{name}");
        let (refused, reports) = live.repack(&["--table", &table]);
        refused.expect_code(3);
        let reason = reports[0]["reason"].as_str().unwrap();
        assert!(reason.contains("would be scanned under the lock"), "{reason}");
        let (_, statements) = reason.split_once("; ALTER TABLE").expect(reason);
        let (statements, _) = statements.split_once("; drop it after").expect(reason);
        live.owner.exec(&format!("ALTER TABLE{statements}")).await;
        let dry = live.repack(&["--table", &table, "--dry-run"]).1;
        assert_eq!(dry[0]["lock"]["scans_ms"], 0.0, "{dry:?}");
        live.repack(&["--table", &table]).0.expect_code(0);
        assert_eq!(live.admin.value(&format!("SELECT count(*) FROM {quoted}")).await, "1");
    }
    let names = live
        .admin
        .value("SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'qd'::regclass AND contype = 'c'")
        .await;
    assert!(names.contains("repcloud_not_qa_") && names.contains("repcloud_not_É \"bb"), "{names}");
    live.assert_clean().await;
}
