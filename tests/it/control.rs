//! `pause`, `resume` and `stop` of running streams.

use crate::support::stream::{LIMIT, Stream};
use crate::support::wait::until;

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)";
const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.t\"]";
const COUNT: &str = "SELECT count(*) FROM t";

fn ask(stream: &Stream, command: &str) -> Vec<String> {
    let told = stream.program.json(&[command, "--source", "prod"], LIMIT);
    assert_eq!(told["request"], command);
    told["asked"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn state(stream: &Stream) -> String {
    stream.program.json(&["status"], LIMIT)["streams"][0]["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_paused_stream_keeps_its_place_and_goes_on() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
    until("it streams", LIMIT, async || state(&stream) == "streaming").await;
    assert_eq!(ask(&stream, "pause"), ["prod → copy"]);
    until("it rests", LIMIT, async || state(&stream) == "paused").await;
    stream.source.exec("INSERT INTO t VALUES (11)").await;
    assert!(running.is_running());
    assert_eq!(
        stream.source.value("SELECT count(*) FROM pg_replication_slots WHERE active").await,
        "0",
        "nobody reads"
    );
    assert_eq!(stream.target.value(COUNT).await, "10");
    let other = stream.program.run(&["skip", "--source", "prod", "--lsn", "F/0"], LIMIT).expect_code(1);
    assert!(other.stderr.contains("another process"), "{other:?}");
    assert_eq!(ask(&stream, "resume"), ["prod → copy"]);
    until("the change arrives", LIMIT, async || stream.target.value(COUNT).await == "11").await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_stream_is_stopped_and_what_was_asked_of_it_is_not_asked_of_the_next() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    assert_eq!(ask(&stream, "stop"), [""; 0], "nothing runs");
    for paused in [false, true] {
        let running = stream.program.spawn(&["stream", "--source", "prod"]);
        until("it streams", LIMIT, async || state(&stream) == "streaming").await;
        if paused {
            ask(&stream, "pause");
            until("it rests", LIMIT, async || state(&stream) == "paused").await;
        }
        assert_eq!(ask(&stream, "stop"), ["prod → copy"]);
        let ended = running.wait(LIMIT).expect_code(0);
        assert!(ended.stderr.contains("start it again to go on"), "{ended:?}");
        assert_eq!(state(&stream), "stopped");
    }
    stream.source.exec("INSERT INTO t VALUES (11)").await;
    stream.catch_up();
    assert_eq!(stream.target.value(COUNT).await, "11");
}

/// However long it takes until the next process has the stream.
#[tokio::test]
async fn a_process_that_has_not_got_the_stream_does_not_heed_what_was_asked_of_another() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    until("it streams", LIMIT, async || state(&stream) == "streaming").await;
    ask(&stream, "stop");
    running.wait(LIMIT).expect_code(0);
    // Who makes schema `repcloud`, or looks at its version, waits for this lock.
    stream.target.exec("BEGIN; SELECT pg_advisory_xact_lock(7300102, 1)").await;
    let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND clock_timestamp() - query_start > '3 s')";
    let other = crate::support::db::Db::connect(&stream.pair.target, "app").await;
    until("it has waited for longer than it takes to look", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        other.value(waits).await == "t"
    })
    .await;
    stream.target.exec("ROLLBACK").await;
    until("it streams", LIMIT, async || state(&stream) == "streaming").await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_throttled_stream_is_a_wrong_command_line() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    let arguments = ["throttle", "--source", "prod", "--max-wal-rate", "1MB"];
    let refused = stream.program.run(&arguments, LIMIT).expect_code(2);
    assert!(refused.stderr.contains("pause --source"), "{refused:?}");
}

#[tokio::test]
async fn an_end_that_was_not_reached_is_no_success() {
    let stream = Stream::new(SCHEMA, "", &[ENTRY]).await;
    for by_command in [false, true] {
        let running = stream.program.spawn(&["stream", "--source", "prod", "--until", "FFFF/0"]);
        until("it streams", LIMIT, async || state(&stream) == "streaming").await;
        if by_command {
            assert_eq!(ask(&stream, "stop"), ["prod → copy"]);
        } else {
            running.terminate();
        }
        let ended = running.wait(LIMIT).expect_code(130);
        assert!(ended.stderr.contains("before its end was reached"), "{ended:?}");
    }
    stream.catch_up();
}
