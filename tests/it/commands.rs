//! What a person does to a stream from outside: look at it, leave a transaction out, take a table away.

use std::time::Duration;

use serde_json::Value;

use crate::support::db::assert_same;
use crate::support::stream::{LIMIT, Stream, configuration};
use crate::support::wait;

const ORDERS: &str = "CREATE TABLE public.orders (id int PRIMARY KEY, note text);
     INSERT INTO orders SELECT i, 'note ' || i FROM generate_series(1, 100) i";
const DML: &str = "mode = \"dml\"\ntables = [\"public.orders\"]";

fn status(stream: &Stream) -> Value {
    stream.program.json(&["status"], LIMIT)
}

#[tokio::test]
async fn status_shows_a_stream_from_before_its_start_to_after_its_end() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    let before = status(&stream);
    assert_eq!(
        (&before["version"], &before["repacks"]),
        (&Value::from(1), &Value::from(Vec::<Value>::new()))
    );
    let view = &before["streams"][0];
    assert_eq!(
        (&view["state"], &view["pid"], &view["error"]),
        (&"stopped".into(), &Value::Null, &Value::Null)
    );
    assert_eq!(view["tables"][0]["state"], "waiting");

    stream.catch_up();
    let after = status(&stream);
    let view = &after["streams"][0];
    assert_eq!(
        (&view["state"], &view["slot"], &view["slot_status"]),
        (&"stopped".into(), &"repcloud_prod__copy".into(), &"reserved".into())
    );
    assert_eq!(
        (&view["tables"][0]["state"], &view["tables"][0]["rows_copied"]),
        (&"streaming".into(), &100.into())
    );
    assert_eq!((&view["lag_seconds"], &view["error"]), (&0.0.into(), &Value::Null));

    let text = stream.program.run(&["status"], LIMIT).expect_code(0).stdout;
    assert!(text.contains("prod → copy  stopped") && text.contains("public.orders"), "{text}");
}

#[tokio::test]
async fn status_shows_a_running_stream_table_by_table() {
    let stream = Stream::new(
        &format!("{ORDERS}; CREATE TABLE items (id int PRIMARY KEY)"),
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\", \"public.items\"]"],
    )
    .await;
    let mut running = stream.program.spawn(&["stream", "--source", "prod"]);
    let target = &stream.target;
    wait::until("the first rows are there", LIMIT, async || {
        target.value("SELECT to_regclass('public.items') IS NOT NULL").await == "t"
    })
    .await;
    stream
        .source
        .exec("INSERT INTO items SELECT generate_series(1, 7); UPDATE orders SET note = 'x' WHERE id <= 3")
        .await;
    let pid = running.pid();
    let view = wait::value("status shows the changes", LIMIT, async || {
        let view = status(&stream)["streams"][0].take();
        (view["tables"][0]["changes_applied"] == 7 && view["tables"][1]["changes_applied"] == 3)
            .then_some(view)
    })
    .await;
    assert_eq!((&view["pid"], &view["tables"][0]["target_table"]), (&pid.into(), &"public.items".into()));
    let lsn = |name: &str| view[name].as_str().unwrap().parse::<repcloud::model::Lsn>().unwrap();
    assert!(lsn("received_lsn") >= lsn("applied_lsn") && lsn("applied_lsn").0 > 0, "{view}");
    wait::until("it is caught up", LIMIT, async || {
        let view = status(&stream)["streams"][0].take();
        view["state"] == "streaming" && view["lag_seconds"] == 0.0
    })
    .await;

    let watch = stream.program.spawn(&["status", "--watch", "--json"]);
    wait::until("it has shown itself twice", LIMIT, async || watch.stdout().lines().count() >= 2).await;
    watch.interrupt();
    for line in watch.wait(Duration::from_secs(20)).expect_code(0).stdout.lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["version"], 1);
    }
    // A stream that is held is not reset, nor is a table taken from it.
    for command in [
        &["reset", "--source", "prod", "--all", "--recopy", "--yes"][..],
        &["drop-table", "public.items", "--yes"],
        &["skip", "--source", "prod", "--lsn", view["applied_lsn"].as_str().unwrap()],
    ] {
        let refused = stream.program.run(command, LIMIT);
        assert!(refused.code() != 0, "{refused:?}");
    }
    assert!(running.is_running());
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_an_error_of_its_stream_alone() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    stream.catch_up();
    let config = std::fs::read_to_string(stream.program.home().join("config/default.toml")).unwrap();
    let more = "[connections.away]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"u\"\ndatabase = \"d\"\n\
                [[replicate]]\nsource = \"prod\"\ntarget = \"away\"\nmode = \"dml\"\ntables = [\"public.orders\"]\n";
    stream.program.write("config/default.toml", &(config + more));
    let document = status(&stream);
    let streams = document["streams"].as_array().unwrap();
    let of = |target: &str| streams.iter().find(|s| s["target"] == target).unwrap();
    assert!(of("away")["error"].as_str().unwrap().contains("target"), "{document}");
    assert_eq!((&of("copy")["error"], &of("copy")["tables"][0]["rows_copied"]), (&Value::Null, &100.into()));
}

