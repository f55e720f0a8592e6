//! Tables of a stream by triggers that change, wait, join or leave while the others go on.

use crate::crash::load::durable_pair;
use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration, connection};
use crate::support::wait;
use crate::triggers::{LEFT, by_triggers, stream};

const TABLES: &str = "CREATE TABLE public.good (id int PRIMARY KEY, v text); CREATE TABLE public.bad (id int PRIMARY KEY, v text, w int);
    INSERT INTO good VALUES (1, 'first'); INSERT INTO bad SELECT i, 'first', i FROM generate_series(1, 20) i";
const BOTH: &str = "mode = \"dml\"\ntables = [\"public.good\", \"public.bad\"]";
const GOOD: &str = "mode = \"dml\"\ntables = [\"public.good\"]";

async fn both() -> Stream {
    let mut stream = stream(Pair::start(), TABLES, &[BOTH]).await;
    stream.program = stream.program.env("REPCLOUD_PARK_PAUSE_SECONDS", "1");
    stream.catch_up();
    stream
}

async fn state(stream: &Stream, table: &str) -> String {
    let sql = format!("SELECT state FROM repcloud.table_state WHERE target_table = 'public.{table}'");
    stream.target.value(&sql).await
}

fn reset(stream: &Stream, how: &str) {
    let reset = ["reset", "--source", "prod", "--table", "public.bad", how, "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
}

async fn all_same(stream: &Stream) {
    for table in ["good", "bad"] {
        assert_same(&stream.source, &stream.target, table).await;
    }
}

#[tokio::test]
async fn a_table_whose_columns_change_is_parked_alone_and_comes_back_by_itself() {
    let stream = both().await;
    // Rows of before and after in one batch, and an older shape again.
    for (change, alike) in [
        ("ADD COLUMN x int DEFAULT 7", "ADD COLUMN x int DEFAULT 7"),
        ("DROP COLUMN w", "DROP COLUMN w"),
        ("RENAME COLUMN v TO renamed", "RENAME COLUMN v TO renamed"),
    ] {
        let sql = format!(
            "DELETE FROM bad WHERE id = (SELECT min(id) FROM bad); INSERT INTO bad SELECT max(id) + 1 FROM bad; ALTER TABLE bad {change}; \
             INSERT INTO bad SELECT max(id) + 1 FROM bad; INSERT INTO good SELECT max(id) + 1 FROM good"
        );
        stream.source.exec(&sql).await;
        let parked = stream.try_catch_up().expect_code(4);
        assert!(parked.stderr.contains("public.bad is parked"), "{change}: {parked:?}");
        assert_same(&stream.source, &stream.target, "good").await;
        stream.source.exec("DELETE FROM bad WHERE id = 9").await;
        stream.target.exec(&format!("ALTER TABLE bad {alike}")).await;
        stream.catch_up();
        all_same(&stream).await;
    }
}

#[tokio::test]
async fn a_changed_type_is_accepted_once_the_target_has_it_too() {
    let stream = both().await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    stream.source.exec("ALTER TABLE bad ALTER w TYPE bigint; INSERT INTO good VALUES (2, 'x')").await;
    wait::until("it is seen", LIMIT, async || stream.target.value("SELECT count(*) FROM good").await == "2")
        .await;
    stream.source.exec("INSERT INTO bad VALUES (21, 'new', 5000000000)").await;
    wait::until("it is parked", LIMIT, async || running.stderr().contains("public.bad is parked")).await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.target.exec("ALTER TABLE bad ALTER w TYPE bigint").await;
    reset(&stream, "--accept-target");
    stream.catch_up();
    all_same(&stream).await;
}

#[tokio::test]
async fn queued_rows_that_do_not_tell_their_columns_cost_the_table_another_copy_and_no_other() {
    let stream = both().await;
    stream
        .source
        .exec("UPDATE bad SET w = 3; ALTER TABLE bad ALTER w TYPE text; UPDATE bad SET w = 'x' WHERE id = 3; INSERT INTO good VALUES (2, 'x')")
        .await;
    let told = stream.try_catch_up().expect_code(4);
    assert!(told.stderr.contains("do not tell which of them came before"), "{told:?}");
    assert!(told.stderr.contains("reset --source prod --table public.bad --recopy"), "{told:?}");
    assert_eq!(state(&stream, "bad").await, "needs_copy");
    stream.source.exec("INSERT INTO good VALUES (3, 'x'); INSERT INTO bad VALUES (30, 'x', 'y')").await;
    stream.try_catch_up().expect_code(4);
    assert_same(&stream.source, &stream.target, "good").await;
    stream.target.exec("ALTER TABLE bad ALTER w TYPE text").await;
    reset(&stream, "--recopy");
    stream.catch_up();
    stream.source.exec("UPDATE bad SET w = 'z' WHERE id = 30").await;
    stream.catch_up();
    all_same(&stream).await;
}

#[tokio::test]
async fn a_trigger_that_was_off_for_a_while_costs_its_table_another_copy() {
    let stream = both().await;
    let off = "ALTER TABLE bad DISABLE TRIGGER \"!repcloud_row\"; UPDATE bad SET v = 'missed'";
    let on = "ALTER TABLE bad ENABLE ALWAYS TRIGGER \"!repcloud_row\"";
    for sql in [format!("{off}; {on}"), off.to_owned()] {
        stream.source.exec(&sql).await;
        stream.source.exec("INSERT INTO good SELECT max(id) + 1 FROM good").await;
        stream.try_catch_up().expect_code(4);
        assert_eq!(state(&stream, "bad").await, "needs_copy");
        assert_same(&stream.source, &stream.target, "good").await;
        reset(&stream, "--recopy");
        stream.catch_up();
        stream.source.exec("UPDATE bad SET v = 'seen' WHERE id = 3").await;
        stream.catch_up();
        all_same(&stream).await;
    }
}

#[tokio::test]
async fn a_table_that_joins_waits_for_its_triggers_beside_the_stream() {
    let mut stream = stream(Pair::start(), TABLES, &[GOOD]).await;
    stream.catch_up();
    by_triggers(&mut stream, &[BOTH]);
    let writer = Db::connect(&stream.pair.source, "app").await;
    writer.exec("BEGIN; UPDATE bad SET v = 'open' WHERE id = 1").await;
    let pid = writer.value("SELECT pg_backend_pid()").await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    let told = format!("sessions that hold one: pid {pid} (");
    wait::until("the writer is named", LIMIT, async || running.stderr().contains(&told)).await;
    assert!(running.stderr().contains("idle in transaction, transaction open for"), "{}", running.stderr());
    stream.source.exec("INSERT INTO good VALUES (2, 'meanwhile')").await;
    wait::until("the others go on", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM good").await == "2"
    })
    .await;
    writer.exec("COMMIT").await;
    wait::until("it joins", LIMIT, async || {
        stream.target.value("SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'").await
            == "2"
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("UPDATE bad SET v = 'seen' WHERE id = 3").await;
    stream.catch_up();
    all_same(&stream).await;
}

#[tokio::test]
async fn whoever_holds_a_lock_without_a_session_is_named() {
    let source = builder("source").setting("max_prepared_transactions", "5");
    let stream = stream(durable_pair(source), TABLES, &[BOTH]).await;
    stream.source.exec("BEGIN; UPDATE bad SET v = 'x' WHERE id = 1; PREPARE TRANSACTION 'left over'").await;
    let running = stream.program.spawn(&["stream", "--source", "prod", "--until", "caught-up"]);
    wait::until("it is named", LIMIT, async || running.stderr().contains("prepared transaction 'left over'"))
        .await;
    stream.source.exec("COMMIT PREPARED 'left over'").await;
    running.wait(LIMIT).expect_code(0);
    all_same(&stream).await;
}

#[tokio::test]
async fn a_table_that_cannot_be_dropped_now_stays_as_it_was() {
    let stream = both().await;
    let writer = Db::connect(&stream.pair.source, "app").await;
    writer.exec("BEGIN; UPDATE bad SET v = 'open' WHERE id = 1").await;
    let drop = ["drop-table", "public.bad", "--yes"];
    let failed = stream.program.run(&drop, LIMIT);
    assert!(failed.code() != 0 && failed.stderr.contains("stays in the stream as it was"), "{failed:?}");
    assert!(failed.stderr.contains("idle in transaction"), "{failed:?}");
    assert_eq!(state(&stream, "bad").await, "streaming");
    writer.exec("COMMIT").await;
    stream.catch_up();
    all_same(&stream).await;
    stream.program.run(&drop, LIMIT).expect_code(0);
    assert_eq!(stream.source.value(LEFT).await, "2 2 1 0 0");
    stream.source.exec("INSERT INTO good VALUES (2, 'x')").await;
    by_triggers_again(&stream, GOOD);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "good").await;
}

fn by_triggers_again(stream: &Stream, entry: &str) {
    let text = configuration(&stream.pair, &[entry]);
    let text = text.replacen("[connections.prod]\n", "[connections.prod]\ncapture = \"trigger\"\n", 1);
    stream.program.write("config/default.toml", &text);
}

/// As with a slot.
#[tokio::test]
async fn changes_of_a_table_that_is_out_of_the_configuration_wait_for_its_entry() {
    let stream = both().await;
    by_triggers_again(&stream, GOOD);
    stream
        .source
        .exec("INSERT INTO bad VALUES (21, 'while away', 1); UPDATE bad SET v = 'x' WHERE id = 3")
        .await;
    let told = stream.catch_up();
    assert!(
        told.stderr.contains("target table public.bad is parked")
            && told.stderr.contains("drop-table public.bad"),
        "{told:?}"
    );
    stream.source.exec("DELETE FROM bad WHERE id = 5; INSERT INTO good VALUES (2, 'x')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "good").await;
    assert_eq!(state(&stream, "bad").await, "parked");
    let queue = "SELECT 'repcloud.queue_' || 'public.bad'::regclass::oid";
    let queue = stream.source.value(queue).await;
    assert_eq!(
        stream.source.value(&format!("SELECT count(*) FROM {queue}")).await,
        "0",
        "they wait in the target"
    );
    by_triggers_again(&stream, BOTH);
    stream.catch_up();
    all_same(&stream).await;
}

#[tokio::test]
async fn a_stream_ends_at_a_position_of_the_wal() {
    let stream = both().await;
    stream.source.exec("INSERT INTO good VALUES (2, 'before')").await;
    let passed = stream.source.value("SELECT pg_current_wal_lsn()").await;
    let until = |lsn: &str| ["stream", "--source", "prod", "--until", lsn].map(str::to_owned);
    let arguments = until(&passed);
    stream.program.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), LIMIT).expect_code(0);
    all_same(&stream).await;
    let ahead = stream.source.value("SELECT pg_current_wal_insert_lsn() + 200000").await;
    let arguments = until(&ahead);
    let mut running = stream.program.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    stream.source.exec("INSERT INTO good VALUES (3, 'on the way')").await;
    assert!(running.is_running(), "{}", running.stderr());
    stream.source.exec("INSERT INTO good SELECT i, repeat('x', 200) FROM generate_series(10, 2000) i").await;
    running.wait(LIMIT).expect_code(0);
    all_same(&stream).await;
}

