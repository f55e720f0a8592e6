//! The `repcloud` binary as a user runs it: a home, a configuration, processes that can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A REPCLOUD_HOME of its own with `config/default.toml`; removed when dropped.
pub(crate) struct Repcloud {
    home: tempfile::TempDir,
    environment: Vec<(String, String)>,
    runs: AtomicU32,
}

impl Repcloud {
    /// A home with this text as `config/default.toml`.
    pub(crate) fn new(config: &str) -> Self {
        let home = tempfile::Builder::new().prefix("repcloud-home-").tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("config/table_conf")).unwrap();
        let repcloud = Self { home, environment: Vec::new(), runs: AtomicU32::new(0) };
        repcloud.write("config/default.toml", config);
        repcloud
    }

    /// Sets an environment variable for every later run.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The home directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below the home.
    pub(crate) fn write(&self, path: &str, text: &str) {
        std::fs::write(self.home.path().join(path), text).unwrap();
    }

    /// Starts `repcloud ARGUMENTS`; its output goes into files that [`Running`] reads.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let stdout = self.home.path().join(format!("run-{run}.stdout"));
        let stderr = self.home.path().join(format!("run-{run}.stderr"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_repcloud"));
        for (name, _) in std::env::vars_os() {
            // The caller's own settings must not decide what a test sees.
            let text = name.to_string_lossy();
            if text.starts_with("PG") || (text.starts_with("REPCLOUD_") && text != "REPCLOUD_PG_BIN") {
                command.env_remove(name);
            }
        }
        command.env("REPCLOUD_HOME", self.home.path()).envs(self.environment.iter().cloned()).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let child = command.spawn().expect("repcloud starts");
        Running { what: arguments.join(" "), child, stdout, stderr }
    }

    /// Runs `repcloud ARGUMENTS` to its end; fails the test when it takes longer than `limit`.
    pub(crate) fn run(&self, arguments: &[&str], limit: Duration) -> Finished {
        self.spawn(arguments).wait(limit)
    }

    /// Runs it with `--json` and parses standard output as one JSON document.
    pub(crate) fn json(&self, arguments: &[&str], limit: Duration) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let finished = self.run(&arguments, limit);
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {finished:?}"))
    }
}

/// A started `repcloud`; killed when dropped.
pub(crate) struct Running {
    what: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The exit code; -1 when a signal ended it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Fails the test, with all output, unless the exit code is this.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:?}");
        self
    }
}

impl Running {
    /// The process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it wrote so far.
    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end: SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ctrl-C: SIGINT.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Freezes it (SIGSTOP) or lets it go on (SIGCONT), or any other signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; fails the test, with all output, when it takes longer than `limit`.
    #[track_caller]
    pub(crate) fn wait(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Finished { status, stdout: self.stdout(), stderr: self.stderr() };
            }
            assert!(
                Instant::now() < deadline,
                "`repcloud {}` still ran after {limit:?}\nstdout: {}\nstderr: {}",
                self.what,
                self.stdout(),
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
