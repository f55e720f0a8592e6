//! Tables that got another name between two commands, and what a forgotten repack has left.

use super::{LIMIT, Live};

const S3: &str = "CREATE TABLE s3 (id int PRIMARY KEY, v text); CREATE INDEX s3_v ON s3 (v); \
    INSERT INTO s3 SELECT i, 'v' || i FROM generate_series(1, 500) i; ANALYZE";

#[tokio::test]
async fn a_prepared_table_is_repacked_or_undone_under_its_new_name() {
    let live = Live::new(S3, "").await;
    for (from, to, end, outcome) in [("s3", "s3x", "repack", "swapped"), ("s3x", "s3y", "abort", "aborted")] {
        live.command("prepare", &["--table", &format!("public.{from}")]).0.expect_code(0);
        live.owner.exec(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
        let (finished, reports) = live.command(end, &["--table", &format!("public.{to}")]);
        let finished = finished.expect_code(0);
        assert_eq!(reports[0]["outcome"], outcome, "{finished:?}");
        live.assert_clean().await;
    }
    assert_eq!(live.admin.value("SELECT count(*) FROM s3y").await, "500");
}

#[tokio::test]
async fn a_process_that_works_on_it_is_asked_to_let_go_under_the_new_name() {
    let live = Live::new(S3, "").await;
    let running = live.program.spawn(&["prepare", "--follow", "--table", "public.s3"]);
    crate::support::wait::until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
    live.owner.exec("ALTER TABLE s3 RENAME TO s3x").await;
    live.command("abort", &["--table", "public.s3x"]).0.expect_code(0);
    drop(running);
    live.assert_clean().await;
}

/// As versions left it that looked for the copy by the table's name alone.
#[tokio::test]
async fn a_copy_that_no_state_speaks_of_goes_with_abort_or_drop_schema() {
    let live = Live::new(S3, "").await;
    let orphan = "CREATE TABLE repcloud_new.s3 (LIKE public.s3x INCLUDING ALL); \
        ALTER INDEX repcloud_new.s3_v_idx RENAME TO s3_v";
    live.command("prepare", &["--table", "public.s3"]).0.expect_code(0);
    live.command("abort", &["--table", "public.s3"]).0.expect_code(0);
    live.owner.exec("ALTER TABLE s3 RENAME TO s3x").await;
    live.owner.exec(orphan).await;
    let (finished, reports) = live.command("abort", &["--table", "public.s3x"]);
    finished.expect_code(0);
    assert_eq!(reports[0]["reason"], serde_json::Value::Null, "{reports:?}");
    live.assert_clean().await;
    live.repack(&["--table", "public.s3x"]).0.expect_code(0);

    live.owner.exec(orphan).await;
    live.owner
        .exec("UPDATE repcloud.repack SET state = 'abandoned', shadow_oid = 'repcloud_new.s3'::regclass")
        .await;
    live.owner.exec("CREATE TABLE repcloud_new.\"my own\" (id serial PRIMARY KEY)").await;
    let refused = live.program.run(&["drop-schema"], LIMIT).expect_code(3);
    let told = "run: DROP TABLE repcloud_new.\"my own\"";
    assert!(refused.stderr.contains(told), "{refused:?}");
    assert!(!refused.stderr.contains("s3"), "{refused:?}");
    live.owner.exec(told.trim_start_matches("run: ")).await;
    live.program.run(&["drop-schema"], LIMIT).expect_code(0);
    let left = live.admin.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'repcloud%'").await;
    assert_eq!(left, "0");
}
