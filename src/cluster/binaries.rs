//! Finds the PostgreSQL programs of a major version.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;

/// Environment variable that names directories with server programs, separated like `PATH`; looked into first.
pub const SEARCH_VARIABLE: &str = "REPCLOUD_PG_BIN";

/// The oldest major version repcloud works with.
const OLDEST_MAJOR: u32 = 14;

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub struct Binaries {
    directory: PathBuf,
    version: String,
    major: u32,
    /// Every directory found, newest major first: client programs of another installation serve as well.
    others: Vec<PathBuf>,
}

/// An installation met while searching.
struct Found {
    /// Named in `REPCLOUD_PG_BIN`: goes before the others whatever its version.
    from_name: bool,
    major: u32,
    version: String,
    directory: PathBuf,
}

impl Binaries {
    /// Finds the programs: in `REPCLOUD_PG_BIN`, in the `PATH`, in `/usr/lib/postgresql/*/bin` (Debian) and
    /// `/usr/pgsql-*/bin` (Red Hat). With `None` the first of `REPCLOUD_PG_BIN`, else the newest major found.
    ///
    /// # Errors
    /// [`ClusterError::NoServer`] says what to install.
    pub fn find(major: Option<u32>) -> Result<Self, ClusterError> {
        let named = variable_directories(SEARCH_VARIABLE);
        let mut found: Vec<Found> = Vec::new();
        let mut searched = Vec::new();
        let everywhere =
            named.iter().cloned().chain(variable_directories("PATH")).chain(installed_directories());
        for directory in everywhere {
            let from_name = named.contains(&directory);
            let directory = home_of(&directory);
            if searched.contains(&directory) {
                continue;
            }
            if directory.join("initdb").is_file()
                && let Some((major, version)) = server_version(&directory.join("postgres"))
            {
                found.push(Found { from_name, major, version, directory: directory.clone() });
            }
            searched.push(directory);
        }
        // Stable: of two installations of one major, the one met first stays first.
        found.sort_by_key(|one| (!one.from_name, Reverse(one.major)));
        let others = found.iter().map(|one| one.directory.clone()).collect();
        let wanted = |one: &Found| major.map_or(one.major >= OLDEST_MAJOR, |wanted| wanted == one.major);
        found
            .into_iter()
            .find(wanted)
            .map(|Found { directory, version, major, .. }| Self { directory, version, major, others })
            .ok_or_else(|| not_found(major))
    }

    /// The directory of the server programs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The major version: 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// What `postgres --version` says: `postgres (PostgreSQL) 15.14`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A program by name: beside the server programs, else of another installation, else in the `PATH`.
    ///
    /// # Errors
    /// [`ClusterError::NoProgram`] when there is none.
    pub fn program(&self, name: &str) -> Result<PathBuf, ClusterError> {
        std::iter::once(self.directory.clone())
            .chain(self.others.iter().cloned())
            .chain(variable_directories("PATH"))
            .map(|directory| directory.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| ClusterError::NoProgram(name.to_owned()))
    }
}

/// Where the programs really are: a link in `/usr/local/bin` leads to a directory that has all of them.
fn home_of(directory: &Path) -> PathBuf {
    let real = directory.join("postgres").canonicalize();
    real.ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_else(|| directory.to_owned())
}

fn not_found(major: Option<u32>) -> ClusterError {
    ClusterError::NoServer {
        wanted: major.map_or_else(|| format!("{OLDEST_MAJOR} or newer"), |wanted| wanted.to_string()),
        package: major.map_or_else(|| "postgresql".to_owned(), |wanted| format!("postgresql-{wanted}")),
        searched: format!("{SEARCH_VARIABLE}, PATH, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin"),
    }
}

fn variable_directories(name: &str) -> Vec<PathBuf> {
    std::env::var_os(name)
        .map(|value| std::env::split_paths(&value).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default()
}

fn installed_directories() -> Vec<PathBuf> {
    let debian = children(Path::new("/usr/lib/postgresql"));
    let red_hat = children(Path::new("/usr"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql-")));
    debian.into_iter().chain(red_hat).map(|path| path.join("bin")).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn server_version(postgres: &Path) -> Option<(u32, String)> {
    if !postgres.is_file() {
        return None;
    }
    let output = Command::new(postgres).arg("--version").output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some((parse_major(&line)?, line))
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → 15; `18beta1` → 18.
fn parse_major(line: &str) -> Option<u32> {
    let number = line.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
    number.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_is_read_from_release_beta_and_packaged_versions() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(parse_major("mysqld  Ver 8.0"), None);
    }

    #[test]
    fn a_missing_major_is_named_with_its_package() {
        let text = Binaries::find(Some(3)).unwrap_err().to_string();
        assert!(text.contains("PostgreSQL 3 server programs were not found"), "{text}");
        assert!(text.contains("apt-get install postgresql-3"), "{text}");
    }

    #[test]
    fn the_programs_we_need_are_found() {
        let binaries = Binaries::find(None).unwrap();
        assert!(binaries.major() >= OLDEST_MAJOR);
        for program in ["postgres", "initdb", "psql", "pgbench", "pg_recvlogical"] {
            assert!(binaries.program(program).unwrap().is_file(), "{program}");
        }
        assert!(matches!(binaries.program("no-such-program"), Err(ClusterError::NoProgram(_))));
    }
}