#[tokio::test]
async fn a_transaction_is_left_out_and_kept() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    stream.catch_up();
    stream.target.exec("ALTER TABLE orders ADD CHECK (note <> 'secret value')").await;
    stream.source.exec("INSERT INTO orders VALUES (200, 'before')").await;
    stream.source.exec("BEGIN; INSERT INTO orders VALUES (201, 'good'), (202, 'secret value'); DELETE FROM orders WHERE id = 1; COMMIT").await;
    stream.source.exec("INSERT INTO orders VALUES (203, 'after')").await;
    let stopped = stream.try_catch_up().expect_code(4);
    let words = stopped.stderr.split_whitespace().collect::<Vec<_>>();
    let at = words.iter().position(|w| *w == "--lsn").expect("the hint names the transaction");
    let lsn = words[at + 1].trim_end_matches(|c: char| !c.is_ascii_hexdigit());
    stream.program.run(&["skip", "--source", "prod", "--lsn", "0/1"], LIMIT).expect_code(3);
    stream.program.run(&["skip", "--source", "prod", "--lsn", "FFFF/1"], LIMIT).expect_code(3);
    stream.program.run(&["skip", "--source", "prod", "--lsn", lsn], LIMIT).expect_code(0);
    stream.catch_up();
    let ids = stream
        .target
        .value("SELECT string_agg(id::text, ',' ORDER BY id) FROM orders WHERE id >= 200 OR id = 1")
        .await;
    assert_eq!(ids, "1,200,203");
    let kept = stream
        .target
        .value("SELECT string_agg(operation || ' ' || (coalesce(new_row, old_row)->>'id'), ',' ORDER BY id) FROM repcloud.conflict WHERE resolution = 'skipped'")
        .await;
    assert_eq!(kept, "insert 201,insert 202,delete 1");
    assert_eq!(
        stream.target.value("SELECT count(*) FROM repcloud.skip WHERE skipped_at IS NOT NULL").await,
        "1"
    );
    let conflicts = status(&stream)["streams"][0]["tables"][0]["conflicts"].take();
    assert_eq!(conflicts, 3);
}

#[tokio::test]
async fn a_skip_that_meets_no_transaction_is_told_and_removed() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    stream.catch_up();
    stream.source.exec("INSERT INTO orders VALUES (200, 'x')").await;
    let lsn = stream.source.value("SELECT pg_current_wal_lsn()").await;
    stream.source.exec("INSERT INTO orders VALUES (201, 'y')").await;
    stream.program.run(&["skip", "--source", "prod", "--lsn", &lsn], LIMIT).expect_code(0);
    let ended = stream.catch_up();
    assert!(ended.stderr.contains("nothing was left out"), "{ended:?}");
    assert_eq!(stream.target.value("SELECT count(*) FROM repcloud.skip").await, "0");
    assert_same(&stream.source, &stream.target, "orders").await;
}

