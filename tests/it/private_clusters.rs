//! The private servers themselves: they start, survive being stopped in any way, and leave nothing behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use repcloud::cluster::{ClusterError, StopMode};

use crate::support::cluster::{Pair, builder};
use crate::support::db::{Db, assert_same};
use crate::support::{process, wait};

const LIMIT: Duration = Duration::from_secs(30);

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_pair_keeps_rows_through_immediate_stop_and_leaves_nothing_behind() {
    let mut pair = Pair::start();
    pair.create_database("shop");
    for cluster in [&pair.source, &pair.target] {
        let db = Db::connect(cluster, "shop").await;
        db.exec("create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 1000) i")
            .await;
    }
    pair.source.restart(StopMode::Immediate).unwrap();
    pair.target.kill().unwrap();
    pair.target.start().unwrap();

    let source = Db::connect(&pair.source, "shop").await;
    let target = Db::connect(&pair.target, "shop").await;
    assert_same(&source, &target, "t").await;
    assert_eq!(target.value("select count(*) from t").await, "1000");
    assert_eq!(source.value("show wal_level").await, "logical");
    let identifier = "select system_identifier from pg_control_system()";
    assert_ne!(source.value(identifier).await, target.value(identifier).await, "two clusters are told apart");

    let pids = [pair.source.pid().unwrap(), pair.target.pid().unwrap()];
    let directories = [pair.source.directory().to_owned(), pair.target.directory().to_owned()];
    drop(pair);
    assert!(!pids.iter().any(|pid| runs(*pid)), "a server outlived its cluster");
    assert!(!directories.iter().any(|path| path.exists()), "a directory outlived its cluster");
}

#[test]
fn settings_lines_files_and_clients_reach_the_server() {
    let cluster = builder("configured")
        .setting("wal_sender_timeout", "7s")
        .setting("log_line_prefix", "it's %m ")
        .hba("host all nobody 127.0.0.1/32 reject")
        .file("extra.txt", "hello")
        .start()
        .unwrap();
    assert_eq!(
        cluster.psql("postgres", "show wal_sender_timeout; show log_line_prefix").unwrap(),
        "7s\nit's %m "
    );
    assert_eq!(cluster.psql("postgres", "select pg_read_file('extra.txt')").unwrap(), "hello");

    cluster.psql("postgres", "create role nobody login").unwrap();
    let conninfo = cluster.tcp_conninfo("postgres").replace("user=postgres", "user=nobody");
    let refused = cluster.client("psql").unwrap().args(["-X", &conninfo]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pg_hba.conf rejects"), "{refused:?}");

    cluster.create_database("odd \"name' = 1").unwrap();
    assert_eq!(cluster.psql("odd \"name' = 1", "select current_database()").unwrap(), "odd \"name' = 1");
    cluster.run_pgbench("postgres", &["-i", "-q", "-s", "1"]).unwrap();
    assert_eq!(cluster.psql("postgres", "select count(*) from pgbench_accounts").unwrap(), "100000");

    let error = cluster.psql("postgres", "select 1; select nonsense").unwrap_err().to_string();
    assert!(error.contains("psql on configured/postgres") && error.contains("nonsense"), "{error}");
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = builder("broken").setting("shared_buffers", "much").start().unwrap_err();
    assert!(matches!(error, ClusterError::DiedStarting { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[test]
fn a_directory_too_deep_for_a_socket_is_refused_at_once() {
    let place = tempfile::tempdir().unwrap();
    let deep = place.path().join("d".repeat(100));
    let error = builder("deep").base_directory(deep).start().unwrap_err();
    assert!(matches!(error, ClusterError::SocketPathTooLong(_)), "{error}");
    assert!(error.to_string().contains("REPCLOUD_CLUSTER_DIR"), "{error}");
}

#[test]
fn a_panicking_owner_leaves_nothing_behind() {
    let (pid, directory) = std::thread::spawn(|| {
        let cluster = builder("unlucky").start().unwrap();
        let seen = (cluster.pid().unwrap(), cluster.directory().to_owned());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _owned = cluster;
            std::panic::resume_unwind(Box::new("the test fails"));
        }))
        .unwrap_err();
        seen
    })
    .join()
    .unwrap();
    assert!(!runs(pid) && !directory.exists());
}

/// Not a test of its own: the next one runs it in a process that it kills.
#[test]
#[ignore = "runs inside a_killed_owner_leaves_nothing_behind"]
fn owner_to_be_killed() {
    let cluster = builder("orphan").start().unwrap();
    let report = std::env::var("ORPHAN_REPORT").unwrap();
    std::fs::write(&report, format!("{} {}", cluster.pid().unwrap(), cluster.directory().display())).unwrap();
    std::thread::sleep(LIMIT);
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private_clusters::owner_to_be_killed", "--ignored"])
        .env("ORPHAN_REPORT", &report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (pid, place) = wait::value("the other process has a server", LIMIT, async || {
        let text = std::fs::read_to_string(&report).ok()?;
        let (pid, place) = text.split_once(' ')?;
        Some((pid.parse().ok()?, place.to_owned()))
    })
    .await;
    assert!(runs(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait::until("the guard has stopped the server", LIMIT, async || !runs(pid)).await;
    wait::until("the guard has removed the directory", LIMIT, async || !Path::new(&place).exists()).await;
}

#[test]
fn the_binary_runs_with_a_home_of_its_own() {
    let repcloud = process::Repcloud::new("");
    let finished = repcloud.run(&["--version"], LIMIT).expect_code(0);
    assert_eq!(finished.stderr, "");
}
