//! The slot is not as the target's position needs it: the stream stops with the choices, each choice works, and nothing
//! is made anew silently.

use repcloud::cluster::Cluster;

use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::process::Finished;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;

const SLOT: &str = "repcloud_prod__copy";
const TABLE: &str = "CREATE TABLE public.t (id int PRIMARY KEY, v text);
     INSERT INTO t SELECT i, 'first' FROM generate_series(1, 50) i";
const DML: &str = "mode = \"dml\"\ntables = [\"public.t\"]";

async fn streaming() -> Stream {
    let stream = Stream::new(TABLE, "", &[DML]).await;
    stream.catch_up();
    stream.source.exec("INSERT INTO t VALUES (100, 'streamed')").await;
    stream.catch_up();
    stream
}

fn reset(stream: &Stream, arguments: &[&str]) -> Finished {
    let all: Vec<&str> = ["reset", "--source", "prod"].into_iter().chain(arguments.iter().copied()).collect();
    stream.program.run(&all, LIMIT)
}

/// The stream stops with this text and this command as a choice, twice: nothing has changed in between.
#[track_caller]
fn stops(stream: &Stream, text: &str, choice: &str) {
    for _ in 0..2 {
        let stopped = stream.try_catch_up().expect_code(1);
        assert!(stopped.stderr.contains(text) && stopped.stderr.contains(choice), "{stopped:?}");
    }
}

/// Afterwards everything is as it should be, and changes flow.
async fn works_again(stream: &Stream) {
    stream.catch_up();
    stream.source.exec("UPDATE t SET v = 'again' WHERE id = 7; INSERT INTO t VALUES (900, 'again')").await;
    stream.catch_up();
    assert_eq!(stream.target.value("SELECT count(*) FROM t WHERE v = 'again'").await, "2");
}

async fn drop_slot(stream: &Stream) {
    stream.source.exec(&format!("SELECT pg_drop_replication_slot('{SLOT}')")).await;
}

