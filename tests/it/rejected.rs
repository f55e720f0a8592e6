//! The target does not take a row, or holds other rows than it should: said without values, and nothing is lost.

use crate::support::db::assert_same;
use crate::support::process::{Finished, Running};
use crate::support::stream::{LIMIT, Stream};

const SECRET: &str = "TOPSECRET";
const TABLE: &str = "CREATE TABLE public.t (id int PRIMARY KEY, v text, n int);
     INSERT INTO t SELECT i, 'first', i FROM generate_series(1, 20) i";
const DML: &str = "mode = \"dml\"\ntables = [\"public.t\"]";

async fn streaming(entry: &str) -> Stream {
    let stream = Stream::new(TABLE, "", &[entry]).await;
    stream.catch_up();
    stream
}

/// No value of a row is in what was printed, nor in any file of the home.
#[track_caller]
fn tells_no_values(stream: &Stream, finished: &Finished) {
    assert!(!finished.stderr.contains(SECRET) && !finished.stdout.contains(SECRET), "{finished:?}");
    let mut folders = vec![stream.program.home().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{}", path.display());
                }
            }
        }
    }
}

/// The table is parked with position, table and these words, and nothing of the transaction is in the target.
#[track_caller]
fn stops(stream: &Stream, words: &[&str]) {
    let stopped = stream.try_catch_up().expect_code(4);
    for word in words.iter().chain(&["public.t", "source transaction", "skip --source prod --lsn"]) {
        assert!(stopped.stderr.contains(word), "{word}: {stopped:?}");
    }
    tells_no_values(stream, &stopped);
}

/// The stream goes on without the table; then it is stopped.
async fn until_parked(running: Running) -> Finished {
    crate::support::wait::until("the table is parked", LIMIT, async || {
        running.stderr().contains("is parked")
    })
    .await;
    running.terminate();
    running.wait(LIMIT)
}

async fn write(stream: &Stream) {
    stream.source.exec("INSERT INTO t VALUES (50, 'fine', 1)").await;
    let bad = format!(
        "BEGIN; INSERT INTO t VALUES (51, 'fine', 2); INSERT INTO t VALUES (52, '{SECRET}', NULL); DELETE FROM t WHERE id = 1; COMMIT"
    );
    stream.source.exec(&bad).await;
    stream.source.exec("INSERT INTO t VALUES (53, 'fine', 3)").await;
}

