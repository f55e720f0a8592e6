//! The directory private clusters live in, and who the servers run as.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::{ClusterError, process};

/// Environment variable that names the directory private clusters are made in; default: under the temporary directory.
pub const BASE_VARIABLE: &str = "REPCLOUD_CLUSTER_DIR";

/// Where clusters are made, and the account that owns them.
#[derive(Debug, Clone)]
pub(super) struct Workplace {
    pub(super) base: PathBuf,
    /// User and group of the servers when the caller is root; `None`: the caller's own.
    pub(super) service: Option<(u32, u32)>,
}

impl Workplace {
    /// Opens (and makes) the base directory: `base`, else `REPCLOUD_CLUSTER_DIR`, else `repcloud-clusters-UID` under the
    /// temporary directory.
    pub(super) fn open(base: Option<PathBuf>) -> Result<Self, ClusterError> {
        let me = rustix::process::geteuid();
        let service = if me.is_root() { Some(service_user()?) } else { None };
        let named = base.or_else(|| std::env::var_os(BASE_VARIABLE).map(PathBuf::from));
        let base =
            named.unwrap_or_else(|| std::env::temp_dir().join(format!("repcloud-clusters-{}", me.as_raw())));
        // 0711: the `postgres` user must pass through, nobody needs to list it.
        let made = DirBuilder::new().mode(0o711).create(&base);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(ClusterError::file("make", base)(error));
        }
        // Somebody else's directory, or a link to one, would let them exchange our files under us.
        let found = std::fs::symlink_metadata(&base).map_err(ClusterError::file("look at", &base))?;
        if !found.is_dir() || found.uid() != me.as_raw() {
            return Err(ClusterError::UnsafeBase(base));
        }
        let base = base.canonicalize().map_err(ClusterError::file("look at", &base))?;
        Ok(Self { base, service })
    }

    /// A command that runs as the servers' user, with an environment that holds nothing of the caller's PostgreSQL settings.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clear_postgres_variables(&mut command);
        command.env("LC_ALL", "C").env("TZ", "UTC").current_dir(&self.base);
        if let Some((user, group)) = self.service {
            // Leaving root also drops the supplementary groups.
            command.uid(user).gid(group).env("HOME", &self.base);
        }
        command
    }

    /// Makes a directory, mode 0755, that belongs to the servers' user.
    pub(super) fn make_directory(&self, path: &Path) -> Result<(), ClusterError> {
        DirBuilder::new().mode(0o755).create(path).map_err(ClusterError::file("make", path))?;
        self.give(path)
    }

    /// Writes a file that belongs to the servers' user.
    pub(super) fn write(&self, path: &Path, contents: &[u8], mode: u32) -> Result<(), ClusterError> {
        std::fs::write(path, contents).map_err(ClusterError::file("write", path))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(ClusterError::file("set the mode of", path))?;
        self.give(path)
    }

    /// Holds the lock of the base directory until the file is dropped: one process at a time makes templates or sweeps.
    pub(super) fn lock(&self, limit: Duration) -> Result<File, ClusterError> {
        let path = self.base.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(ClusterError::file("open", &path))?;
        let free = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !process::wait_until(limit, free) {
            return Err(ClusterError::TimedOut {
                what: format!("waiting for the lock {}", path.display()),
                seconds: limit.as_secs(),
                output: String::new(),
            });
        }
        Ok(file)
    }

    fn give(&self, path: &Path) -> Result<(), ClusterError> {
        match self.service {
            Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group))
                .map_err(ClusterError::file("give to the postgres user", path)),
            None => Ok(()),
        }
    }
}

/// Takes every `PG…` variable away: a stray PGHOST or PGSERVICE must not lead a private client elsewhere.
pub(super) fn clear_postgres_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

fn service_user() -> Result<(u32, u32), ClusterError> {
    let number = |flag: &str| {
        let mut command = Command::new("id");
        command.args([flag, "postgres"]);
        process::run(command, "looking up the user postgres", None, Duration::from_secs(10))
            .ok()
            .and_then(|text| text.trim().parse().ok())
    };
    number("-u").zip(number("-g")).ok_or(ClusterError::NoServiceUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_taken_for_our_directory() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(place.path(), &link).unwrap();
        let error = Workplace::open(Some(link)).unwrap_err();
        assert!(error.to_string().contains("REPCLOUD_CLUSTER_DIR"), "{error}");
    }

    #[test]
    fn the_lock_has_one_holder_and_waiting_for_it_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        let place = Workplace::open(Some(directory.path().join("clusters"))).unwrap();
        let held = place.lock(Duration::ZERO).unwrap();
        let error = place.lock(Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().starts_with("waiting for the lock"), "{error}");
        drop(held);
        place.lock(Duration::ZERO).unwrap();
    }
}
