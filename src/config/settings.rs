//! What a configuration says, resolved and checked: plain values, no TOML, nothing left to look up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::model::{TableName, TablePattern};
use crate::repack::options::{RepackSettings, Selection, TableRules};

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file's name without folder and `.toml`; log files and messages carry it.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// `[connections.NAME]`, by name.
    pub connections: BTreeMap<String, Connection>,
    /// `[[replicate]]`, in the order of the file.
    pub replicate: Vec<ReplicateEntry>,
    /// `[logging]`.
    pub logging: Logging,
}

impl Settings {
    /// The entries of one source, in the order of the file.
    pub fn entries_of(&self, source: &str) -> impl Iterator<Item = &ReplicateEntry> {
        self.replicate.iter().filter(move |e| e.source == source)
    }

    /// The targets that one source feeds, each once, in alphabetical order.
    pub fn targets_of(&self, source: &str) -> Vec<&Connection> {
        let names: std::collections::BTreeSet<&str> =
            self.entries_of(source).map(|e| e.target.as_str()).collect();
        names.into_iter().filter_map(|name| self.connections.get(name)).collect()
    }
}

/// One PostgreSQL database, and how changes are read from it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The name in `[connections.NAME]`: `[a-z][a-z0-9_]{0,23}`, no `__`.
    pub name: String,
    /// A host name, an address, or the directory of a Unix socket (starts with `/`).
    pub host: String,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// Role to log in as.
    pub user: String,
    /// From the file, `PGPASSWORD` or `.pgpass`; `None` where the server asks for none.
    pub password: Option<SecretString>,
    /// Database.
    pub database: String,
    /// How much TLS is asked for.
    pub sslmode: SslMode,
    /// Certificates of the authorities to trust (PEM); `None`: those of the operating system.
    pub sslrootcert: Option<PathBuf>,
    /// Client certificate (PEM); always together with `sslkey`.
    pub sslcert: Option<PathBuf>,
    /// The client certificate's private key (PEM).
    pub sslkey: Option<PathBuf>,
    /// How changes are read.
    pub capture: Capture,
    /// The output plugin of the slot; `None`: pgoutput, or with `capture` auto what works.
    pub plugin: Option<Plugin>,
    /// Take null for NaN and infinity where wal2json sends that.
    pub allow_lossy_numbers: bool,
    /// A slot made by the DBA, which we neither make nor drop. Only with `publication`, and only where the
    /// connection feeds at most one target.
    pub slot_name: Option<String>,
    /// A publication made by the DBA, which we neither make, change nor drop.
    pub publication: Option<String>,
    /// Bytes of WAL our slot may retain before it raises an alarm; `None`: no limit of ours.
    pub max_retained_wal: Option<u64>,
    /// What `repack` does here.
    pub repack: RepackConfig,
    /// Line of `[connections.NAME]` in the file, from 1.
    pub line: usize,
}

/// What `repack` does on a connection, as its room takes it; of the settings those that only `repack` has.
#[derive(Debug, Clone, Default)]
pub struct RepackConfig {
    /// `schemas` and `tables`, and from `min_bloat` on nothing.
    pub selection: Selection,
    /// The keys of the connection.
    pub settings: RepackSettings,
    /// `table_conf/<config>_<connection>.toml`.
    pub rules: TableRules,
}

impl Connection {
    /// True when `host` is a Unix socket's directory.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// True when both lead to the same database, as far as their text tells.
    pub fn same_database(&self, other: &Connection) -> bool {
        (&self.host, self.port, &self.database) == (&other.host, other.port, &other.database)
    }
}

/// How much TLS a connection asks for; meanings as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses a connection without.
    Allow,
    /// When the server can (libpq's default, and ours).
    #[default]
    Prefer,
    /// Always; certificates are checked only when `sslrootcert` is given.
    Require,
    /// Always, and the certificate must be signed by a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be for this host.
    VerifyFull,
}

/// How changes are read from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Capture {
    /// From a slot where the role may use one, else from triggers (a repack; streams do not read them yet).
    #[default]
    Auto,
    /// From a slot, or not at all.
    Slot,
    /// From queues that triggers fill; only a repack reads them yet.
    Trigger,
}

/// The output plugin of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plugin {
    /// PostgreSQL's own, reading a publication.
    #[default]
    Pgoutput,
    /// JSON, where a site allows no other.
    Wal2json,
}

/// One `[[replicate]]`: which tables go where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicateEntry {
    /// Line of its `[[replicate]]` in the file, from 1.
    pub line: usize,
    /// Connection the rows come from; exists.
    pub source: String,
    /// Connection the rows go to; exists.
    pub target: String,
    /// How the target follows.
    pub mode: Mode,
    /// At least one; no table twice.
    pub tables: Vec<TablePattern>,
    /// Another name on the target; only when `tables` is one plain table.
    pub target_table: Option<TableName>,
    /// The columns to replicate, by name; `None`: all. Holds every column of `key`.
    pub columns: Option<Vec<String>>,
    /// SQL condition on the source's row; `None`: all rows.
    pub condition: Option<String>,
    /// The columns that identify a row; `None`: the replica identity.
    pub key: Option<Vec<String>>,
    /// Copy the first rows; `false`: start with what the target holds.
    pub copy: bool,
    /// Tables we make get all indexes; `false`: only the key's.
    pub indexes: bool,
    /// Owner of tables we make; `None`: the role of the target connection.
    pub owner: Option<String>,
    /// Grants on tables we make.
    pub grants: Vec<Grant>,
    /// logdel's column; [`DEFAULT_DELETED_COLUMN`] unless said, and unused in other modes.
    pub deleted_column: String,
    /// What a row that is missing or already there leads to. `Log` by default where `copy` is false.
    pub on_conflict: OnConflict,
    /// What a changed shape of the source table leads to.
    pub on_schema_change: OnSchemaChange,
    /// Which changes the source publishes.
    pub publish: Publish,
}

/// Name of logdel's column unless the entry says otherwise.
pub const DEFAULT_DELETED_COLUMN: &str = "repcloud_source_deleted";

/// How a target table follows its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Equal to the source.
    Dml,
    /// As `Dml`, but deleted rows stay, stamped with the time of their deletion.
    Logdel,
}

/// What to do about a row that is missing or already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Record it and stop.
    #[default]
    Stop,
    /// Record it, leave the target's row as it is, and go on.
    Log,
    /// Record it, make the target's row what the source says, and go on.
    Overwrite,
}

/// What to do when the source table's shape has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSchemaChange {
    /// The table stops and parks its changes.
    #[default]
    Stop,
}

/// Which changes of a table the source publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publish {
    /// Inserts, updates, deletes and truncates; the table needs a replica identity.
    #[default]
    All,
    /// Inserts only: for a table without a replica identity.
    Insert,
}

/// One grant on a table we make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Privileges in SQL's upper-case words (`SELECT`, …, or `ALL`), at least one, each a known word.
    pub privileges: Vec<&'static str>,
    /// The role, as the catalogs hold its name; `None`: PUBLIC.
    pub role: Option<String>,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Folder of the log files.
    pub log_dir: PathBuf,
    /// Least severe level that is logged.
    pub log_level: LogLevel,
    /// Where they go.
    pub log_dest: LogDest,
    /// Daily files kept.
    pub log_days_keep: usize,
}

/// Severity of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what a run does.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogDest {
    /// Standard error.
    #[default]
    Console,
    /// A daily file in `log_dir`.
    File,
}
