//! A running stream's state as a file in `REPCLOUD_HOME/pid`, for `status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::flow::view::{StreamState, StreamView};

/// `stream_<source>__<target>.json`.
pub fn path(folder: &Path, source: &str, target: &str) -> PathBuf {
    folder.join(format!("stream_{source}__{target}.json"))
}

/// Writes the file whole or not at all.
pub fn write(folder: &Path, view: &StreamView) -> io::Result<()> {
    let path = path(folder, &view.source, &view.target);
    let draft = path.with_extension("json.new");
    fs::write(&draft, serde_json::to_vec(view)?)?;
    fs::rename(draft, path)
}

/// Reads the file; `None` without one, or with one that cannot be read. A file whose process is gone says `stopped`,
/// or `failed` where it ended with an error.
pub fn read(folder: &Path, source: &str, target: &str) -> Option<StreamView> {
    let text = fs::read(path(folder, source, target)).ok()?;
    let mut view: StreamView = serde_json::from_slice(&text).ok()?;
    if !view.pid.is_some_and(is_alive) {
        view.pid = None;
        if view.state != StreamState::Failed {
            view.state = StreamState::Stopped;
        }
    }
    Some(view)
}

/// The process exists and is ours (`/proc` on Linux; a reused pid of another program does not count).
fn is_alive(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains("repcloud"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
