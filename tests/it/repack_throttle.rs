//! When the copy pauses, on a real server.

use std::process::{Child, Stdio};
use std::time::Duration;

use repcloud::repack::options::ThrottleOptions;
use repcloud::repack::preflight::{Severity, throttle};
use repcloud::repack::throttle::Throttle;

use crate::support::owner::{Owner, lines};
use crate::support::wait;

const LIMIT: Duration = Duration::from_secs(30);

async fn now(owner: &Owner, options: &ThrottleOptions) -> Option<String> {
    Throttle::new(options.clone()).reason(&owner.session).await.unwrap()
}

#[tokio::test]
async fn a_query_and_a_file_pause() {
    let owner = Owner::start().await;
    let query = |sql: &str| ThrottleOptions { query: Some(sql.to_owned()), ..ThrottleOptions::default() };
    assert_eq!(now(&owner, &ThrottleOptions::default()).await, None);
    for calm in ["SELECT false", "select 0", "SELECT count(*) > 1000 FROM pg_stat_activity", "SELECT -1.5"] {
        assert_eq!(now(&owner, &query(calm)).await, None, "{calm}");
    }
    for (sql, reason) in [
        ("SELECT true", "it asks for a pause"),
        ("SELECT 3", "it asks for a pause"),
        ("SELECT NULL::bool", "NULL or no row"),
        ("SELECT true WHERE false", "NULL or no row"),
        ("SELECT 'maybe'", "neither a boolean nor a number"),
        ("SELECT no_such_column", "it failed"),
        ("CREATE TABLE public.written (id int)", "it failed"),
        ("SELECT pg_sleep(20)", "it failed"),
    ] {
        let found = now(&owner, &query(sql)).await;
        assert!(found.as_ref().is_some_and(|found| found.contains(reason)), "{sql}: {found:?}");
    }
    assert_eq!(owner.session.query("SELECT 1", &[]).await.unwrap().len(), 1, "the session is as before");
    let refused = throttle::check(&owner.session, &query("SELECT no_such_column")).await.unwrap();
    assert!(refused.len() == 1 && refused[0].severity == Severity::Refuse, "{:?}", lines(&refused));
    let told = throttle::check(&owner.session, &query("SELECT true")).await.unwrap();
    assert!(told.len() == 1 && told[0].severity == Severity::Warn, "{:?}", lines(&told));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pause");
    let options = ThrottleOptions { file: Some(file.clone()), ..ThrottleOptions::default() };
    assert_eq!(now(&owner, &options).await, None);
    std::fs::write(&file, "").unwrap();
    assert!(now(&owner, &options).await.unwrap().ends_with("pause exists"));
    let unknown = ThrottleOptions { file: Some(file.join("below")), ..options };
    assert!(now(&owner, &unknown).await.unwrap().contains("cannot be looked for"));
}

/// A program that takes WAL as a replica does, and tells nothing of what it replays.
struct Receiver(Child);

impl Drop for Receiver {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[tokio::test]
async fn a_replica_whose_lag_is_unknown_pauses() {
    let owner = Owner::start().await;
    let options = ThrottleOptions { lag: Some(Duration::from_secs(30)), ..ThrottleOptions::default() };
    assert_eq!(now(&owner, &options).await, None, "there are no replicas");
    assert_eq!(throttle::check(&owner.session, &options).await.unwrap(), []);
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let child = owner
        .cluster
        .client("pg_receivewal")
        .unwrap()
        .args(["--no-loop", "--directory"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _receiver = Receiver(child);
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait::until("the receiver streams", LIMIT, async || owner.admin.value(streaming).await == "1").await;
    let found = throttle::check(&owner.session, &options).await.unwrap();
    assert!(found.len() == 1 && found[0].severity == Severity::Refuse, "{:?}", lines(&found));
    assert!(found[0].problem.contains("GRANT pg_monitor"), "{:?}", lines(&found));
    owner.admin.exec("GRANT pg_monitor TO app").await;
    let reason = now(&owner, &options).await.unwrap_or_default();
    assert!(reason.contains("pg_receivewal is unknown: it does not tell what it has replayed"), "{reason}");
}

#[tokio::test]
async fn a_rate_of_wal_is_measured_between_two_looks() {
    let owner = Owner::start().await;
    owner.app.exec("CREATE TABLE t (v text)").await;
    let options = ThrottleOptions { max_wal_rate: Some(100 << 10), ..ThrottleOptions::default() };
    let mut throttle = Throttle::new(options);
    assert_eq!(throttle.reason(&owner.session).await.unwrap(), None, "nothing to compare with");
    let mut seen = None;
    let deadline = std::time::Instant::now() + LIMIT;
    while seen.is_none() {
        assert!(std::time::Instant::now() < deadline, "no rate was seen");
        owner.app.exec("INSERT INTO t SELECT repeat('x', 500) FROM generate_series(1, 5000)").await;
        seen = throttle.reason(&owner.session).await.unwrap();
    }
    assert!(seen.as_ref().is_some_and(|seen| seen.starts_with("max_wal_rate: ")), "{seen:?}");
    // When nobody writes any more, it goes on.
    loop {
        assert!(std::time::Instant::now() < deadline, "it pauses for ever");
        if throttle.reason(&owner.session).await.unwrap().is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
