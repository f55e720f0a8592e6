//! Source tables that are dropped or renamed away: the target table stands aside, is told with what helps, and the others go on.

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;
use crate::triggers::by_triggers;

const TABLES: &str = "
    CREATE TABLE public.good (id int PRIMARY KEY, v text);
    CREATE TABLE public.other (id int PRIMARY KEY, v text);
    INSERT INTO good VALUES (1, 'first');
    INSERT INTO other SELECT i, 'first' FROM generate_series(1, 10) i";
const NAMED: &str = "mode = \"dml\"\ntables = [\"public.good\", \"public.other\"]";
const WILDCARD: &str = "mode = \"dml\"\ntables = [\"public.*\"]";
const DROP_TABLE: &str = "repcloud drop-table public.other";

async fn streaming(capture: &str, entry: &str) -> Stream {
    let mut stream = Stream::new(TABLES, "", &[entry]).await;
    if capture == "trigger" {
        by_triggers(&mut stream, &[entry]);
    }
    stream.catch_up();
    stream
}

async fn state(stream: &Stream) -> String {
    stream.target.value("SELECT state FROM repcloud.table_state WHERE target_table = 'public.other'").await
}

async fn goes_on(stream: &Stream, id: u32) {
    stream.source.exec(&format!("INSERT INTO good VALUES ({id}, 'x')")).await;
    wait::until("the other table goes on", LIMIT, async || {
        stream.target.value(&format!("SELECT count(*) FROM good WHERE id = {id}")).await == "1"
    })
    .await;
}

#[tokio::test]
async fn a_named_source_table_that_was_dropped_stands_aside() {
    for capture in ["slot", "trigger"] {
        let stream = streaming(capture, NAMED).await;
        // While it runs.
        let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
        wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from")).await;
        stream.source.exec("DROP TABLE other").await;
        wait::until("it is noticed", LIMIT, async || state(&stream).await == "needs_copy").await;
        goes_on(&stream, 2).await;
        assert!(running.is_running() && running.stderr().contains(DROP_TABLE), "{}", running.stderr());
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        // And at every start from then on.
        stream.source.exec("INSERT INTO good VALUES (3, 'x')").await;
        let told = stream.try_catch_up().expect_code(4);
        assert!(told.stderr.contains(DROP_TABLE) && !told.stderr.contains("--accept-target"), "{told:?}");
        assert_same(&stream.source, &stream.target, "good").await;
        // It is there again, and is copied.
        stream
            .source
            .exec("CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'anew')")
            .await;
        let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        stream.catch_up();
        assert_same(&stream.source, &stream.target, "other").await;
        // Dropped while nobody streams, and given up for good: the entry may still name it.
        stream.source.exec("DROP TABLE other; INSERT INTO good VALUES (4, 'x')").await;
        stream.try_catch_up().expect_code(4);
        stream.program.run(&["drop-table", "public.other", "--yes"], LIMIT).expect_code(0);
        stream.catch_up();
        assert_same(&stream.source, &stream.target, "good").await;
        // A name that was never there is refused as before.
        let text = configuration(&stream.pair, &[&NAMED.replace("other", "othr")]);
        let capture = format!("[connections.prod]\ncapture = \"{capture}\"\n");
        stream.program.write("config/default.toml", &text.replacen("[connections.prod]\n", &capture, 1));
        stream.try_catch_up().expect_code(3);
    }
}

#[tokio::test]
async fn a_table_of_a_wildcard_that_was_dropped_is_told_with_what_works() {
    for capture in ["slot", "trigger"] {
        let stream = streaming(capture, WILDCARD).await;
        stream.source.exec("DROP TABLE other; INSERT INTO good VALUES (2, 'x')").await;
        let told = stream.try_catch_up();
        assert!(told.stderr.contains(DROP_TABLE), "{told:?}");
        assert_eq!(state(&stream).await, "needs_copy", "{capture}");
        let verified = stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(1);
        assert!(verified.stderr.contains("not compared: target table public.other"), "{verified:?}");
        stream.program.run(&["drop-table", "public.other", "--yes"], LIMIT).expect_code(0);
        stream.catch_up();
        stream.program.run(&["verify", "--source", "prod"], LIMIT).expect_code(0);
    }
}

