//! No server outlives its owner: the guard process, and the sweep of what dead owners left.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::workplace::Workplace;
use super::{ClusterError, process};

const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Reads until its standard input closes, which happens when the owner ends in whatever way; then, when the cluster's
/// directory is still there, stops the postmaster (told from a stranger by its working directory) and removes it.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
[ -d "$1" ] || exit 0
postmaster() {
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || return 1
    [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$1/data" ]
}
if postmaster "$1"; then
    kill -QUIT "$pid"
    tries=0
    while [ -d "/proc/$pid" ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    postmaster "$1" && kill -KILL "$pid"
fi
rm -rf "$1"
"#;

/// The guard of one cluster directory. Dropping it after the directory is gone lets it end.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    pub(super) fn start(directory: &Path) -> Result<Self, ClusterError> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "repcloud-cluster-guard"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: what kills the owner's whole group must not kill the guard.
            .process_group(0)
            .spawn()
            .map_err(|source| ClusterError::Spawn { program: "sh".to_owned(), source })?;
        Ok(Self { child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !matches!(process::wait(&mut self.child, STOP_LIMIT), Ok(Some(_))) {
            // Ended by itself meanwhile, or ends now; nobody is left to report to.
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}

/// A directory name that tells its owner: `cPID-START-NUMBER`, START being the owner's start time.
pub(super) fn directory_name() -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let me = std::process::id();
    format!("c{me}-{}-{}", process::start_time(me), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Stops and removes the clusters of owners that no longer run. Skipped when another process is at it.
pub(super) fn sweep(place: &Workplace) {
    let Ok(_lock) = place.lock(Duration::ZERO) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(&place.base) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if owner(&path).is_some_and(|(pid, start)| !alive(pid, start)) {
            // What cannot be removed now is tried again by the next owner's sweep.
            let _left_for_later = stop_and_remove(&path);
        }
    }
}

fn owner(path: &Path) -> Option<(u32, u64)> {
    let mut parts = path.file_name()?.to_str()?.strip_prefix('c')?.split('-');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next()?.parse::<u64>().ok()?;
    parts.next().is_none().then_some(owner)
}

fn alive(pid: u32, start: u64) -> bool {
    process::exists(pid) && process::start_time(pid) == start
}

/// Stops the server of a cluster directory at once, if one runs there, and removes the directory.
pub(super) fn stop_and_remove(directory: &Path) -> Result<(), ClusterError> {
    let data = directory.join("data");
    if let Some(pid) = process::postmaster_of(&data) {
        process::signal(pid, Signal::QUIT);
        if !process::wait_until(STOP_LIMIT, || !process::exists(pid)) {
            process::signal(pid, Signal::KILL);
        }
    }
    remove_shared_memory(&data);
    remove(directory.to_path_buf())
}

/// A killed postmaster leaves its small System V segment; its number is the seventh line of `postmaster.pid`.
fn remove_shared_memory(data: &Path) {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let Some(segment) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) else {
        return;
    };
    let mut command = Command::new("ipcrm");
    command.args(["-m", segment]);
    // 56 bytes that the next start of the machine frees as well.
    let _best_effort = process::run(command, "ipcrm", None, Duration::from_secs(10));
}

fn remove(directory: PathBuf) -> Result<(), ClusterError> {
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ClusterError::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_tells_its_living_owner() {
        let (pid, start) = owner(Path::new(&format!("/tmp/x/{}", directory_name()))).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(alive(pid, start));
        assert!(!alive(pid, start + 1), "a later process with the same number is not the owner");
    }

    #[test]
    fn other_directories_have_no_owner() {
        for name in ["template-15-00ff", "lock", "c12", "c12-5", "c12-5-0-9", "cab-5-0"] {
            assert_eq!(owner(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn the_sweep_takes_what_dead_owners_left_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let place = Workplace::open(Some(base.path().join("clusters"))).unwrap();
        let me = std::process::id();
        let dead = place.base.join(format!("c{me}-1-0"));
        let kept = [place.base.join(directory_name()), place.base.join("template-15-00")];
        for path in kept.iter().chain([&dead]) {
            std::fs::create_dir_all(path.join("data/global")).unwrap();
        }
        // A stranger's number in a stale file: ours, and we live on.
        std::fs::write(dead.join("data/postmaster.pid"), format!("{me}\n/elsewhere\n")).unwrap();
        sweep(&place);
        assert!(!dead.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}