#[tokio::test]
async fn a_missing_slot_stops_and_recopy_goes_on() {
    let stream = streaming().await;
    drop_slot(&stream).await;
    stream.source.exec("INSERT INTO t VALUES (200, 'gap'); DELETE FROM t WHERE id = 3").await;
    stops(&stream, "is gone from the source", "reset --source prod --all --recopy");
    assert_eq!(
        stream.source.value("SELECT count(*) FROM pg_replication_slots").await,
        "0",
        "nothing is recreated silently"
    );
    // Without a choice: told what each does. Without a terminal or --yes: nothing is done.
    let told = reset(&stream, &["--all"]).expect_code(2);
    assert!(
        told.stdout.contains("--recopy: target table public.t is emptied")
            && told.stdout.contains("--accept-target"),
        "{told:?}"
    );
    let asked = reset(&stream, &["--all", "--recopy"]).expect_code(2);
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    stops(&stream, "is gone from the source", "--accept-target");
    reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(0);
    works_again(&stream).await;
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_missing_slot_stops_and_the_target_may_be_accepted() {
    let stream = streaming().await;
    drop_slot(&stream).await;
    stream.source.exec("INSERT INTO t VALUES (200, 'gap')").await;
    stops(&stream, "is gone from the source", "reset --source prod --all --accept-target");
    reset(&stream, &["--all", "--accept-target", "--yes"]).expect_code(0);
    works_again(&stream).await;
    assert_eq!(stream.target.value("SELECT count(*) FROM t WHERE v = 'gap'").await, "0", "as was said");
    assert_eq!(stream.target.value("SELECT count(*) FROM t").await, "52");
}

#[tokio::test]
async fn an_invalidated_slot_stops_and_recopy_goes_on() {
    let source = builder("source")
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "32MB");
    let stream = Stream::over(Pair::start_with(source, builder("target")), TABLE, "", &[DML]).await;
    stream.catch_up();
    stream.source.exec("CREATE TABLE other (x text)").await;
    let source = &stream.source;
    wait::until("the slot is lost", LIMIT, async || {
        source.exec("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 2000)").await;
        source.exec("SELECT pg_switch_wal()").await;
        source.exec("CHECKPOINT").await;
        source.value("SELECT wal_status FROM pg_replication_slots").await == "lost"
    })
    .await;
    stops(&stream, "has lost WAL it needs", "--all --recopy");
    let status = stream.program.json(&["status"], LIMIT);
    assert_eq!(status["streams"][0]["slot_status"], "lost");
    stream.source.exec("UPDATE t SET v = 'gap' WHERE id < 10").await;
    reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(0);
    works_again(&stream).await;
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_slot_beyond_the_position_stops_and_each_choice_goes_on() {
    let stream = streaming().await;
    let advance = format!("SELECT pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())");
    stream.source.exec("INSERT INTO t VALUES (200, 'gap')").await;
    stream.source.exec(&advance).await;
    stops(&stream, "beyond the target's position", "--all --accept-target");
    reset(&stream, &["--all", "--accept-target", "--yes"]).expect_code(0);
    works_again(&stream).await;
    assert_eq!(stream.target.value("SELECT count(*) FROM t WHERE v = 'gap'").await, "0");

    stream.source.exec("UPDATE t SET v = 'gap' WHERE id > 20").await;
    stream.source.exec(&advance).await;
    stops(&stream, "beyond the target's position", "--all --recopy");
    reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_slot_in_use_elsewhere_is_waited_for_and_named() {
    let stream = streaming().await;
    let mut receiver = holder(&stream.pair.source);
    let source = &stream.source;
    wait::until("the slot is held", LIMIT, async || {
        source.value("SELECT count(*) FROM pg_replication_slots WHERE active").await == "1"
    })
    .await;
    let held = reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(1);
    assert!(held.stderr.contains("is in use by process"), "{held:?}");
    let running = stream.program.spawn(&["stream", "--source", "prod", "--until", "caught-up"]);
    wait::until("the stream says who holds it", LIMIT, async || {
        let pid = source.value("SELECT active_pid FROM pg_replication_slots").await;
        running.stderr().contains(&format!("is in use by process {pid}"))
    })
    .await;
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    running.wait(LIMIT).expect_code(0);
    works_again(&stream).await;
}

/// `pg_recvlogical` that reads our slot and confirms nothing.
fn holder(cluster: &Cluster) -> std::process::Child {
    let publication = format!("publication_names={SLOT}");
    cluster
        .client("pg_recvlogical")
        .unwrap()
        .args(["-d", "app", "-S", SLOT, "--start", "-f", "/dev/null", "-F", "0", "-s", "0"])
        .args(["-o", "proto_version=1", "-o", &publication])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("pg_recvlogical starts")
}

#[tokio::test]
async fn another_system_stops_and_is_accepted_only_where_the_slot_covers_the_position() {
    let stream = streaming().await;
    // Another cluster with the same rows, a publication and a slot of the same names: as after a copy of the server.
    let other = builder("other").start().unwrap();
    other.create_database("app").unwrap();
    let there = Db::connect(&other, "app").await;
    there.exec(TABLE).await;
    there
        .exec(&format!(
            "CREATE PUBLICATION {SLOT} FOR TABLE t; CREATE PUBLICATION {SLOT}_ins WITH (publish = 'insert')"
        ))
        .await;
    there.exec(&format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")).await;
    there.exec("INSERT INTO t VALUES (100, 'streamed')").await;
    let pair = Pair { source: other, target: stream.pair.target };
    stream.program.write("config/default.toml", &configuration(&pair, &[DML]));
    let old = stream.pair.source;
    let stream = Stream { pair, source: there, target: stream.target, program: stream.program };
    stops(&stream, "the source is another system than before", "--all --accept-system");
    let position = stream.target.value("SELECT applied_lsn FROM repcloud.checkpoint").await;
    let confirmed = stream.source.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
    let ahead =
        stream.source.value(&format!("SELECT '{confirmed}'::pg_lsn > '{position}'::pg_lsn")).await == "t";
    assert_eq!(reset(&stream, &["--all", "--accept-system", "--yes"]).code(), if ahead { 1 } else { 0 });

    // Whatever became of that: a slot that is beyond the position is never accepted.
    stream.target.exec("UPDATE repcloud.checkpoint SET system_id = '1', applied_lsn = '0/1'").await;
    let refused = reset(&stream, &["--all", "--accept-system", "--yes"]).expect_code(1);
    assert!(refused.stderr.contains("beyond the target's position"), "{refused:?}");
    // And one that covers it is.
    stream.target.exec(&format!("UPDATE repcloud.checkpoint SET applied_lsn = '{confirmed}'")).await;
    stream.target.exec("DELETE FROM t WHERE id = 100").await;
    reset(&stream, &["--table", "public.t", "--accept-system", "--yes"]).expect_code(3);
    reset(&stream, &["--all", "--accept-system", "--yes"]).expect_code(0);
    drop(old);
    works_again(&stream).await;
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_foreign_slot_of_our_name_is_left_alone() {
    let stream = Stream::new(TABLE, "", &[DML]).await;
    let make = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
    stream.source.exec(&make).await;
    for _ in 0..2 {
        let refused = stream.try_catch_up().expect_code(3);
        for told in ["the target knows nothing of it", "reset --source prod --all --recopy"] {
            assert!(refused.stderr.contains(told), "{refused:?}");
        }
    }
    let schema = "SELECT count(*) FROM pg_namespace WHERE nspname = 'repcloud'";
    assert_eq!(stream.target.value(schema).await, "0", "nothing was changed");
    assert_eq!(stream.source.value("SELECT count(*) FROM pg_publication").await, "0", "nothing was changed");
    reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(0);
    works_again(&stream).await;
    assert_same(&stream.source, &stream.target, "t").await;
}

#[tokio::test]
async fn a_slot_and_publication_of_the_dba_are_used_and_never_dropped() {
    let stream = Stream::new(&format!("{TABLE}; CREATE PUBLICATION theirs FOR TABLE t"), "", &[DML]).await;
    stream.source.exec("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await;
    let config = std::fs::read_to_string(stream.program.home().join("config/default.toml")).unwrap();
    let config = config.replacen(
        "[connections.prod]\n",
        "[connections.prod]\nslot_name = \"theirs\"\npublication = \"theirs\"\n",
        1,
    );
    stream.program.write("config/default.toml", &config);
    stream.source.exec("INSERT INTO t VALUES (60, 'between slot and start')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
    let slots = "SELECT string_agg(slot_name, ',') || ' ' || (SELECT string_agg(pubname, ',') FROM pg_publication) FROM pg_replication_slots";
    assert_eq!(stream.source.value(slots).await, "theirs theirs");
    reset(&stream, &["--all", "--accept-target", "--yes"]).expect_code(3);
    reset(&stream, &["--all", "--recopy", "--yes"]).expect_code(0);
    works_again(&stream).await;
    stream.source.exec("INSERT INTO t VALUES (61, 'gap')").await;
    stream.source.exec("SELECT pg_replication_slot_advance('theirs', pg_current_wal_lsn())").await;
    stops(&stream, "beyond the target's position", "--all --accept-target");
    reset(&stream, &["--all", "--accept-target", "--yes"]).expect_code(0);
    stream.source.exec("INSERT INTO t VALUES (62, 'after')").await;
    stream.catch_up();
    assert_eq!(
        stream.target.value("SELECT string_agg(id::text, ',') FROM t WHERE id IN (61, 62)").await,
        "62"
    );
    let told = stream.program.run(&["drop-table", "public.t", "--yes"], LIMIT).expect_code(0);
    assert!(
        told.stdout.contains("slot \"theirs\"") && told.stdout.contains("publication \"theirs\""),
        "{told:?}"
    );
    assert_eq!(stream.source.value(slots).await, "theirs theirs");
}
