//! What a person is told about a stream: true, complete, and of use.

use serde_json::Value;

use crate::support::stream::{LIMIT, Stream, configuration, connection};
use crate::support::wait;

const SCHEMA: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 300) i";
const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.t\"]";
const ALL: &str = "mode = \"dml\"\ntables = [\"public.*\"]";

fn status(stream: &Stream) -> Value {
    stream.program.json(&["status"], LIMIT)["streams"][0].take()
}

#[tokio::test]
async fn a_second_process_says_who_runs_the_stream_and_leaves_its_status_alone() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let first = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || status(&stream)["state"] == "streaming").await;
    let second = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it waits", LIMIT, async || second.stderr().contains("trying again")).await;
    let who = format!("process {}", first.pid());
    assert!(second.stderr().contains("another process runs the stream"), "{}", second.stderr());
    assert!(second.stderr().contains(&who), "{who}: {}", second.stderr());
    let is_true = |view: &Value| {
        assert_eq!((&view["pid"], &view["state"]), (&first.pid().into(), &"streaming".into()), "{view}");
        assert_eq!(view["error"], Value::Null);
    };
    is_true(&status(&stream));
    second.terminate();
    second.wait(LIMIT).expect_code(0);
    is_true(&status(&stream));
    first.terminate();
    first.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn rows_of_the_first_copy_are_counted_also_without_statistics() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    stream.catch_up();
    let table = status(&stream)["tables"][0].take();
    assert_eq!((&table["rows_copied"], &table["rows_total"]), (&300.into(), &300.into()), "{table}");
}

#[tokio::test]
async fn a_table_that_cannot_be_emptied_is_not_accepted_for_another_copy() {
    let target = "CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE app TO plain; GRANT CREATE, USAGE ON SCHEMA public TO plain";
    let schema = format!("{SCHEMA}; CREATE TABLE u (id int PRIMARY KEY)");
    let entry = "mode = \"dml\"\ntables = [\"public.t\", \"public.u\"]";
    let stream = Stream::new(&schema, target, &[entry]).await;
    let text = configuration(&stream.pair, &[entry]);
    let (prod, copy) = text.split_once("[connections.copy]").unwrap();
    let copy = copy.replace("user = \"postgres\"", "user = \"plain\"");
    stream.program.write("config/default.toml", &format!("{prod}[connections.copy]{copy}"));
    stream.catch_up();
    let reset = |more: &[&str]| {
        let all: Vec<&str> = ["reset", "--source", "prod"].into_iter().chain(more.iter().copied()).collect();
        stream.program.run(&all, LIMIT)
    };
    stream
        .target
        .exec("CREATE TABLE mine (id int CONSTRAINT of_t REFERENCES t); REVOKE TRUNCATE ON u FROM plain")
        .await;
    for scope in [&["--table", "public.t"][..], &["--all"]] {
        let more: Vec<&str> = scope.iter().copied().chain(["--recopy", "--yes"]).collect();
        let refused = reset(&more).expect_code(3);
        for told in [
            "public.t cannot be emptied",
            "of_t on public.mine",
            "ALTER TABLE public.mine DROP CONSTRAINT of_t;",
        ] {
            assert!(refused.stderr.contains(told), "{told}: {refused:?}");
        }
    }
    let refused = reset(&["--table", "public.u", "--recopy", "--yes"]).expect_code(3);
    assert!(refused.stderr.contains("GRANT TRUNCATE ON public.u TO plain;"), "{refused:?}");
    // Nothing was marked: the stream goes on as it was.
    stream.source.exec("UPDATE t SET v = 'x' WHERE id = 1").await;
    stream.catch_up();
    stream.target.exec("ALTER TABLE mine DROP CONSTRAINT of_t; GRANT TRUNCATE ON u TO plain").await;
    reset(&["--all", "--recopy", "--yes"]).expect_code(0);
    stream.catch_up();
}

#[tokio::test]
async fn verify_tells_of_tables_that_wait_and_of_those_that_were_dropped() {
    let stream = Stream::new(&format!("{SCHEMA}; CREATE TABLE u (id int PRIMARY KEY)"), "", &[ALL]).await;
    stream.catch_up();
    stream.source.exec("CREATE TABLE late (id int PRIMARY KEY); CREATE TABLE keyless (id int)").await;
    let verify = |more: &[&str], code: i32| {
        let all: Vec<&str> = ["verify", "--source", "prod"].into_iter().chain(more.iter().copied()).collect();
        stream.program.run(&all, LIMIT).expect_code(code)
    };
    let waits = verify(&[], 1);
    assert!(waits.stderr.contains("public.late waits"), "{waits:?}");
    assert!(!waits.stderr.contains("keyless") && waits.stdout.contains("public.t"), "{waits:?}");
    assert!(verify(&["--table", "public.late"], 3).stderr.contains("public.late waits"));
    stream.catch_up();
    verify(&[], 0);

    stream.program.run(&["drop-table", "public.u", "--yes"], LIMIT).expect_code(0);
    let again = "repcloud reset --source prod --table public.u --recopy";
    let dropped = verify(&["--table", "public.u"], 3);
    assert!(dropped.stderr.contains("by drop-table") && dropped.stderr.contains(again), "{dropped:?}");
    assert!(!dropped.stderr.contains("[[replicate]]"), "{dropped:?}");
    assert!(verify(&[], 0).stderr.contains("public.u was taken out"));
    stream.program.run(&again.split(' ').skip(1).chain(["--yes"]).collect::<Vec<_>>(), LIMIT).expect_code(0);
    stream.catch_up();
    assert!(verify(&["--table", "public.u"], 0).stdout.contains("public.u"));
}