#[tokio::test]
async fn a_dropped_table_leaves_nothing_behind() {
    let stream = Stream::new(
        &format!("{ORDERS}; CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)"),
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\"]", "mode = \"logdel\"\ntables = [\"public.items\"]"],
    )
    .await;
    stream.catch_up();
    let published = "SELECT coalesce(string_agg(pubname || ' ' || tablename, ',' ORDER BY 1), '') FROM pg_publication_tables";
    let told =
        stream.program.run(&["drop-table", "public.items", "--archive", "--yes"], LIMIT).expect_code(0);
    assert!(told.stdout.contains("remove it from [[replicate]]"), "{told:?}");
    assert_eq!(stream.source.value(published).await, "repcloud_prod__copy orders");
    assert_eq!(stream.target.value("SELECT count(*) FROM items").await, "1");
    assert_eq!(
        stream.target.value("SELECT string_agg(target_table, ',') FROM repcloud.table_state").await,
        "public.orders"
    );

    // The others go on without it.
    let config = std::fs::read_to_string(stream.program.home().join("config/default.toml")).unwrap();
    let (orders, _) =
        config.split_once("[[replicate]]\nsource = \"prod\"\ntarget = \"copy\"\nmode = \"logdel\"").unwrap();
    stream.program.write("config/default.toml", orders);
    stream.source.exec("INSERT INTO orders VALUES (300, 'x'); INSERT INTO items VALUES (2)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "orders").await;

    // The last one, whose entry is gone from the configuration already.
    let (connections, _) = orders.split_once("[[replicate]]").unwrap();
    stream.program.write("config/default.toml", connections);
    stream.program.run(&["drop-table", "public.nothing"], LIMIT).expect_code(2);
    stream.program.run(&["drop-table", "public.orders", "--yes"], LIMIT).expect_code(0);
    assert_eq!(stream.target.value("SELECT to_regclass('public.orders') IS NULL").await, "t");
    assert_eq!(stream.source.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    assert_eq!(stream.source.value("SELECT count(*) FROM pg_publication").await, "0");
    for table in ["checkpoint", "table_state", "durability", "skip"] {
        assert_eq!(
            stream.target.value(&format!("SELECT count(*) FROM repcloud.{table}")).await,
            "0",
            "{table}"
        );
    }
}

#[tokio::test]
async fn a_drop_that_was_cut_off_leaves_the_table_aside_and_is_finished_by_the_next() {
    let stream = Stream::new(
        &format!("{ORDERS}; CREATE TABLE items (id int PRIMARY KEY)"),
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\", \"public.items\"]"],
    )
    .await;
    stream.catch_up();
    // A view keeps the table from being dropped, which is the last step.
    stream.target.exec("CREATE VIEW v AS SELECT * FROM items").await;
    stream.program.run(&["drop-table", "public.items", "--yes"], LIMIT).expect_code(1);
    let stopped = stream.try_catch_up().expect_code(4);
    assert!(stopped.stderr.contains("needs another copy"), "{stopped:?}");
    assert_eq!(status(&stream)["streams"][0]["tables"][0]["state"], "needs_copy");
    stream.target.exec("DROP VIEW v").await;
    stream.program.run(&["drop-table", "public.items", "--yes"], LIMIT).expect_code(0);
    assert_eq!(stream.target.value("SELECT to_regclass('public.items') IS NULL").await, "t");
    // Still configured: it is a new table now.
    stream.source.exec("INSERT INTO items VALUES (5)").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "items").await;
}

#[tokio::test]
async fn verify_compares_at_rest_and_while_the_stream_runs() {
    let stream = Stream::new(
        &format!("{ORDERS}; CREATE TABLE items (id int PRIMARY KEY, gone bool); INSERT INTO items SELECT i FROM generate_series(1, 30) i"),
        "",
        &[
            "mode = \"dml\"\ntables = [\"public.orders\"]\ntarget_table = \"public.kept\"\ncolumns = [\"id\"]",
            "mode = \"logdel\"\ntables = [\"public.items\"]\ncondition = \"id > 10\"",
        ],
    )
    .await;
    stream.catch_up();
    stream.source.exec("DELETE FROM items WHERE id = 30").await;
    stream.catch_up();
    let verify = |more: &[&str], code: i32| {
        let arguments: Vec<&str> =
            ["verify", "--source", "prod"].into_iter().chain(more.iter().copied()).collect();
        stream.program.run(&arguments, LIMIT).expect_code(code)
    };
    let lines = |text: &str| text.lines().map(|l| serde_json::from_str(l).unwrap()).collect::<Vec<Value>>();
    let same = lines(&verify(&["--json"], 0).stdout);
    let of = |table: &str| {
        same.iter().find(|l| l["table"] == table).map(|l| (l["rows"].clone(), l["differences"].clone()))
    };
    assert_eq!(of("public.orders"), Some((100.into(), 0.into())));
    assert_eq!(of("public.items"), Some((19.into(), 0.into())));

    // At rest, what is on its way differs, and that is said.
    stream.source.exec("INSERT INTO orders VALUES (500, 'x')").await;
    let differs = verify(&["--table", "public.orders", "--json"], 1);
    assert_eq!(lines(&differs.stdout)[0]["differences"], 1);
    assert!(differs.stderr.contains("no process runs the stream"), "{differs:?}");
    verify(&["--table", "public.nothing"], 2);

    // While it runs, what is on its way is waited for.
    let running = stream.program.spawn(&["stream", "--source", "prod"]);
    wait::until("it streams", LIMIT, async || running.stderr().contains("streaming from slot")).await;
    stream.source.exec("INSERT INTO orders SELECT i FROM generate_series(1000, 3000) i").await;
    verify(&[], 0);
    verify(&["--count"], 0);
    stream.target.exec("DELETE FROM kept WHERE id = 5").await;
    let differs = verify(&["--table", "public.kept"], 1);
    assert!(
        differs.stdout.contains("1 missing in the target")
            && differs.stdout.contains("missing in the target: source table public.orders ctid (0,"),
        "{differs:?}"
    );
    verify(&["--table", "public.kept", "--count", "--json"], 1);
    running.terminate();
    running.wait(LIMIT).expect_code(0);
}