#[tokio::test]
async fn a_row_that_breaks_a_rule_of_the_target_stops_and_continues() {
    let stream = streaming(DML).await;
    stream.target.exec(&format!("ALTER TABLE t ADD CONSTRAINT no_secrets CHECK (v <> '{SECRET}')")).await;
    write(&stream).await;
    stops(&stream, &["no_secrets"]);
    let there = stream
        .target
        .value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE id >= 50 OR id = 1")
        .await;
    assert!(there == "1" || there == "1,50", "whole transactions only: {there}");
    stream
        .target
        .exec("ALTER TABLE t DROP CONSTRAINT no_secrets; ALTER TABLE t ALTER COLUMN n SET NOT NULL")
        .await;
    stops(&stream, &["not_null_violation", "column n"]);
    stream.target.exec("ALTER TABLE t ALTER COLUMN n DROP NOT NULL").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_table_or_column_that_goes_while_the_stream_runs_waits_and_continues() {
    let stream = streaming(DML).await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    crate::support::wait::until("it streams", LIMIT, async || {
        running.stderr().contains("streaming from slot")
    })
    .await;
    stream.target.exec("ALTER TABLE t RENAME COLUMN v TO hidden").await;
    write(&stream).await;
    let stopped = until_parked(running).await;
    assert!(stopped.stderr.contains("public.t") && stopped.stderr.contains("column"), "{stopped:?}");
    tells_no_values(&stream, &stopped);
    let parked = stream.try_catch_up().expect_code(4);
    assert!(parked.stderr.contains("column v is missing"), "{parked:?}");
    stream.target.exec("ALTER TABLE t RENAME COLUMN hidden TO v").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;

    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    crate::support::wait::until("it streams again", LIMIT, async || {
        running.stderr().contains("streaming from slot")
    })
    .await;
    stream.target.exec("ALTER TABLE t RENAME TO away").await;
    stream.source.exec(&format!("UPDATE t SET v = '{SECRET}' WHERE id = 5")).await;
    let stopped = until_parked(running).await;
    tells_no_values(&stream, &stopped);
    let parked = stream.try_catch_up().expect_code(4);
    assert!(parked.stderr.contains("it has gone"), "{parked:?}");
    stream.target.exec("ALTER TABLE away RENAME TO t").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

/// Changes that meet a row too many and rows too few on the target.
async fn disagree(stream: &Stream) {
    stream.target.exec("INSERT INTO t VALUES (70, 'theirs', 0); DELETE FROM t WHERE id IN (2, 3)").await;
    stream.source.exec(&format!("INSERT INTO t VALUES (70, '{SECRET}', 1)")).await;
    stream.source.exec(&format!("UPDATE t SET v = '{SECRET}' WHERE id = 2; DELETE FROM t WHERE id = 3; UPDATE t SET v = 'x' WHERE id = 4")).await;
}

#[tokio::test]
async fn a_conflict_stops_by_default() {
    let stream = streaming(DML).await;
    disagree(&stream).await;
    stops(&stream, &["conflict in target table", "insert", "unique_violation", "on_conflict"]);
    assert_eq!(
        stream.target.value("SELECT resolution || (new_row->>'v') FROM repcloud.conflict").await,
        format!("stopped{SECRET}")
    );
    stream.target.exec("DELETE FROM t WHERE id = 70").await;
    stops(&stream, &["update"]);
    stream.target.exec("INSERT INTO t VALUES (2, 'back', 2), (3, 'back', 3)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_conflict_may_be_logged() {
    let stream = streaming(&format!("{DML}\non_conflict = \"log\"")).await;
    disagree(&stream).await;
    let ended = stream.catch_up();
    tells_no_values(&stream, &ended);
    let logged = stream
        .target
        .value("SELECT string_agg(operation || ' ' || resolution, ',' ORDER BY id) FROM repcloud.conflict")
        .await;
    assert_eq!(logged, "insert logged,update logged,delete logged");
    assert_eq!(
        stream
            .target
            .value("SELECT string_agg(id || v, ',' ORDER BY id) FROM t WHERE id IN (2, 3, 4, 70)")
            .await,
        "4x,70theirs"
    );
}

#[tokio::test]
async fn a_conflict_may_be_overwritten() {
    let stream = streaming(&format!("{DML}\non_conflict = \"overwrite\"")).await;
    disagree(&stream).await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

/// As before the first start of the stream.
async fn nothing_was_changed(stream: &Stream) {
    let schema = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'";
    assert_eq!(stream.target.value(schema).await, "0");
    assert_eq!(stream.source.value(schema).await, "0");
    for what in ["pg_replication_slots", "pg_publication"] {
        assert_eq!(stream.source.value(&format!("SELECT count(*) FROM {what}")).await, "0", "{what}");
    }
}

/// Whatever pre-flight finds, in whatever number.
#[tokio::test]
async fn a_first_start_that_is_refused_changes_nothing_and_tells_all() {
    let source = format!("{TABLE}; CREATE TABLE public.u (id int PRIMARY KEY); CREATE TABLE public.w (id int PRIMARY KEY);
         CREATE SCHEMA closed; CREATE TABLE closed.c (id int PRIMARY KEY); CREATE TABLE public.narrow (id int PRIMARY KEY, v text)");
    let target =
        "CREATE TABLE public.t (id int PRIMARY KEY, v text, n int); INSERT INTO t VALUES (1, 'theirs', 0);
         CREATE TABLE public.u (id int PRIMARY KEY); INSERT INTO u VALUES (7);
         CREATE TABLE public.w (id int PRIMARY KEY); CREATE TABLE public.narrow (id int PRIMARY KEY);
         CREATE ROLE plain LOGIN; GRANT SELECT ON t, u, w, narrow TO plain; CREATE SCHEMA closed;
         ALTER DATABASE app OWNER TO postgres; REVOKE CREATE ON DATABASE app FROM PUBLIC";
    let entry = "mode = \"dml\"\ntables = [\"public.*\", \"closed.c\"]";
    let stream = Stream::new(&source, target, &[entry]).await;
    let text = crate::support::stream::configuration(&stream.pair, &[entry]);
    let (prod, copy) = text.split_once("[connections.copy]").unwrap();
    let copy = copy.replace("user = \"postgres\"", "user = \"plain\"");
    stream.program.write("config/default.toml", &format!("{prod}[connections.copy]{copy}"));
    let refused = stream.try_catch_up().expect_code(3);
    for told in [
        "public.t already holds rows",
        "public.u already holds rows",
        "column v is missing",
        "GRANT USAGE, CREATE ON SCHEMA closed TO plain",
        "GRANT CREATE ON DATABASE app TO plain",
    ] {
        assert!(refused.stderr.contains(told), "{told}: {refused:?}");
    }
    assert!(!refused.stderr.contains("public.w"), "{refused:?}");
    nothing_was_changed(&stream).await;
}

#[tokio::test]
async fn rows_that_are_there_are_not_overwritten_unless_a_person_says_so() {
    let there = "CREATE TABLE public.t (id int PRIMARY KEY, v text, n int); INSERT INTO t VALUES (1, 'theirs', 0), (999, 'theirs', 0)";
    let stream = Stream::new(TABLE, there, &[DML]).await;
    let stopped = stream.try_catch_up().expect_code(3);
    nothing_was_changed(&stream).await;
    for choice in ["already holds rows", "copy = false", "reset --source prod --table public.t --recopy"] {
        assert!(stopped.stderr.contains(choice), "{choice}: {stopped:?}");
    }
    assert_eq!(stream.target.value("SELECT count(*) FROM t").await, "2");
    stream
        .program
        .run(&["reset", "--source", "prod", "--table", "public.t", "--recopy", "--yes"], LIMIT)
        .expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn rows_that_are_there_may_be_the_first_rows() {
    let there = "CREATE TABLE public.t (id int PRIMARY KEY, v text, n int); INSERT INTO t VALUES (1, 'theirs', 0), (999, 'theirs', 0)";
    let stream = Stream::new(TABLE, there, &[&format!("{DML}\ncopy = false")]).await;
    stream.catch_up();
    stream
        .source
        .exec("UPDATE t SET v = 'new' WHERE id IN (1, 2); INSERT INTO t VALUES (60, 'new', 6)")
        .await;
    stream.catch_up();
    let rows = stream.target.value("SELECT string_agg(id || v, ',' ORDER BY id) FROM t").await;
    assert_eq!(
        rows, "1new,60new,999theirs",
        "a missing row is logged, as it is the default with copy = false"
    );
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.conflict").await, "1");
}
