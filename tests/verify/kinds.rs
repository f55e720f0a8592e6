//! What counts as different, which rows count, and what is refused.

use std::time::Duration;

use repcloud::model::{Lsn, RetryAdvice, TableName};
use repcloud::verify::{self, Kind, Progress, VerifyError, VerifyOptions, VerifySpec};

use crate::world::{World, found, samples, small, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_compared_as_they_print() {
    let world = World::start().await;
    world.both("create table t (id int primary key, a text, b text, n numeric, f float8, j json)").await;
    world
        .source
        .exec("insert into t values (1, null, '', 1.0, 0.1, '{}'), (2, 'ab', 'c', 1.0, 0.1, '{}'), (3, ',', '\"', 1, 1, '1')")
        .await;
    world
        .target
        .exec("insert into t values (1, '', null, 1.0, 0.1, '{}'), (2, 'a', 'bc', 1.0, 0.1, '{}'), (3, ',', '\"', 1, 1, '1')")
        .await;
    assert_eq!(found(&world.verify(&spec("t", &["id"])).await), (0, 0, 2));
    let without = VerifySpec { columns: vec!["n".into(), "f".into(), "j".into()], ..spec("t", &["id"]) };
    assert_eq!(found(&world.verify(&without).await), (0, 0, 0));
    world.target.exec("update t set n = 1.00 where id = 3").await;
    assert_eq!(samples(&world.verify(&without).await), [(Kind::Different, "3".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_printed_otherwise_is_one_difference() {
    let world = World::start().await;
    world.both("create table n (id numeric primary key, v text)").await;
    world.both("create table h (a text, id numeric, v text, primary key (a, id))").await;
    world
        .source
        .exec("insert into n values (1.0, 'a'), (2, 'b'); insert into h select 'x', n.* from n")
        .await;
    world
        .target
        .exec("insert into n values (1.00, 'a'), (2, 'b'); insert into h select 'x', n.* from n")
        .await;
    assert_eq!(found(&world.verify(&spec("n", &["id"])).await), (0, 0, 1));
    assert_eq!(found(&world.verify(&spec("h", &["a", "id"])).await), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_count_without_a_key() {
    let world = World::start().await;
    world.both("create table t (a int, b text)").await;
    world.source.exec("insert into t select 1, null from generate_series(1, 5); insert into t values (2, 'x'), (3, 'y')").await;
    world.target.exec("insert into t select 1, null from generate_series(1, 3); insert into t values (2, 'x'), (2, 'x'), (4, 'y')").await;
    let outcome = world.verify(&spec("t", &[])).await;
    assert_eq!((outcome.rows, found(&outcome)), (7, (3, 2, 0)));
    assert!(outcome.samples.iter().all(|sample| sample.key.is_none()));
    // The key is nobody's promise: rows under it are compared as a set.
    world.both("alter table t alter a set not null").await;
    assert_eq!(found(&world.verify(&spec("t", &["a"])).await), (3, 2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_live_rows_and_rows_of_the_condition_count() {
    let world = World::start().await;
    world.source.exec("create table t (id int primary key, region text)").await;
    world
        .target
        .exec("create table t (id int primary key, region text, repcloud_source_deleted timestamptz)")
        .await;
    world.source.exec("insert into t select n, case when n % 2 = 0 then 'EU' else 'US' end from generate_series(1, 50) n").await;
    world
        .target
        .exec(
            "insert into t select n, 'EU', case when n > 50 then now() end from generate_series(2, 60, 2) n",
        )
        .await;
    let spec = VerifySpec {
        condition: Some("region = 'EU' -- of the union".into()),
        deleted_column: Some("repcloud_source_deleted".into()),
        ..spec("t", &["id"])
    };
    let outcome = world.verify(&spec).await;
    assert_eq!((outcome.rows, found(&outcome)), (25, (0, 0, 0)));
    assert_eq!(found(&world.count(&spec).await), (0, 0, 0));
    // Stamped though it lives; live though it is gone; there though the condition is false.
    world.target.exec("update t set repcloud_source_deleted = now() where id = 10").await;
    world.target.exec("update t set repcloud_source_deleted = null where id = 52").await;
    world.target.exec("insert into t values (3, 'US', null)").await;
    let outcome = world.verify(&spec).await;
    let expected = [(Kind::Missing, "10"), (Kind::Extra, "3"), (Kind::Extra, "52")];
    assert_eq!(samples(&outcome), expected.map(|(kind, key)| (kind, key.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_lopsided_tables() {
    let world = World::start().await;
    for (key, table) in [(&["id"][..], "keyed"), (&[][..], "bare"), (&["t", "id"][..], "texts")] {
        let constraint =
            if key.is_empty() { String::new() } else { format!(", primary key ({})", key.join(", ")) };
        world.both(&format!("create table {table} (id int, t text{constraint})")).await;
        let spec = spec(table, key);
        let outcome = world.verify(&spec).await;
        assert_eq!((outcome.rows, found(&outcome)), (0, (0, 0, 0)), "{table}");
        let fill = format!("insert into {table} select n, 'T' || n % 17 from generate_series(1, 500) n");
        world.target.exec(&fill).await;
        assert_eq!(found(&world.verify(&spec).await), (0, 500, 0), "{table}");
        world.source.exec(&format!("insert into {table} values (250, 'T12'), (900, 'x')")).await;
        assert_eq!(found(&world.verify(&spec).await), (1, 499, 0), "{table}");
        assert_eq!(found(&world.count(&spec).await), (0, 498, 0), "{table}");
        world.target.exec(&format!("truncate {table}")).await;
        assert_eq!(found(&world.verify(&spec).await), (2, 0, 0), "{table}");
        let few = VerifyOptions { stop_after: 1, recheck_rows: 1, ..small() };
        let outcome = world.try_verify(&spec, &few).await.unwrap();
        assert_eq!((outcome.differences, outcome.complete), (1, false), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_read_through_their_root_and_children_are_not() {
    let world = World::start().await;
    world
        .source
        .exec(
            "create table p (id int primary key, v text) partition by range (id); \
             create table p1 partition of p for values from (0) to (50); \
             create table p2 partition of p default; \
             create table kin (id int primary key, v text); create table child () inherits (kin); \
             insert into child values (7, 'not ours'); insert into kin values (1, 'ours')",
        )
        .await;
    world.target.exec("create table flat (id int primary key, v text); create table kin (id int primary key, v text); insert into kin values (1, 'ours')").await;
    world.source.exec("insert into p select n, 'v' || n from generate_series(1, 100) n").await;
    world.target.exec("insert into flat select n, 'v' || n from generate_series(1, 100) n").await;
    let target = TableName::new("public", "flat");
    for key in [&["id"][..], &[]] {
        let spec = VerifySpec { target: target.clone(), ..spec("p", key) };
        let outcome = world.verify(&spec).await;
        assert_eq!((outcome.rows, found(&outcome)), (100, (0, 0, 0)));
        world.target.exec("delete from flat where id = 49").await;
        assert_eq!(found(&world.verify(&spec).await), (1, 0, 0));
        world.target.exec("insert into flat values (49, 'v49')").await;
    }
    assert_eq!(found(&world.verify(&spec("kin", &["id"])).await), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_compared_is_said() {
    let world = World::start().await;
    world
        .both("create table t (id int primary key, v text); insert into t values (1, 'secret'), (2, 'b')")
        .await;
    world.both("create view seen as select * from t").await;
    let error = world.try_verify(&spec("nowhere", &[]), &small()).await.unwrap_err();
    assert_eq!(error.to_string(), "source table public.nowhere does not exist, or the role may not see it");
    let error = world.try_verify(&spec("seen", &[]), &small()).await.unwrap_err();
    assert!(matches!(error, VerifyError::NotATable { .. }), "{error}");
    let error = world.try_verify(&spec("t", &["Other"]), &small()).await.unwrap_err();
    assert!(error.to_string().contains("no column \"Other\""), "{error}");
    let bad = VerifySpec { condition: Some("v::int = 1".into()), ..spec("t", &["id"]) };
    let error = world.try_verify(&bad, &small()).await.unwrap_err();
    assert!(
        matches!(error, VerifyError::Server { .. }) && !format!("{error:?}{error}").contains("secret"),
        "{error}"
    );
    assert_eq!(error.advice(), RetryAdvice::Stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_and_statements_have_limits() {
    let world = World::start().await;
    world.both("create table t (id int primary key, v text); insert into t values (1, 'a')").await;
    world.target.exec("update t set v = 'b'").await;
    let (source, target) = (world.session("source").await, world.session("target").await);
    let spec = spec("t", &["id"]);
    let hasty = VerifyOptions { wait_limit: Duration::from_millis(20), ..small() };
    let never = |_: Lsn| std::future::pending::<Result<(), String>>();
    let error = verify::verify(&source, &target, &spec, &hasty, never, |_| {}).await.unwrap_err();
    assert!(matches!(error, VerifyError::NotApplied { .. }), "{error}");
    assert_eq!(error.advice(), RetryAdvice::Reconnect);
    let refused = |_: Lsn| async { Err("the stream has failed".to_owned()) };
    let error = verify::verify(&source, &target, &spec, &hasty, refused, |_| {}).await.unwrap_err();
    assert!(error.to_string().ends_with("failed: the stream has failed"), "{error}");
    // A table locked by somebody: the statement is cancelled and the session can be used again.
    let quick = VerifyOptions {
        statement_limit: Duration::from_millis(300),
        scan_limit: Duration::from_millis(300),
        ..small()
    };
    world.target.exec("begin; lock table t").await;
    let still = |_: Lsn| async { Ok(()) };
    let error = verify::verify(&source, &target, &spec, &quick, still, |_| {}).await.unwrap_err();
    assert!(matches!(error, VerifyError::Timeout { .. }), "{error}");
    world.target.exec("commit").await;
    let mut seen: Vec<Progress> = Vec::new();
    let outcome = verify::verify(&source, &target, &spec, &small(), still, |p| seen.push(p)).await.unwrap();
    assert_eq!(found(&outcome), (0, 0, 1));
    let last = seen.last().unwrap();
    assert_eq!((last.rows, last.suspects, last.differences), (1, 0, 1));
}

/// As on a server in FIPS mode; and rows that a policy hides must not look like missing ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_md5_and_with_row_security() {
    let world = World::start().await;
    world.source.exec("create role plain login").await;
    world.target.exec("revoke execute on function md5(text), md5(bytea) from public").await;
    world
        .both(
            "create table t (id int primary key, v text); grant select on t to plain; \
             insert into t select n, 'v' || n from generate_series(1, 50) n; create table bare as select * from t; \
             grant select on bare to plain",
        )
        .await;
    world.target.exec("delete from t where id = 20; update bare set v = null where id = 7").await;
    let (source, target) =
        (world.session_of("plain", "source").await, world.session_of("plain", "target").await);
    let still = |_: Lsn| async { Ok(()) };
    let keyed = spec("t", &["id"]);
    let outcome = verify::verify(&source, &target, &keyed, &small(), still, |_| {}).await.unwrap();
    assert_eq!(samples(&outcome), [(Kind::Missing, "20".to_owned())]);
    let outcome =
        verify::verify(&source, &target, &spec("bare", &[]), &small(), still, |_| {}).await.unwrap();
    assert_eq!(found(&outcome), (1, 1, 0));
    world
        .source
        .exec("create policy few on t using (id <> 20); alter table t enable row level security")
        .await;
    let error = verify::verify(&source, &target, &keyed, &small(), still, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("row-level security"), "{error}");
    assert_eq!(error.advice(), RetryAdvice::Stop);
}

/// A caller may run a comparison as a task of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_can_be_spawned() {
    let world = World::start().await;
    world.both("create table t (id int primary key)").await;
    let (source, target) = (world.session("source").await, world.session("target").await);
    let task = tokio::spawn(async move {
        let spec = spec("t", &["id"]);
        verify::verify(&source, &target, &spec, &small(), |_: Lsn| async { Ok(()) }, |_| {}).await
    });
    assert_eq!(task.await.unwrap().unwrap().rows, 0);
}