#[tokio::test]
async fn conditions_of_several_readers_of_one_queue_are_their_own_and_may_not_change_unseen() {
    let schema = "CREATE TABLE public.t (id int PRIMARY KEY, region text COLLATE \"C\", v text, n int);
        INSERT INTO t SELECT i, (ARRAY['eu', 'us', NULL])[i % 3 + 1], 'v', i FROM generate_series(1, 30) i";
    let stream = Stream::new(schema, "CREATE DATABASE second", &[]).await;
    let second = Db::connect(&stream.pair.target, "second").await;
    let program = |name: &str, database: &str, condition: &str| {
        let source =
            connection("prod", &stream.pair.source, "app").replacen("]\n", "]\ncapture = \"trigger\"\n", 1);
        let target = connection(name, &stream.pair.target, database);
        let entry = format!(
            "source = \"prod\"\ntarget = \"{name}\"\nmode = \"dml\"\ntables = [\"public.t\"]\ncondition = \"{condition}\""
        );
        Repcloud::new(&format!("{source}{target}[[replicate]]\n{entry}\n"))
    };
    let catch_up = |program: &Repcloud| {
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0)
    };
    let (eu, us) =
        (program("copy", "app", "region = 'eu'"), program("other", "second", "t.region > 'et' AND n < 1000"));
    for program in [&eu, &us] {
        catch_up(program);
    }
    stream
        .source
        .exec(
            "UPDATE t SET region = CASE region WHEN 'eu' THEN 'us' WHEN 'us' THEN 'eu' END WHERE id < 20; UPDATE t SET n = n + 1000 WHERE id % 4 = 0;
             INSERT INTO t VALUES (50, 'eu', '', 1), (51, 'us', NULL, 2), (52, NULL, 'x', 3); ALTER TABLE t ADD COLUMN later int;
             UPDATE t SET region = 'eu' WHERE id > 25; DELETE FROM t WHERE id % 5 = 0",
        )
        .await;
    stream.target.exec("ALTER TABLE t ADD COLUMN later int").await;
    second.exec("ALTER TABLE t ADD COLUMN later int").await;
    for program in [&eu, &us] {
        catch_up(program);
    }
    for (db, condition) in [(&stream.target, "region = 'eu'"), (&second, "region > 'et' AND n < 1000")] {
        let wanted = stream.source.query_hash(&format!("SELECT * FROM t WHERE {condition}")).await;
        assert_eq!(db.query_hash("SELECT * FROM t").await, wanted, "{condition}");
    }
    let changed = program("copy", "app", "region = 'us'");
    let refused = changed.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(3);
    assert!(refused.stderr.contains("not the one it was copied with"), "{refused:?}");
    let moving = program("copy", "app", "n < extract(epoch FROM now())");
    let refused = moving.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(3);
    assert!(refused.stderr.contains("must give the same for a row"), "{refused:?}");
    let reset = ["reset", "--source", "prod", "--table", "public.t", "--recopy", "--yes"];
    changed.run(&reset, LIMIT).expect_code(0);
    catch_up(&changed);
    stream.source.exec("UPDATE t SET region = 'us' WHERE id = 27").await;
    catch_up(&changed);
    let wanted = stream.source.query_hash("SELECT * FROM t WHERE region = 'us'").await;
    assert_eq!(stream.target.query_hash("SELECT * FROM t").await, wanted);
}

