//! A private PostgreSQL cluster for one test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use repcloud::pg::{ConnectOptions, Session, SslMode};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Debian's PostgreSQL 15, unless the environment names another directory of binaries.
fn binaries() -> String {
    std::env::var("REPCLOUD_TEST_PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned())
}

/// A running server; stopped and removed on drop.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    server: Child,
}

/// A command as the user that may run servers: `postgres` when we are root, else ourselves.
fn as_server_user(program: &str) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // The server dies with the test, however the test ends.
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT", program]);
    command
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn spawn(dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    as_server_user(&format!("{}/postgres", binaries()))
        .arg("-D")
        .arg(dir.join("data"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Cluster {
    /// Starts a server with `wal_level = logical`, the given lines of configuration and of pg_hba.conf (beside
    /// `local all postgres trust`).
    pub(crate) async fn start(config: &[&str], hba: &[&str]) -> Cluster {
        let dir = tempfile::Builder::new().prefix("repcloud-pg-").tempdir().unwrap();
        Cluster::start_in(dir, config, hba).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, config: &[&str], hba: &[&str]) -> Cluster {
        let data = dir.path().join("data");
        give_away(dir.path());
        let mut initdb = as_server_user(&format!("{}/initdb", binaries()));
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
        run(initdb.current_dir("/").stdin(Stdio::null()));
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|s| s.local_addr()).unwrap().port();
        let settings = format!(
            "wal_level = logical\nfsync = off\nlisten_addresses = '127.0.0.1'\nport = {port}\n\
             unix_socket_directories = '{}'\nlog_min_messages = info\n{}\n",
            dir.path().display(),
            config.join("\n")
        );
        std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let hba = format!("local all postgres trust\n{}\n", hba.join("\n"));
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let server = spawn(dir.path());
        let cluster = Cluster { dir, port, server };
        cluster.await_start().await;
        cluster
    }

    async fn await_start(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = repcloud::pg::connect(&self.admin()).await {
            assert!(Instant::now() < deadline, "the server did not start: {error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the server in order and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.signal(Signal::INT);
        assert!(self.server.wait().unwrap().success(), "{}", self.log());
        self.server = spawn(self.dir.path());
        self.await_start().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.server.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The superuser over the Unix socket.
    pub(crate) fn admin(&self) -> ConnectOptions {
        self.unix("postgres")
    }

    pub(crate) fn unix(&self, user: &str) -> ConnectOptions {
        ConnectOptions::new(self.dir.path().display().to_string(), self.port, user, "postgres")
    }

    pub(crate) fn tcp(&self, host: &str, user: &str, sslmode: SslMode) -> ConnectOptions {
        ConnectOptions { sslmode, ..ConnectOptions::new(host, self.port, user, "postgres") }
    }

    pub(crate) async fn session(&self) -> Session {
        repcloud::pg::connect(&self.admin()).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        let _ = self.server.wait();
    }
}

/// Makes the server's user the owner of a file or directory.
pub(crate) fn give_away(path: &Path) {
    if geteuid().is_root() {
        run(Command::new("chown").arg("-R").arg("postgres:postgres").arg(path));
    }
}

/// Asks again until the answer is yes; the deadline is generous, since speed is not what is tested.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