fn document(finished: &crate::support::process::Finished) -> Value {
    assert_eq!(finished.stdout.lines().count(), 1, "one document: {finished:?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

#[tokio::test]
async fn what_is_done_is_told_as_one_document() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    stream.catch_up();
    let run = |arguments: &[&str]| stream.program.run(arguments, LIMIT);

    let asked = run(&["reset", "--source", "prod", "--all", "--json"]).expect_code(2);
    let choices = document(&asked);
    assert_eq!((&choices["choice"], &choices["done"]), (&Value::Null, &false.into()));
    let of = |name: &str| {
        let all = choices["streams"][0]["choices"].as_array().unwrap();
        all.iter().find(|c| c["choice"] == name).unwrap().clone()
    };
    assert_eq!(choices["streams"][0]["target"], "copy");
    assert!(choices["streams"][0]["state"].as_str().unwrap().contains("position"), "{choices}");
    assert_eq!(
        (of("recopy")["effects"].as_array().unwrap().len(), of("recopy")["refused"].take()),
        (2, Value::Null)
    );
    assert!(of("accept-system")["refused"].as_str().unwrap().contains("is the system it was"), "{choices}");

    let done = document(
        &run(&["reset", "--source", "prod", "--table", "public.orders", "--recopy", "--yes", "--json"])
            .expect_code(0),
    );
    assert_eq!(
        (&done["source"], &done["choice"], &done["done"]),
        (&"prod".into(), &"recopy".into(), &true.into())
    );
    assert_eq!(done["effects"].as_array().unwrap().len(), 1);
    stream.catch_up();

    let lsn = stream.source.value("SELECT pg_current_wal_insert_lsn()").await;
    let skipped = document(&run(&["skip", "--source", "prod", "--lsn", &lsn, "--json"]).expect_code(0));
    assert_eq!(skipped, serde_json::json!({"source": "prod", "target": "copy", "lsn": lsn, "done": true}));

    let dropped =
        document(&run(&["drop-table", "public.orders", "--archive", "--yes", "--json"]).expect_code(0));
    assert_eq!(
        dropped,
        serde_json::json!({"source": "prod", "target": "copy", "table": "public.orders", "archived": true,
            "last": true, "left": [], "configured": true, "done": true})
    );
}

#[tokio::test]
async fn a_table_is_dropped_only_when_somebody_says_so() {
    let stream = Stream::new(ORDERS, "", &[DML]).await;
    stream.catch_up();
    let refused = stream.program.run(&["drop-table", "public.orders", "--json"], LIMIT).expect_code(2);
    for text in [
        "it is dropped with its rows",
        "last table",
        "no terminal to ask at",
        "add --yes",
        "nothing was changed",
    ] {
        assert!(refused.stderr.contains(text), "{text}: {refused:?}");
    }
    assert_eq!(refused.stdout, "");
    stream.source.exec("INSERT INTO orders VALUES (300, 'still here')").await;
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "orders").await;
}

#[tokio::test]
async fn doctor_does_not_fail_for_what_a_wildcard_leaves_out() {
    let schema = "CREATE TABLE public.good (id int PRIMARY KEY); CREATE TABLE public.keyless (id int)";
    let stream = Stream::new(schema, "", &["mode = \"dml\"\ntables = [\"public.*\"]"]).await;
    let seen = stream.program.run(&["doctor"], LIMIT).expect_code(0);
    assert!(seen.stdout.contains("the wildcard leaves it out"), "{seen:?}");
    stream.program.write(
        "config/default.toml",
        &configuration(&stream.pair, &["mode = \"dml\"\ntables = [\"public.good\", \"public.keyless\"]"]),
    );
    let failed = stream.program.run(&["doctor"], LIMIT).expect_code(3);
    assert!(failed.stdout.contains("REPLICA IDENTITY"), "{failed:?}");
}
