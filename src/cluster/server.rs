//! One private server: start, stop, kill, ask, remove.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::builder::ClusterBuilder;
use super::guard::{self, Guard};
use super::workplace::{Workplace, clear_postgres_variables};
use super::{Binaries, ClusterError, process};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const CLIENT_LIMIT: Duration = Duration::from_secs(300);
/// A port that was free may be taken when the server wants it.
const PORT_ATTEMPTS: u32 = 10;

/// How [`Cluster::stop`] stops the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until every client has gone.
    Smart,
    /// Ends every session, then shuts down cleanly. Waits until walsenders have sent everything.
    Fast,
    /// As after a crash: no checkpoint, the next start recovers from WAL.
    Immediate,
}

/// A private server. Dropping it stops it at once and removes everything it had.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    options: ClusterBuilder,
    place: Workplace,
    binaries: Binaries,
    directory: PathBuf,
    port: u16,
    postmaster: Option<Child>,
    guard: Option<Guard>,
}

impl Cluster {
    pub(super) fn make(
        options: ClusterBuilder,
        place: Workplace,
        binaries: Binaries,
    ) -> Result<Self, ClusterError> {
        let directory = place.base.join(guard::directory_name());
        let socket = directory.join(".s.PGSQL.65535");
        if socket.as_os_str().len() > 107 {
            return Err(ClusterError::SocketPathTooLong(socket));
        }
        place.make_directory(&directory)?;
        let name = options.name.clone();
        // From here on Drop removes the directory, whatever fails.
        let mut cluster =
            Self { name, options, place, binaries, directory, port: 0, postmaster: None, guard: None };
        cluster.guard = Some(Guard::start(&cluster.directory)?);
        Ok(cluster)
    }

    pub(super) fn place(&self) -> &Workplace {
        &self.place
    }

    pub(super) fn configure_new(&self) -> Result<(), ClusterError> {
        let data = self.data_directory();
        for (file, contents) in &self.options.files {
            self.place.write(&data.join(file), contents, 0o600)?;
        }
        let mut hba = self.options.hba.clone();
        for database in ["all", "replication"] {
            hba.push(format!("local {database} all trust"));
            hba.push(format!("host {database} all 127.0.0.1/32 trust"));
        }
        hba.push(String::new());
        self.place.write(&data.join("pg_hba.conf"), hba.join("\n").as_bytes(), 0o600)?;
        let mut text = String::new();
        for (name, value) in &self.options.settings {
            text.push_str(&setting_line(name, value));
        }
        text.push_str(&setting_line("cluster_name", &self.name));
        self.place.write(&data.join("postgresql.conf"), text.as_bytes(), 0o600)
    }

