//! The table, or what hangs on it, is changed while it is repacked: seen in every phase, explained, and never lost.

use super::{LIMIT, Live, ORDERS};
use crate::support::process::Finished;
use crate::support::wait::until;

const TABLE: [&str; 2] = ["--table", "public.orders"];

const ADD: &str = "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7";
const DROP: &str = "ALTER TABLE orders DROP COLUMN big";
const TYPE: &str = "ALTER TABLE orders ALTER COLUMN customer TYPE bigint";
const RENAME: &str = "ALTER TABLE orders RENAME COLUMN doc TO document";
const INDEX: &str = "CREATE INDEX orders_late ON orders (customer)";
const TRIGGER: &str = "CREATE TRIGGER late BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()";
const VIEW: &str = "CREATE VIEW late AS SELECT id FROM orders";
const CONSTRAINT: &str = "ALTER TABLE orders DROP CONSTRAINT orders_total_check";

/// Everything the application sees of the table.
async fn picture(live: &Live) -> (String, String) {
    let definition = "SELECT string_agg(d, E'\\n' ORDER BY d) FROM ( \
             SELECT format('column %s %s %s', attname, format_type(atttypid, atttypmod), atthasdef) AS d FROM pg_attribute \
             WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped \
             UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'orders' \
             UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal \
             UNION ALL SELECT viewname FROM pg_views WHERE schemaname = 'public') AS x";
    (live.admin.table_hash("orders").await, live.admin.value(definition).await)
}

/// Makes the change, and changes of rows.
async fn change(live: &Live, ddl: &str) -> (String, String) {
    live.owner.exec(ddl).await;
    live.session("writer").await.exec("UPDATE orders SET total = total + 1 WHERE id < 500").await;
    picture(live).await
}

/// It ended well with what was changed, or failed and says what was changed; either way the change and the rows are there.
async fn explained(live: &Live, ddl: &str, before: (String, String), finished: &Finished) {
    match finished.code() {
        0 => assert!(finished.stderr.contains("begins anew"), "{ddl}: {finished:?}"),
        1 => {
            let told = "was changed while it was being repacked";
            assert!(finished.stdout.contains(told), "{ddl}: {finished:?}");
            live.command("abort", &TABLE).0.expect_code(0);
        }
        _ => panic!("{ddl}: {finished:?}"),
    }
    assert_eq!(picture(live).await, before, "{ddl}: {finished:?}");
    live.assert_clean().await;
}

/// And the next one carries it over.
async fn repacked_again(live: &Live) {
    let before = picture(live).await;
    let again = live.repack(&TABLE).0.expect_code(0);
    assert_eq!(picture(live).await, before, "{again:?}");
    live.assert_clean().await;
}

#[tokio::test]
async fn in_the_copy() {
    let (live, hold) = Live::held(ORDERS, "").await;
    for ddl in [ADD, DROP, TYPE, TRIGGER] {
        std::fs::write(&hold, "").unwrap();
        let running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
        live.copy_rests().await;
        let before = change(&live, ddl).await;
        std::fs::remove_file(&hold).unwrap();
        explained(&live, ddl, before, &running.wait(LIMIT)).await;
    }
    repacked_again(&live).await;
}

#[tokio::test]
async fn while_the_indexes_are_built() {
    let (live, hold) = Live::held(ORDERS, "").await;
    let blocker = live.session("postgres").await;
    for ddl in [RENAME, INDEX, CONSTRAINT, VIEW] {
        std::fs::write(&hold, "").unwrap();
        let running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
        live.copy_rests().await;
        blocker.exec("BEGIN; LOCK TABLE repcloud_new.orders IN ROW EXCLUSIVE MODE").await;
        std::fs::remove_file(&hold).unwrap();
        let building = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE%INDEX%'";
        until("indexes are built", LIMIT, || async { live.admin.value(building).await == "t" }).await;
        let before = change(&live, ddl).await;
        blocker.exec("COMMIT").await;
        explained(&live, ddl, before, &running.wait(LIMIT)).await;
    }
    repacked_again(&live).await;
}

#[tokio::test]
async fn while_it_is_caught_up() {
    let live = Live::new(ORDERS, "").await;
    let blocker = live.session("postgres").await;
    for ddl in [ADD, DROP, TYPE, INDEX] {
        let running =
            live.program.spawn(&["repack", "--table", "public.orders", "--json", "--postpone-swap"]);
        until("it is ready", LIMIT, || async { live.state().await == "verified" }).await;
        // Changes queue up behind a row that cannot be changed in the copy.
        blocker.exec("BEGIN; SELECT * FROM repcloud_new.orders WHERE id = 1 FOR UPDATE").await;
        live.session("writer").await.exec("UPDATE orders SET total = total + 1 WHERE id < 500").await;
        live.admin.exec("UPDATE repcloud.repack SET request = 'swap'").await;
        let before = change(&live, ddl).await;
        blocker.exec("COMMIT").await;
        explained(&live, ddl, before, &running.wait(LIMIT)).await;
    }
    repacked_again(&live).await;
}

#[tokio::test]
async fn between_two_attempts_of_the_exchange() {
    let live = Live::new(ORDERS, "lock_timeout = \"50ms\"").await;
    let reader = live.session("reader").await;
    for ddl in [RENAME, TRIGGER, VIEW, INDEX] {
        reader.exec("BEGIN; SELECT count(*) FROM customer").await;
        let arguments = ["repack", "--table", "public.orders", "--json", "--attempts", "1000"];
        let running = live.program.spawn(&arguments);
        until("it tries to swap", LIMIT, || async {
            live.state().await == "verified"
                && live
                    .admin
                    .value("SELECT max(attempt) > 0 FROM repcloud.repack WHERE state = 'verified'")
                    .await
                    == "t"
        })
        .await;
        let before = change(&live, ddl).await;
        reader.exec("COMMIT").await;
        explained(&live, ddl, before, &running.wait(LIMIT)).await;
    }
    repacked_again(&live).await;
}

#[tokio::test]
async fn the_table_is_dropped_or_renamed() {
    for (ddl, what) in [
        ("DROP TABLE orders CASCADE", "the table was dropped"),
        ("ALTER TABLE orders RENAME TO others", "the table is public.others now"),
    ] {
        let (live, hold) = Live::held(ORDERS, "").await;
        let running = live.program.spawn(&["repack", "--table", "public.orders", "--json"]);
        live.copy_rests().await;
        live.owner.exec(ddl).await;
        std::fs::remove_file(&hold).unwrap();
        let finished = running.wait(LIMIT).expect_code(1);
        let told = format!("the repack of public.orders cannot go on: {what}");
        assert!(finished.stdout.contains(&told), "{ddl}: {finished:?}");
        live.assert_clean().await;
    }
}
