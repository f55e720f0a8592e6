//! A running stream's state as a file in a folder of `REPCLOUD_HOME/pid`, for `status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::flow::view::{StreamState, StreamView};

/// `stream_<source>__<target>.json`.
pub fn path(folder: &Path, source: &str, target: &str) -> PathBuf {
    folder.join(format!("stream_{source}__{target}.json"))
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Written<V> {
    #[serde(flatten)]
    view: V,
    /// When the process began, in the kernel's clock ticks since the machine did: with the pid it names one process.
    #[serde(default)]
    began: Option<u64>,
}

/// Writes the file whole or not at all. One that waits for the stream does not write over that of the process that runs it.
pub fn write(folder: &Path, view: &StreamView) -> io::Result<()> {
    let other = |view: StreamView| view.pid.is_some_and(|pid| pid != std::process::id());
    if !view.held && read(folder, &view.source, &view.target).is_some_and(other) {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    let path = path(folder, &view.source, &view.target);
    let draft = path.with_extension("json.new");
    fs::write(&draft, serde_json::to_vec(&Written { view, began: view.pid.and_then(began) })?)?;
    fs::rename(draft, path)
}

/// Removes the file of a stream that is no more.
pub fn remove(folder: &Path, source: &str, target: &str) -> io::Result<()> {
    match fs::remove_file(path(folder, source, target)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the file; `None` without one, or with one that cannot be read. A file whose process is gone says `stopped`,
/// or `failed` where it ended with an error.
pub fn read(folder: &Path, source: &str, target: &str) -> Option<StreamView> {
    let text = fs::read(path(folder, source, target)).ok()?;
    let Written { mut view, began: then } = serde_json::from_slice::<Written<StreamView>>(&text).ok()?;
    let now = view.pid.and_then(began);
    if now.is_none() || now != then {
        view.pid = None;
        if view.state != StreamState::Failed {
            view.state = StreamState::Stopped;
        }
    }
    Some(view)
}

/// When a process began; `None` when there is none of this number, or it has ended and nobody has noticed (a zombie).
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; behind it stand the state and, as field 22 of proc(5), the beginning.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_another_process_has_now_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let pid = Some(std::process::id());
        let view = StreamView { source: "a".into(), target: "b".into(), pid, ..StreamView::default() };
        write(folder.path(), &view).unwrap();
        assert_eq!(read(folder.path(), "a", "b").and_then(|v| v.pid), pid);
        let file = path(folder.path(), "a", "b");
        let mut written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        written["began"] = (written["began"].as_u64().unwrap() - 1).into();
        fs::write(&file, written.to_string()).unwrap();
        assert_eq!(read(folder.path(), "a", "b").and_then(|v| v.pid), None);
    }

    #[test]
    fn only_who_has_the_stream_writes_over_the_file_of_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let view = |pid, held| StreamView {
            source: "a".into(),
            target: "b".into(),
            pid,
            held,
            ..StreamView::default()
        };
        // The parent lives as long as this.
        let other = std::os::unix::process::parent_id();
        write(folder.path(), &view(Some(other), true)).unwrap();
        write(folder.path(), &view(Some(std::process::id()), false)).unwrap();
        write(folder.path(), &view(None, false)).unwrap();
        assert_eq!(read(folder.path(), "a", "b").and_then(|v| v.pid), Some(other));
        write(folder.path(), &view(Some(std::process::id()), true)).unwrap();
        assert_eq!(read(folder.path(), "a", "b").and_then(|v| v.pid), Some(std::process::id()));
    }

    #[test]
    fn a_file_of_a_dead_process_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let mut view = StreamView {
            source: "a".into(),
            target: "b".into(),
            pid: Some(u32::MAX),
            state: StreamState::Streaming,
            ..StreamView::default()
        };
        write(folder.path(), &view).unwrap();
        assert_eq!(
            read(folder.path(), "a", "b").map(|v| (v.state, v.pid)),
            Some((StreamState::Stopped, None))
        );
        view.state = StreamState::Failed;
        write(folder.path(), &view).unwrap();
        assert_eq!(read(folder.path(), "a", "b").map(|v| v.state), Some(StreamState::Failed));
        assert_eq!(read(folder.path(), "a", "c"), None);
    }
}
