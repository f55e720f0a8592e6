//! What a person is told about a stream: true, complete, and of use.

use serde_json::Value;

use crate::support::stream::{LIMIT, Stream};
use crate::support::wait;

const SCHEMA: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 300) i";
const ENTRY: &str = "mode = \"dml\"\ntables = [\"public.t\"]";

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