#[tokio::test]
async fn verify_shows_where_rows_differ_and_none_of_their_values() {
    let schema = "CREATE TABLE t (k text PRIMARY KEY, v int); INSERT INTO t SELECT 'SECRET' || i, i FROM generate_series(1, 20) i;
         CREATE TABLE u (v text); ALTER TABLE u REPLICA IDENTITY FULL; INSERT INTO u VALUES ('SECRET')";
    let stream = Stream::new(schema, "", &[ALL]).await;
    stream.catch_up();
    stream
        .target
        .exec("DELETE FROM t WHERE v = 1; UPDATE t SET v = 0 WHERE v = 2; INSERT INTO t VALUES ('SECRET x', 3); TRUNCATE u")
        .await;
    let differs = stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
    assert!(!differs.stdout.contains("SECRET") && !differs.stderr.contains("SECRET"), "{differs:?}");
    assert!(differs.stdout.contains("1 missing in the target, 1 extra, 1 different"), "{differs:?}");
    let of = |what: &str| {
        let line = differs
            .stdout
            .lines()
            .find(|l| l.contains(what))
            .unwrap_or_else(|| panic!("{what}: {differs:?}"));
        line.rsplit_once("ctid ").unwrap().1.to_owned()
    };
    let key = |ctid: String| format!("SELECT k FROM t WHERE ctid = '{ctid}'");
    let source = &stream.source;
    assert_eq!(source.value(&key(of("missing in the target: source table"))).await, "SECRET1");
    assert_eq!(source.value(&key(of("different in the target: source table"))).await, "SECRET2");
    assert_eq!(stream.target.value(&key(of("extra in the target: target table"))).await, "SECRET x");
}

#[tokio::test]
async fn a_target_table_of_two_streams_is_not_dropped_by_guess() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    stream.pair.target.create_database("second").expect("a database");
    let more = connection("second", &stream.pair.target, "second")
        + &format!("[[replicate]]\nsource = \"prod\"\ntarget = \"second\"\n{ENTRY}\n");
    stream.program.write("config/default.toml", &(configuration(&stream.pair, &[ENTRY]) + &more));
    stream.catch_up();
    let refused = stream.program.run(&["drop-table", "public.t", "--yes"], LIMIT).expect_code(2);
    for told in ["prod → copy", "prod → second", "--config"] {
        assert!(refused.stderr.contains(told), "{told}: {refused:?}");
    }
    assert_eq!(stream.target.value("SELECT count(*) FROM t").await, "300");
}

/// Two configurations, staging beside production, may use the same names for their connections.
#[tokio::test]
async fn a_configuration_with_the_same_names_does_not_show_the_stream_of_another_one() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let other =
        configuration(&stream.pair, &[ENTRY]).replace("database = \"app\"", "database = \"postgres\"");
    stream.program.write("config/other.toml", &other);
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || status(&stream)["state"] == "streaming").await;
    let shown = stream.program.json(&["--config", "other", "status"], LIMIT)["streams"][0].take();
    assert!(shown["pid"].is_null() && shown["state"] != "streaming", "{shown}");
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

/// A command that is printed can be typed as it is.
#[tokio::test]
async fn a_table_that_needs_a_person_names_the_command_that_helps() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || status(&stream)["state"] == "streaming").await;
    let error = async || status(&stream)["tables"][0]["error"].as_str().unwrap_or_default().to_owned();
    stream.source.exec("ALTER TABLE t ALTER id TYPE bigint; INSERT INTO t VALUES (1000)").await;
    wait::until("it is parked", LIMIT, async || status(&stream)["tables"][0]["state"] == "parked").await;
    wait::until("it streams on without it", LIMIT, async || {
        running.stderr().matches("streaming from slot").count() == 2
    })
    .await;
    let told = error().await;
    let accept = "with the stream stopped: repcloud reset --source prod --table public.t --accept-target";
    assert!(told.contains(accept) && !told.contains('…'), "{told}");
    // As it says: not beside the running stream.
    let command: Vec<&str> = accept.split(' ').skip_while(|w| *w != "reset").chain(["--yes"]).collect();
    let refused = stream.program.run(&command, LIMIT);
    assert!(refused.code() != 0 && refused.stderr.contains("another process runs"), "{refused:?}");
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.target.exec("ALTER TABLE t ALTER id TYPE bigint").await;
    stream.program.run(&command, LIMIT).expect_code(0);
    stream.catch_up();
    stream.target.exec("ALTER TABLE t RENAME TO away; ALTER INDEX t_pkey RENAME TO away_pkey").await;
    stream.source.exec("INSERT INTO t VALUES (1001)").await;
    let gone = stream.try_catch_up().expect_code(4);
    let recopy = "repcloud reset --source prod --table public.t --recopy";
    assert!(gone.stderr.contains(recopy) && !gone.stderr.contains("--table …"), "{gone:?}");
    let command: Vec<&str> = recopy.split(' ').skip(1).chain(["--yes"]).collect();
    stream.program.run(&command, LIMIT).expect_code(0);
    stream.catch_up();
    assert_eq!(stream.target.value("SELECT count(*) FROM t").await, "302");
}
