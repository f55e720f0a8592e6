//! Runs programs with a limit, and asks `/proc` about processes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::ClusterError;

const POLL: Duration = Duration::from_millis(3);

/// Runs a program to its end, at most `limit`, with `input` on its standard input; gives what it wrote on stdout.
///
/// # Errors
/// A program that cannot start, fails, or is still running at the limit (it is killed then).
pub(super) fn run(
    mut command: Command,
    what: &str,
    input: Option<String>,
    limit: Duration,
) -> Result<String, ClusterError> {
    let program = program_name(&command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| ClusterError::Spawn { program, source })?;
    let writer = input.zip(child.stdin.take()).map(|(text, mut pipe)| {
        std::thread::spawn(move || {
            // A program that ends early closes its input; its exit status says why.
            let _closed_early = pipe.write_all(text.as_bytes());
        })
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, limit);
    if matches!(status, Ok(None)) {
        // Both fail only when it has ended by itself meanwhile.
        let _already_gone = child.kill();
        let _already_gone = child.wait();
    }
    if let Some(writer) = writer {
        let _panic_free = writer.join();
    }
    let (stdout, stderr) = (finish(stdout), finish(stderr));
    match status {
        Ok(Some(status)) if status.success() => Ok(stdout),
        Ok(Some(status)) => Err(ClusterError::Failed {
            what: what.to_owned(),
            status: status.to_string(),
            output: tail(&format!("{stdout}{stderr}"), 4000),
        }),
        Ok(None) => Err(ClusterError::TimedOut {
            what: what.to_owned(),
            seconds: limit.as_secs(),
            output: tail(&format!("{stdout}{stderr}"), 4000),
        }),
        Err(source) => Err(ClusterError::Spawn { program: what.to_owned(), source }),
    }
}

/// Waits for a child at most `limit`; `None` when it still runs then.
pub(super) fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Polls a condition until it holds or the limit has passed; says whether it holds.
pub(super) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> Option<JoinHandle<String>> {
    pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A read error ends the text early; the exit status still tells how the program ended.
            let _read = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    })
}

fn finish(reader: Option<JoinHandle<String>>) -> String {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

fn program_name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The last `limit` bytes of a text, cut at a character.
pub(super) fn tail(text: &str, limit: usize) -> String {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default().to_owned()
}

/// Sends a signal; true when the process was there to get it.
pub(super) fn signal(pid: u32, signal: Signal) -> bool {
    as_pid(pid).is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// True while a process with this number exists.
pub(super) fn exists(pid: u32) -> bool {
    as_pid(pid).is_some_and(|pid| match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    })
}

/// When a process started, in clock ticks after boot (`/proc/PID/stat`, field 22): tells a process from a later
/// one with the same number. Zero where there is no `/proc`.
pub(super) fn start_time(pid: u32) -> u64 {
    stat_field(pid, 19).unwrap_or(0)
}

/// The processes started by `parent` that still run.
pub(super) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| stat_field(*pid, 1) == Some(u64::from(parent)))
        .collect()
}

/// The postmaster of a data directory, when one runs there: a postmaster's working directory is its data directory,
/// which tells it from a stranger that got the number in a stale `postmaster.pid`.
pub(super) fn postmaster_of(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let home: PathBuf = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (home == data.canonicalize().ok()?).then_some(pid)
}

/// A field of `/proc/PID/stat`, counted from the one after the program's name (which may hold spaces).
fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(index)?.parse().ok()
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_comes_back_and_input_goes_in() {
        let text =
            run(shell("cat; echo two"), "test", Some("one\n".into()), Duration::from_secs(10)).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_failure_carries_status_and_output() {
        let error = run(shell("echo sorry >&2; exit 3"), "trial", None, Duration::from_secs(10)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("trial failed") && text.contains("sorry") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_program_past_its_limit_is_killed() {
        let error = run(shell("exec sleep 600"), "sleeper", None, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ClusterError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_program_that_ignores_its_input_is_no_error() {
        let much = "x".repeat(1 << 20);
        assert_eq!(run(shell("echo done"), "test", Some(much), Duration::from_secs(10)).unwrap(), "done\n");
    }

    #[test]
    fn processes_are_seen_with_parent_and_start() {
        let mut child = shell("exec sleep 600").spawn().unwrap();
        assert!(exists(child.id()));
        assert!(children_of(std::process::id()).contains(&child.id()));
        assert!(start_time(child.id()) >= start_time(std::process::id()));
        assert!(signal(child.id(), Signal::KILL));
        child.wait().unwrap();
        assert!(!exists(child.id()));
    }

    #[test]
    fn tail_keeps_whole_characters() {
        assert_eq!(tail("aäö\n", 3), "ö");
        assert_eq!(tail("abc", 10), "abc");
    }
}
