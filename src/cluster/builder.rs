//! What a private cluster shall be like.

use std::path::PathBuf;
use std::sync::Once;

use super::server::Cluster;
use super::workplace::Workplace;
use super::{Binaries, ClusterError, guard, template};

/// Settings every private cluster starts from; [`ClusterBuilder::setting`] replaces any of them.
///
/// They serve a source of logical replication whose data nobody will miss. `dynamic_shared_memory_type = mmap` keeps
/// the shared memory of a killed server inside its directory, so that removing that removes everything.
const DEFAULTS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("fsync", "off"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("shared_buffers", "128MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("timezone", "UTC"),
    ("lc_messages", "C"),
];

/// Options of a private cluster; [`ClusterBuilder::start`] makes it.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    pub(super) name: String,
    pub(super) major: Option<u32>,
    pub(super) settings: Vec<(String, String)>,
    pub(super) hba: Vec<String>,
    pub(super) files: Vec<(String, Vec<u8>)>,
    initdb_args: Vec<String>,
    base: Option<PathBuf>,
}

impl ClusterBuilder {
    /// A cluster called `name`: it shows in error messages and as `cluster_name` in process titles.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let defaults = DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            name: name.to_owned(),
            major: None,
            settings: defaults.collect(),
            hba: Vec::new(),
            files: Vec::new(),
            initdb_args: Vec::new(),
            base: None,
        }
    }

    /// Exactly this major version; without it what [`Binaries::find`] prefers.
    #[must_use]
    pub fn major(mut self, major: u32) -> Self {
        self.major = Some(major);
        self
    }

    /// A `postgresql.conf` setting. The value is written as a quoted string, so pass it bare: `("work_mem", "64MB")`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A `pg_hba.conf` line. Lines stand in the order given, before the two that trust everybody on the Unix socket and
    /// on 127.0.0.1; the first that matches a connection decides.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A file in the data directory, mode 0600: a certificate, a key.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// One more argument for initdb (`--data-checksums`); each set of arguments has a template of its own.
    #[must_use]
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb_args.push(argument.to_owned());
        self
    }

    /// The directory clusters and templates are made in, instead of `REPCLOUD_CLUSTER_DIR` or the temporary directory.
    #[must_use]
    pub fn base_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.base = Some(path.into());
        self
    }

    /// Makes the cluster and starts it; returns when it accepts connections.
    ///
    /// # Errors
    /// Missing programs, a directory that cannot be used, a server that does not come up.
    pub fn start(self) -> Result<Cluster, ClusterError> {
        static SWEPT: Once = Once::new();
        let binaries = Binaries::find(self.major)?;
        let place = Workplace::open(self.base.clone())?;
        SWEPT.call_once(|| guard::sweep(&place));
        let initdb_args = self.initdb_args.clone();
        let mut cluster = Cluster::make(self, place, binaries)?;
        template::fresh_data(cluster.place(), cluster.binaries(), &initdb_args, &cluster.data_directory())?;
        cluster.configure_new()?;
        cluster.start_on_free_port()?;
        Ok(cluster)
    }
}
