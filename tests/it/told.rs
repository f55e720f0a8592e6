//! What a person is told about a stream: true, complete, and of use.

use serde_json::Value;

use crate::support::stream::{LIMIT, Stream, configuration};
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