#[tokio::test]
async fn a_source_table_that_goes_away_while_it_is_copied_stands_aside() {
    for (capture, entry) in [("slot", NAMED), ("trigger", NAMED), ("slot", WILDCARD)] {
        let stream = streaming(capture, entry).await;
        let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
        stream.program.run(&reset, LIMIT).expect_code(0);
        // A reader of the target keeps the copy from emptying it, after the snapshot was taken.
        let reader = crate::support::db::Db::connect(&stream.pair.target, "app").await;
        reader.exec("BEGIN; LOCK TABLE other IN ACCESS SHARE MODE").await;
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'other'::regclass AND NOT granted";
        wait::until("the copy waits", LIMIT, async || stream.target.value(waits).await == "1").await;
        stream.source.exec("DROP TABLE other").await;
        reader.exec("COMMIT").await;
        wait::until("it stands aside", LIMIT, async || state(&stream).await == "needs_copy").await;
        goes_on(&stream, 2).await;
        assert!(running.stderr().contains(DROP_TABLE), "{}", running.stderr());
        assert!(!running.stderr().contains("deserializ"), "{}", running.stderr());
        running.terminate();
        running.wait(LIMIT).expect_code(0);
        stream.program.run(&["drop-table", "public.other", "--yes"], LIMIT).expect_code(0);
        stream.catch_up();
    }
}

#[tokio::test]
async fn what_a_wildcard_leaves_out_is_told_once_by_a_process() {
    let stream = streaming("slot", WILDCARD).await;
    stream.source.exec("CREATE TABLE keyless (v text)").await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    let begun = || running.stderr().matches("streaming from").count();
    wait::until("it streams", LIMIT, async || begun() == 1).await;
    stream.source.exec("CREATE TABLE newcomer (id int PRIMARY KEY)").await;
    wait::until("it has begun again", LIMIT, async || begun() >= 3).await;
    running.terminate();
    let ended = running.wait(LIMIT).expect_code(0);
    assert_eq!(ended.stderr.matches("leaves out").count(), 1, "{ended:?}");
}

#[tokio::test]
async fn a_role_that_may_not_use_the_schema_of_another_on_the_target_is_told_what_helps() {
    let stream = streaming("slot", NAMED).await;
    stream.target.exec("CREATE ROLE app LOGIN; GRANT ALL ON good, other TO app").await;
    let text = configuration(&stream.pair, &[NAMED]);
    let (before, target) = text.split_once("[connections.copy]").expect("the target's connection");
    let target = target.replacen("user = \"postgres\"", "user = \"app\"", 1);
    stream.program.write("config/default.toml", &format!("{before}[connections.copy]{target}"));
    for command in [
        &["stream", "--source", "prod", "--until", "caught-up"][..],
        &["reset", "--source", "prod", "--table", "public.other", "--accept-target", "--yes"],
    ] {
        let refused = stream.program.run(command, LIMIT).expect_code(3);
        assert!(refused.stderr.contains("GRANT USAGE ON SCHEMA repcloud TO app;"), "{refused:?}");
    }
    let refused = stream.try_catch_up().expect_code(3);
    let (_, help) = refused.stderr.split_once("run on the target: ").expect("a statement");
    stream.target.exec(help.trim()).await;
    stream.source.exec("INSERT INTO good VALUES (2, 'x')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "good").await;
}

#[tokio::test]
async fn a_copy_that_waits_for_a_lock_on_the_target_says_who_holds_it() {
    let stream = streaming("slot", NAMED).await;
    let reset = ["reset", "--source", "prod", "--table", "public.other", "--recopy", "--yes"];
    stream.program.run(&reset, LIMIT).expect_code(0);
    let reader = crate::support::db::Db::connect(&stream.pair.target, "app").await;
    reader.exec("SET application_name = 'a long report'; BEGIN; SELECT count(*) FROM other").await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it is told", LIMIT, async || {
        let told = running.stderr();
        told.contains("the copy of target table public.other waits for a lock on it")
            && told.contains("a long report")
    })
    .await;
    reader.exec("COMMIT").await;
    wait::until("it is copied", LIMIT, async || state(&stream).await == "streaming").await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "other").await;
}