#[tokio::test]
async fn a_role_that_may_not_use_the_schema_of_another_is_told_what_helps() {
    let stream = both().await;
    stream
        .source
        .exec(
            "CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE app TO app; CREATE TABLE public.third (id int PRIMARY KEY, v text);
             INSERT INTO third VALUES (1, 'x'); GRANT TRIGGER, SELECT ON third, good TO app",
        )
        .await;
    stream.target.exec("CREATE DATABASE second").await;
    let second = Db::connect(&stream.pair.target, "second").await;
    let source = connection("prod", &stream.pair.source, "app")
        .replacen("]\n", "]\ncapture = \"trigger\"\n", 1)
        .replacen("user = \"postgres\"", "user = \"app\"", 1);
    let target = connection("other", &stream.pair.target, "second");
    let entry = "source = \"prod\"\ntarget = \"other\"\nmode = \"dml\"\ntables = [\"public.third\"]";
    let program = Repcloud::new(&format!("{source}{target}[[replicate]]\n{entry}\n"));
    let catch_up = || program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT);
    let refused = catch_up().expect_code(3);
    assert!(refused.stderr.contains("schema repcloud belongs to postgres"), "{refused:?}");
    let grants = refused.stderr.split("GRANT ").skip(1).filter_map(|text| text.split(';').next());
    let grants: Vec<String> = grants.map(|text| format!("GRANT {}", text.trim())).collect();
    assert!(grants.len() >= 3, "{refused:?}");
    for grant in &grants {
        stream.source.exec(grant).await;
    }
    catch_up().expect_code(0);
    stream.source.exec("UPDATE third SET v = 'changed'").await;
    catch_up().expect_code(0);
    assert_same(&stream.source, &second, "public.third").await;
    program.run(&["drop-table", "public.third", "--yes"], LIMIT).expect_code(0);
    stream.source.exec("INSERT INTO good VALUES (5, 'the other goes on')").await;
    stream.catch_up();
    all_same(&stream).await;
}

