//! pgbench's TPC-B: its sums agree on the target at every moment a reader looks.

use std::process::{Child, Stdio};

use super::load::{LIMIT, Reader, durable_pair, follow};
use crate::support::cluster::builder;
use crate::support::db::assert_same;
use crate::support::process::Running;
use crate::support::stream::Stream;
use crate::support::{scaled, wait};

const SUMS: &str = "SELECT CASE WHEN a = t AND a = b AND a = h THEN '' ELSE format('accounts %s, tellers %s, branches %s, history %s', a, t, b, h) END
    FROM (SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts) AS a, (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers) AS t,
                 (SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches) AS b, (SELECT coalesce(sum(delta), 0) FROM pgbench_history) AS h) s";

/// pgbench, ended when the test fails before it does.
struct Bench(Child);

impl Drop for Bench {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

async fn sums_agree(history: &str, history_entry: &str, before: &str) {
    let tables = "mode = \"dml\"\ntables = [\"public.pgbench_accounts\", \"public.pgbench_tellers\", \"public.pgbench_branches\"]";
    let entries = [
        tables.to_owned(),
        format!("mode = \"dml\"\ntables = [\"public.pgbench_history\"]\n{history_entry}"),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let stream = Stream::over(durable_pair(builder("source")), "", "", &entries).await;
    stream.pair.source.run_pgbench("app", &["-i", "-s", "1", "-q"]).unwrap();
    stream.source.exec(history).await;
    let mut command = stream.pair.source.client("pgbench").unwrap();
    let transactions = scaled(1500, 20_000).to_string();
    command.args(["-n", "-c", "4", "-j", "1", "-M", "prepared", "-t", &transactions, "app"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if !before.is_empty() {
        stream.catch_up();
    }
    let mut bench = Bench(command.spawn().unwrap());
    // First rows may be copied while pgbench runs; a reader can rely on the target once it streams.
    let mut running = follow(&stream);
    streaming(&stream, &mut running).await;
    let reader = Reader::start(&stream.pair.target, SUMS);
    wait::until("pgbench ends", LIMIT * 3, async || bench.0.try_wait().unwrap().is_some()).await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    println!("{} looks", reader.stop().await);
    for table in ["accounts", "tellers", "branches", "history"] {
        assert_same(&stream.source, &stream.target, &format!("pgbench_{table}")).await;
    }
    assert_ne!(stream.target.value("SELECT count(*) FROM pgbench_history").await, "0");
}

/// Waits until every table streams and the changes made during the copy are in: then the target is a moment of the source.
async fn streaming(stream: &Stream, running: &mut Running) {
    let known = "SELECT to_regclass('repcloud.table_state') IS NOT NULL";
    let states = "SELECT count(*) FROM repcloud.table_state WHERE state = 'streaming'";
    wait::until("the tables stream", LIMIT, async || {
        assert!(running.is_running(), "{}", running.stderr());
        stream.target.value(known).await == "t" && stream.target.value(states).await == "4"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_sums_agree_while_pgbench_runs() {
    sums_agree(
        "ALTER TABLE pgbench_history ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "",
        "caught up",
    )
    .await;
}

/// History without a key, for inserts alone; the first rows are copied while pgbench runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaled_sums_agree_with_a_history_of_inserts() {
    sums_agree("SELECT", "publish = \"insert\"", "").await;
}
