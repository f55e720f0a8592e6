//! Private servers for a test: a source and a target.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use repcloud::cluster::{BASE_VARIABLE, Binaries, Cluster, ClusterBuilder};

/// The major version tests run on: `REPCLOUD_TEST_PG_MAJOR`, else 15.
pub(crate) fn major() -> u32 {
    std::env::var("REPCLOUD_TEST_PG_MAJOR")
        .map_or(15, |text| text.parse().expect("REPCLOUD_TEST_PG_MAJOR is a number"))
}

/// Options for one server as tests want it; add settings and call `start()`.
///
/// Autovacuum is off: what a test sees must come from the test.
pub(crate) fn builder(name: &str) -> ClusterBuilder {
    let mut builder = ClusterBuilder::new(name).major(major()).setting("autovacuum", "off");
    // Patched servers refuse a plugin that is not listed; others do not know the setting.
    if knows("output_plugin_libraries") {
        builder = builder.setting("output_plugin_libraries", "pgoutput, test_decoding, wal2json");
    }
    match memory_directory() {
        Some(directory) => builder.base_directory(directory),
        None => builder,
    }
}

/// True when the server of the tests' version has a setting of this name.
pub(crate) fn knows(setting: &str) -> bool {
    static SETTINGS: OnceLock<String> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let program =
            Binaries::find(Some(major())).and_then(|b| b.program("postgres")).expect("a server program");
        let described =
            Command::new(program).arg("--describe-config").output().expect("postgres --describe-config");
        String::from_utf8_lossy(&described.stdout).into_owned()
    });
    settings.lines().any(|line| line.split('\t').next() == Some(setting))
}

/// True where the tests' server can load wal2json: everywhere that `scripts/install-needs.sh` has installed it, and not for
/// private programs of other versions.
pub(crate) fn has_wal2json() -> bool {
    let program =
        Binaries::find(Some(major())).and_then(|b| b.program("postgres")).expect("a server program");
    let home = program.parent().and_then(Path::parent).expect("a directory above bin");
    let there = ["lib/wal2json.so", "lib/postgresql/wal2json.so"].iter().any(|file| home.join(file).exists());
    if !there {
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("PostgreSQL {} has no wal2json here: what needs it is left out\n", major()).as_bytes(),
        )
        .expect("standard error");
    }
    there
}

/// A directory in memory, where a thousand small files are made four times as fast as on a busy disk: when nobody has named
/// another place and there is memory to spare.
fn memory_directory() -> Option<PathBuf> {
    const ENOUGH: u64 = 8 << 30;
    if std::env::var_os(BASE_VARIABLE).is_some() {
        return None;
    }
    let place = Path::new("/dev/shm");
    let disk = rustix::fs::statvfs(place).ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = available.trim().strip_suffix(" kB")?.parse().ok()?;
    let enough = disk.f_bavail * disk.f_frsize >= ENOUGH && kilobytes * 1024 >= ENOUGH;
    enough.then(|| place.join(format!("repcloud-clusters-{}", rustix::process::geteuid().as_raw())))
}

/// A source and a target, each of its own; both go when the pair is dropped.
pub(crate) struct Pair {
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
}

impl Pair {
    /// Starts both with default settings.
    pub(crate) fn start() -> Self {
        Self::start_with(builder("source"), builder("target"))
    }

    /// Starts both, side by side, with the options given.
    pub(crate) fn start_with(source: ClusterBuilder, target: ClusterBuilder) -> Self {
        std::thread::scope(|scope| {
            let target = scope.spawn(|| target.start().expect("the target server starts"));
            let source = source.start().expect("the source server starts");
            Self { source, target: target.join().expect("the target server starts") }
        })
    }

    /// Makes a database of this name on both.
    pub(crate) fn create_database(&self, name: &str) {
        self.source.create_database(name).expect("database on the source");
        self.target.create_database(name).expect("database on the target");
    }
}
