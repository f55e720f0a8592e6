//! A data directory is made once by `initdb` and copied for every cluster: 1.2 s against 0.1 s.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::workplace::Workplace;
use super::{Binaries, ClusterError, process};

const LIMIT: Duration = Duration::from_secs(120);

/// Fills `data` with a fresh data directory of the given installation, with a system identifier of its own.
pub(super) fn fresh_data(
    place: &Workplace,
    binaries: &Binaries,
    initdb_args: &[String],
    data: &Path,
) -> Result<(), ClusterError> {
    // Only the installation's own: another version's would ruin the directory.
    let pg_resetwal = binaries.directory().join("pg_resetwal");
    if !pg_resetwal.is_file() {
        return initdb(place, binaries, initdb_args, data);
    }
    let template = template(place, binaries, initdb_args)?;
    let mut copy = place.command(Path::new("cp"));
    copy.args(["-a", "--reflink=auto"]).arg(&template).arg(data);
    process::run(copy, "copying the template data directory", None, LIMIT)?;
    give_identity(data)?;
    let mut reset = place.command(&pg_resetwal);
    reset.arg("--force").arg(data);
    process::run(reset, "pg_resetwal", None, LIMIT).map(drop)
}

/// Copies would share the template's system identifier, by which clusters are told apart. It is the first field of
/// `pg_control` (8 bytes, native order); `pg_resetwal --force` takes it over and mends the checksum and the WAL.
fn give_identity(data: &Path) -> Result<(), ClusterError> {
    let path = data.join("global/pg_control");
    let control = File::options().write(true).open(&path).map_err(ClusterError::file("open", &path))?;
    control.write_all_at(&new_identifier().to_ne_bytes(), 0).map_err(ClusterError::file("write", &path))
}

/// As initdb makes it: seconds, microseconds, process number; here a counter instead of the lowest bits.
fn new_identifier() -> u64 {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let salt = (u64::from(std::process::id()) << 3) ^ MADE.fetch_add(1, Ordering::Relaxed);
    (now.as_secs() << 32) | (u64::from(now.subsec_micros()) << 12) | (salt & 0xfff)
}

fn template(place: &Workplace, binaries: &Binaries, initdb_args: &[String]) -> Result<PathBuf, ClusterError> {
    // A minor release may change what initdb writes, so the whole version counts.
    let mut hasher = DefaultHasher::new();
    (binaries.version(), binaries.directory(), initdb_args).hash(&mut hasher);
    let path = place.base.join(format!("template-{}-{:016x}", binaries.major(), hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    let _lock = place.lock(LIMIT)?;
    if path.exists() {
        return Ok(path);
    }
    // Made beside it and renamed: a killed initdb never leaves half a template under the final name.
    let unfinished = path.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(ClusterError::file("remove", &unfinished))?;
    }
    initdb(place, binaries, initdb_args, &unfinished)?;
    // pg_resetwal writes the first segment anew in every copy.
    let wal = unfinished.join("pg_wal");
    for entry in std::fs::read_dir(&wal).map_err(ClusterError::file("read", &wal))?.flatten() {
        if entry.path().is_file() {
            std::fs::remove_file(entry.path()).map_err(ClusterError::file("remove", entry.path()))?;
        }
    }
    std::fs::rename(&unfinished, &path).map_err(ClusterError::file("rename", &unfinished))?;
    Ok(path)
}

fn initdb(
    place: &Workplace,
    binaries: &Binaries,
    initdb_args: &[String],
    data: &Path,
) -> Result<(), ClusterError> {
    place.make_directory(data)?;
    let mut initdb = place.command(&binaries.program("initdb")?);
    initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
    initdb.args(initdb_args).arg("-D").arg(data);
    process::run(initdb, "initdb", None, LIMIT).map(drop)
}
