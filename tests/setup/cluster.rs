//! A private PostgreSQL for one test: own data directory, Unix socket only, gone when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(60);

pub struct Cluster {
    dir: TempDir,
    server: Child,
}

impl Cluster {
    /// Starts a server with `wal_level = logical`.
    pub async fn start() -> Cluster {
        Self::start_with(&[]).await
    }

    pub async fn start_with(settings: &[&str]) -> Cluster {
        let dir = tempfile::Builder::new().prefix("repcloud-setup-").tempdir().unwrap();
        let data = dir.path().join("data");
        if rustix::process::getuid().is_root() {
            let done = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
            assert!(done.success());
        }
        let out = as_postgres(&bin("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(out.status.success(), "initdb: {}", String::from_utf8_lossy(&out.stderr));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut server = as_postgres(&bin("postgres"));
        server.arg("-D").arg(&data);
        let socket = format!("unix_socket_directories={}", dir.path().display());
        let fixed = ["listen_addresses=", "fsync=off", "wal_level=logical", "max_prepared_transactions=5"];
        for setting in fixed.into_iter().chain([socket.as_str()]).chain(settings.iter().copied()) {
            server.args(["-c", setting]);
        }
        let server = server.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut cluster = Cluster { dir, server };
        cluster.wait_until_up().await;
        cluster
    }

    async fn wait_until_up(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while tokio_postgres::connect(&self.dsn("postgres", "postgres"), NoTls).await.is_err() {
            let exited = self.server.try_wait().unwrap();
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(exited.is_none() && Instant::now() < deadline, "no server: {}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn dsn(&self, database: &str, user: &str) -> String {
        format!("host={} port=5432 user='{user}' dbname={database}", self.dir.path().display())
    }

    /// A session of `user` with the settings the product pins.
    pub async fn connect_as(&self, database: &str, user: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.dsn(database, user), NoTls).await.expect("connect");
        tokio::spawn(connection);
        client
            .batch_execute(
                "SET search_path = pg_catalog; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; \
                 SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; \
                 SET lc_monetary = 'C'",
            )
            .await
            .unwrap();
        client
    }

    pub async fn connect(&self, database: &str) -> Client {
        self.connect_as(database, "postgres").await
    }

    /// A session as an application has it: nothing pinned.
    pub async fn application(&self, database: &str) -> Client {
        let client = self.connect(database).await;
        client.batch_execute("RESET ALL").await.unwrap();
        client
    }

    pub async fn create_database(&self, name: &str) {
        self.connect("postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The server is our own child (setpriv replaces itself), so this is its postmaster's pid.
        if let Ok(pid) = i32::try_from(self.server.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.server.wait();
    }
}

/// `REPCLOUD_TEST_PG_BIN` chooses another version than Debian's.
fn bin(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("REPCLOUD_TEST_PG_BIN") {
        return Path::new(&dir).join(name);
    }
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if debian.exists() { debian } else { PathBuf::from(name) }
}

/// Servers refuse to run as root. The death signal ends them when the test's thread is killed.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::getuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=INT", "--"]).arg(program).env_remove("PGOPTIONS").stdin(Stdio::null());
    command
}
