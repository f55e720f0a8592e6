//! `repcloud stream` as a child process: the same binary, started, watched, killed and asked to end.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::Home;
use crate::cli::report::Failure;
use crate::flow::view::StreamView;
use crate::service::status_file;

/// How long a stream that was asked to end may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running `repcloud stream`; killed when dropped.
#[derive(Debug)]
pub(super) struct Stream {
    child: Child,
    pid: u32,
}

/// The same binary, in the demo's home.
pub(super) fn repcloud(home: &Home) -> Result<Command, Failure> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // The caller's own settings must not decide what the demo shows.
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("REPCLOUD_") {
            command.env_remove(name);
        }
    }
    // A group of its own: Ctrl-C at the terminal reaches the demo alone, and the demo ends what it began.
    command.env("REPCLOUD_HOME", &home.path).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

impl Stream {
    pub(super) fn start(home: &Home) -> Result<Self, Failure> {
        let log = open_log(&home.log()).with_context(|| format!("cannot open {}", home.log().display()))?;
        let second = log.try_clone().context("cannot open the stream's log twice")?;
        let mut command = repcloud(home)?;
        command.args(["stream", "--source", "shop", "--no-progress"]).stdout(log).stderr(second);
        let child = command.spawn().context("cannot start `repcloud stream`")?;
        let pid = child.id().context("`repcloud stream` ended at once")?;
        Ok(Stream { child, pid })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it shows of itself; `None` before its first second is over.
    pub(super) fn view(&mut self, home: &Home) -> Result<Option<StreamView>, Failure> {
        if let Some(status) = self.child.try_wait().context("cannot watch `repcloud stream`")? {
            return Err(Failure::from(ended(status, home)));
        }
        let view = status_file::read(&home.streams(), "shop", "warehouse");
        Ok(view.filter(|view| view.pid == Some(self.pid)))
    }

    /// `kill -9`.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await.context("cannot kill `repcloud stream`")?;
        Ok(())
    }

    /// Asks it to end, as a service manager does, and expects it to end well.
    pub(super) async fn stop(mut self, home: &Home) -> Result<(), Failure> {
        let pid =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process without a number")?;
        kill_process(pid, Signal::TERM).context("cannot signal `repcloud stream`")?;
        let status = timeout(STOP_LIMIT, self.child.wait()).await;
        let status = status.with_context(|| {
            format!("`repcloud stream` did not end within {} s of being asked to", STOP_LIMIT.as_secs())
        })?;
        let status = status.context("cannot wait for `repcloud stream`")?;
        if status.success() { Ok(()) } else { Err(Failure::from(ended(status, home))) }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// With the end of what it wrote.
fn ended(status: ExitStatus, home: &Home) -> anyhow::Error {
    let text = std::fs::read_to_string(home.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    anyhow::anyhow!("`repcloud stream` ended ({status}); the end of its log:\n{tail}")
}
