//! A target whose disk is full.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use repcloud::cluster::Cluster;

use super::load::{LIMIT, durable_pair, follow};
use crate::support::cluster::builder;
use crate::support::db::{Db, assert_same};
use crate::support::stream::Stream;
use crate::support::wait;

/// A small file system for the server's user; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where file systems cannot be mounted (not root, or not allowed to).
    fn mount(cluster: &Cluster, size: &str) -> Option<Self> {
        let owner = std::fs::metadata(cluster.data_directory()).unwrap();
        let place = cluster.directory().join("small");
        std::fs::create_dir(&place).unwrap();
        let disk = SmallDisk(place);
        let options = format!("size={size},uid={},gid={},mode=0700", owner.uid(), owner.gid());
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(disk.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(disk)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn grow(&self, size: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still have files open. It fails when nothing was mounted.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).output();
        let _removed = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_target_is_waited_out() {
    let pair = durable_pair(builder("source"));
    let Some(disk) = SmallDisk::mount(&pair.target, "2m") else {
        eprintln!("SKIPPED: a file system of limited size cannot be mounted here");
        return;
    };
    pair.create_database("app");
    let location = disk.path().display();
    pair.target.psql("postgres", &format!("CREATE TABLESPACE small LOCATION '{location}'")).unwrap();
    let source = Db::connect(&pair.source, "app").await;
    let target = Db::connect(&pair.target, "app").await;
    let schema = "CREATE TABLE public.t (id bigint PRIMARY KEY, v text)";
    source.exec(schema).await;
    target.exec(&format!("{schema} TABLESPACE small")).await;
    let entries = &["mode = \"dml\"\ntables = [\"public.t\"]"];
    let program =
        crate::support::process::Repcloud::new(&crate::support::stream::configuration(&pair, entries));
    let stream = Stream { pair, source, target, program };
    stream.catch_up();
    let mut running = follow(&stream);
    for batch in 0..20 {
        let insert = "INSERT INTO t SELECT $ * 1000 + i, repeat('x', 500) FROM generate_series(1, 500) i";
        stream.source.exec(&insert.replace('$', &batch.to_string())).await;
    }
    wait::until("it says that the disk is full", LIMIT, async || {
        assert!(running.is_running(), "it gave up: {}", running.stderr());
        running.stderr().contains("No space left on device")
    })
    .await;
    assert!(
        running.stderr().contains("53100") && running.stderr().contains("trying again"),
        "{}",
        running.stderr()
    );
    disk.grow("64m");
    let count = stream.source.value("SELECT count(*) FROM t").await;
    wait::until("it goes on by itself", LIMIT, async || {
        assert!(running.is_running(), "it gave up: {}", running.stderr());
        stream.target.value("SELECT count(*) FROM t").await == count
    })
    .await;
    running.terminate();
    running.wait(LIMIT).expect_code(0);
    stream.catch_up();
    assert_same(&stream.source, &stream.target, "t").await;
    drop(stream);
    drop(disk);
}