#[tokio::test]
async fn a_running_stream_is_verified_and_shows_where_it_is() {
    let stream = both().await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
    let load = Db::connect(&stream.pair.source, "app").await;
    let writing = tokio::spawn(async move {
        for i in 0..200 {
            load.exec(&format!(
                "UPDATE bad SET w = {i} WHERE id % 3 = {i} % 3; INSERT INTO good VALUES (1000 + {i}, 'x')"
            ))
            .await;
        }
    });
    stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(0);
    writing.await.unwrap();
    stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(0);
    stream.target.exec("UPDATE good SET v = 'other' WHERE id = 1").await;
    stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
    stream.target.exec("UPDATE good SET v = 'first' WHERE id = 1").await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.source.exec("INSERT INTO good VALUES (5000, 'waits')").await;
    let status = stream.program.json(&["status"], LIMIT);
    let shown = &status["streams"][0];
    assert_eq!(shown["capture"], "trigger");
    let applied = shown["applied_lsn"].as_str().unwrap();
    let near = format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{applied}') BETWEEN 0 AND 50000000");
    assert_eq!(stream.source.value(&near).await, "t", "{shown}");
    assert!(shown["lag_seconds"].as_f64().unwrap() > 0.0, "{shown}");
    let text = stream.program.run(&["status"], LIMIT).expect_code(0).stdout;
    assert!(text.contains("queues of repcloud_prod__copy take"), "{text}");
    assert!(text.contains("the oldest change has waited"), "{text}");
    let stopped = stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
    assert!(format!("{}{}", stopped.stdout, stopped.stderr).contains("waits in its queues"), "{stopped:?}");
}

#[tokio::test]
async fn with_its_last_table_a_stream_leaves_nothing_behind() {
    let stream = both().await;
    let file = stream.program.home().join("pid/default/stream_prod__copy.json");
    assert!(file.exists());
    for table in ["public.bad", "public.good"] {
        stream.program.run(&["drop-table", table, "--yes"], LIMIT).expect_code(0);
    }
    assert_eq!(stream.source.value(LEFT).await, "0 0 0 0 0");
    assert_eq!(
        stream.source.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'repcloud'").await,
        "0"
    );
    assert!(!file.exists());
}