    pub(super) fn start_on_free_port(&mut self) -> Result<(), ClusterError> {
        let mut attempt = 1;
        loop {
            self.port = free_port()?;
            match self.start() {
                Err(ClusterError::DiedStarting { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("could not bind") =>
                {
                    attempt += 1;
                    let log = self.log_path();
                    std::fs::remove_file(&log).map_err(ClusterError::file("remove", &log))?;
                }
                outcome => return outcome,
            }
        }
    }

    /// The name given to [`ClusterBuilder::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The PostgreSQL installation it runs on.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The directory that holds everything of this cluster: data, socket, log. Goes when the cluster is dropped.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.directory
    }

    /// The port, on 127.0.0.1 and in the socket's name; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connection string over the Unix socket as superuser `postgres`, for libpq and tokio-postgres alike.
    #[must_use]
    pub fn conninfo(&self, database: &str) -> String {
        format!(
            "host={} port={} user=postgres dbname={}",
            self.directory.display(),
            self.port,
            quoted(database)
        )
    }

    /// The same over TCP, to 127.0.0.1.
    #[must_use]
    pub fn tcp_conninfo(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={}", self.port, quoted(database))
    }

    /// The postmaster's process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    /// What the server has logged since the cluster was made.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Starts the stopped server and waits until it accepts connections.
    ///
    /// # Errors
    /// It runs already, ends while starting, or is not ready within 60 seconds.
    pub fn start(&mut self) -> Result<(), ClusterError> {
        if self.postmaster.is_some() {
            return Err(ClusterError::AlreadyRunning(self.name.clone()));
        }
        let path = self.log_path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(ClusterError::file("open", &path))?;
        let second = log.try_clone().map_err(ClusterError::file("open", &path))?;
        let program = self.binaries.program("postgres")?;
        let mut command = self.place.command(&program);
        command.arg("-D").arg(self.data_directory());
        command.arg("-c").arg(format!("port={}", self.port)).args(["-c", "listen_addresses=127.0.0.1"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", self.directory.display()));
        // Its own group: Ctrl-C at the owner's terminal reaches the owner alone.
        command.stdin(Stdio::null()).stdout(log).stderr(second).process_group(0);
        let child =
            command.spawn().map_err(|source| ClusterError::Spawn { program: "postgres".into(), source })?;
        self.wait_ready(child)
    }

    /// The postmaster itself says in the eighth line of `postmaster.pid` when it is ready.
    fn wait_ready(&mut self, mut child: Child) -> Result<(), ClusterError> {
        let path = self.data_directory().join("postmaster.pid");
        let own = child.id().to_string();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let state = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines = state.lines();
            if lines.next() == Some(own.as_str()) && lines.nth(6).is_some_and(|line| line.trim() == "ready") {
                self.postmaster = Some(child);
                return Ok(());
            }
            let ended = child.try_wait().map_err(ClusterError::file("wait for", "postgres"))?;
            if let Some(status) = ended {
                let log = process::tail(&self.log_text(), 4000);
                return Err(ClusterError::DiedStarting {
                    name: self.name.clone(),
                    status: status.to_string(),
                    log,
                });
            }
            if Instant::now() >= deadline {
                self.postmaster = Some(child);
                self.kill()?;
                return Err(self.timed_out("starting", START_LIMIT));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the server and waits until it has gone; nothing to do when it does not run.
    ///
    /// # Errors
    /// It has not stopped within 60 seconds (a smart stop waits for clients).
    pub fn stop(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        let Some(child) = self.postmaster.as_mut() else {
            return Ok(());
        };
        process::signal(
            child.id(),
            match mode {
                StopMode::Smart => Signal::TERM,
                StopMode::Fast => Signal::INT,
                StopMode::Immediate => Signal::QUIT,
            },
        );
        let ended = process::wait(child, STOP_LIMIT).map_err(ClusterError::file("wait for", "postgres"))?;
        if ended.is_none() {
            return Err(self.timed_out("stopping", STOP_LIMIT));
        }
        self.postmaster = None;
        Ok(())
    }

    /// Stops in the given mode and starts again, on the same port.
    ///
    /// # Errors
    /// As [`Cluster::stop`] and [`Cluster::start`].
    pub fn restart(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        self.stop(mode)?;
        self.start()
    }

    /// Kills the postmaster and every session with SIGKILL, as the kernel does when memory is short.
    ///
    /// # Errors
    /// The processes are still there after 60 seconds.
    pub fn kill(&mut self) -> Result<(), ClusterError> {
        let Some(mut child) = self.postmaster.take() else {
            return Ok(());
        };
        // Stopped first, so that it starts no further child while we look; orphans would keep its memory.
        process::signal(child.id(), Signal::STOP);
        let sessions = process::children_of(child.id());
        process::signal(child.id(), Signal::KILL);
        for pid in &sessions {
            process::signal(*pid, Signal::KILL);
        }
        let ended =
            process::wait(&mut child, STOP_LIMIT).map_err(ClusterError::file("wait for", "postgres"))?;
        let gone = process::wait_until(STOP_LIMIT, || !sessions.iter().any(|pid| process::exists(*pid)));
        if ended.is_none() || !gone {
            return Err(self.timed_out("being killed", STOP_LIMIT));
        }
        Ok(())
    }

    /// Changes a setting in `postgresql.conf`; [`Cluster::reload`] or [`Cluster::restart`] makes it count.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, name: &str, value: &str) -> Result<(), ClusterError> {
        let path = self.data_directory().join("postgresql.conf");
        let mut file = File::options().append(true).open(&path).map_err(ClusterError::file("open", &path))?;
        file.write_all(setting_line(name, value).as_bytes()).map_err(ClusterError::file("write", &path))
    }

    /// Tells the server to read its configuration files again. It does so soon, not at once.
    ///
    /// # Errors
    /// The server does not run.
    pub fn reload(&self) -> Result<(), ClusterError> {
        match self.pid() {
            Some(pid) if process::signal(pid, Signal::HUP) => Ok(()),
            _ => Err(ClusterError::NotRunning(self.name.clone())),
        }
    }

    /// A client program (`psql`, `pgbench`, `pg_recvlogical`, `pg_dump`) with an environment that leads it to this server
    /// as superuser `postgres` over the Unix socket. It runs as the caller, not as the servers' user.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn client(&self, program: &str) -> Result<Command, ClusterError> {
        let mut command = Command::new(self.binaries.program(program)?);
        clear_postgres_variables(&mut command);
        command.env("PGHOST", &self.directory).env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command.env("PGCLIENTENCODING", "UTF8").env("LC_ALL", "C");
        Ok(command)
    }

    /// Runs SQL with psql, each statement a transaction of its own; gives rows as lines, columns separated by `|`.
    ///
    /// # Errors
    /// The first statement that fails ends it, with the server's message; 300 seconds are the limit.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        let mut command = self.client("psql")?;
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", &dbname(database)]);
        let what = format!("psql on {}/{database}", self.name);
        let output = process::run(command, &what, Some(format!("{sql}\n")), CLIENT_LIMIT)?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    /// Makes an empty database from template0.
    ///
    /// # Errors
    /// It exists, or the server is not there.
    pub fn create_database(&self, name: &str) -> Result<(), ClusterError> {
        let identifier = name.replace('"', "\"\"");
        self.psql("postgres", &format!("create database \"{identifier}\" template template0")).map(drop)
    }

    /// Runs pgbench to its end with the given arguments (`-i -s 1`, `-c 2 -t 100`); gives its report.
    ///
    /// # Errors
    /// It fails; 300 seconds are the limit. For a longer one, or one that runs beside, use [`Cluster::client`].
    pub fn run_pgbench(&self, database: &str, arguments: &[&str]) -> Result<String, ClusterError> {
        let mut command = self.client("pgbench")?;
        command.args(arguments).arg(dbname(database));
        process::run(command, &format!("pgbench on {}/{database}", self.name), None, CLIENT_LIMIT)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn timed_out(&self, doing: &str, limit: Duration) -> ClusterError {
        ClusterError::TimedOut {
            what: format!("{doing} of the private server {}", self.name),
            seconds: limit.as_secs(),
            output: process::tail(&self.log_text(), 4000),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            // Without this a server the test has frozen would never see the next signal.
            process::signal(child.id(), Signal::CONT);
            process::signal(child.id(), Signal::QUIT);
            if !matches!(process::wait(&mut child, STOP_LIMIT), Ok(Some(_))) {
                self.postmaster = Some(child);
                // The guard and the next sweep are still there.
                let _guarded = self.kill();
            }
        }
        // A failure leaves the directory to the guard, which tries once more.
        let _guarded = guard::stop_and_remove(&self.directory);
        self.guard = None;
    }
}

fn setting_line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

/// A value of a connection string.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// psql and pgbench read a database name with `=` as a connection string; this form is never misread.
fn dbname(database: &str) -> String {
    format!("dbname={}", quoted(database))
}

fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ClusterError::file("find a free port on", "127.0.0.1"))
}
