//! What a repack is asked to do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::rebuild::Rebuild;
use super::window::Window;
use crate::capture::auto::CaptureOptions;
use crate::model::TableName;
use crate::pg::ConnectOptions;

/// One run over the tables of one connection.
#[derive(Debug, Clone)]
pub struct RepackOptions {
    /// The connection's name.
    pub connection: String,
    /// The database.
    pub connect: ConnectOptions,
    /// Which tables.
    pub selection: Selection,
    /// The connection's settings.
    pub settings: RepackSettings,
    /// What was typed.
    pub run: RunOptions,
    /// Settings of single tables.
    pub rules: TableRules,
}

impl RepackOptions {
    /// What holds for one table: of the fillfactor the innermost level that names one.
    pub fn table_settings(&self, table: &TableName) -> TableSettings {
        self.rules.of(table)
    }
}

/// Which tables of a connection; both lists empty: every table the role may repack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// These tables.
    pub tables: Vec<TableName>,
    /// Every table of these schemas that can be repacked.
    pub schemas: Vec<String>,
    /// They were named for this run, not in the configuration: each is spoken of, also where there is nothing to be done.
    pub typed: bool,
    /// Only tables of which at least this part is bloat, by estimate, in percent of the heap.
    pub min_bloat: Option<f64>,
    /// Only tables of at least this size in bytes, with indexes and TOAST.
    pub min_size: Option<u64>,
}

/// The repack settings of a connection, names and meaning as in rpcl.
#[derive(Debug, Clone, PartialEq)]
pub struct RepackSettings {
    /// Most changes applied in one transaction of ours.
    pub max_replay_rows: u64,
    /// The wait of one lock attempt.
    pub lock_timeout: Duration,
    /// How often it is looked whether the catch-up converges.
    pub check_time: Duration,
    /// ANALYZE the new table before it is exchanged.
    pub analyze_tables: bool,
    /// What is done to the sessions in the way of the exchange.
    pub deadlock_resolution: DeadlockResolution,
    /// Bytes of WAL our slot may retain before the repack is given up; `None`: no limit of ours.
    pub max_retained_wal: Option<u64>,
    /// How changes are read.
    pub capture: CaptureOptions,
    /// When the copy pauses.
    pub throttle: ThrottleOptions,
    /// For our sessions that build indexes, as SET takes it (`1048576kB`); `None`: the server's.
    pub maintenance_work_mem: Option<String>,
    /// Sessions that build indexes at once; `None`: as many as `jobs`.
    pub index_workers: Option<usize>,
}

impl Default for RepackSettings {
    fn default() -> Self {
        RepackSettings {
            max_replay_rows: 100_000,
            lock_timeout: Duration::from_millis(500),
            check_time: Duration::from_secs(10),
            analyze_tables: true,
            deadlock_resolution: DeadlockResolution::default(),
            max_retained_wal: None,
            capture: CaptureOptions::default(),
            throttle: ThrottleOptions::default(),
            maintenance_work_mem: None,
            index_workers: None,
        }
    }
}

/// What is done to the sessions that block the current attempt of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadlockResolution {
    /// They are named, and we give way.
    #[default]
    Nothing,
    /// Their statement is cancelled.
    CancelQuery,
    /// Their session is ended.
    KillQuery,
}

/// When the copy pauses; nothing set: never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThrottleOptions {
    /// A replica is behind by more than this.
    pub lag: Option<Duration>,
    /// This query answers true, or a number above 0.
    pub query: Option<String>,
    /// This file exists.
    pub file: Option<PathBuf>,
    /// The server writes more WAL than this, in bytes a second.
    pub max_wal_rate: Option<u64>,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// Pre-flight and plan only; nothing is written.
    pub dry_run: bool,
    /// Sessions that copy, build indexes and, up to four, apply changes; at least 1.
    pub jobs: usize,
    /// How much is compared before the exchange.
    pub verify: VerifyLevel,
    /// The whole cut-over, from the first lock to the commit.
    pub max_lock: Duration,
    /// Attempts of the exchange; at least 1.
    pub attempts: u32,
    /// What becomes of an unfinished repack when it fails.
    pub on_failure: OnFailure,
    /// Go on applying until `swap` asks for the exchange.
    pub postpone_swap: bool,
    /// Exchange only in these hours, by the clock of this machine.
    pub window: Option<Window>,
    /// What is to be different in the new table.
    pub rebuild: Rebuild,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            dry_run: false,
            jobs: 2,
            verify: VerifyLevel::default(),
            max_lock: Duration::from_secs(2),
            attempts: 10,
            on_failure: OnFailure::default(),
            postpone_swap: false,
            window: None,
            rebuild: Rebuild::default(),
        }
    }
}

/// How much of the table is compared with its copy before the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyLevel {
    /// Nothing.
    Off,
    /// A part of the rows.
    #[default]
    Sample,
    /// Every row.
    Full,
}

/// What becomes of an unfinished repack when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It stays, and the next run goes on with it.
    #[default]
    Keep,
    /// It is undone completely.
    Abort,
}

/// Settings of single tables: the fillfactor at three levels, each of which works alone, and what is taken out of
/// json columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRules {
    /// Of every table, unless a schema or a table says otherwise.
    pub fillfactor: Option<u32>,
    /// Of every table of a schema, unless the table says otherwise.
    pub schemas: BTreeMap<String, u32>,
    /// Of one table.
    pub tables: BTreeMap<TableName, TableSettings>,
}

impl TableRules {
    /// What holds for one table.
    pub fn of(&self, table: &TableName) -> TableSettings {
        let mut settings = self.tables.get(table).cloned().unwrap_or_default();
        settings.fillfactor =
            settings.fillfactor.or_else(|| self.schemas.get(&table.schema).copied()).or(self.fillfactor);
        settings
    }
}

/// What holds for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSettings {
    /// Fillfactor of the new heap, 10 to 100; `None`: the table's own.
    pub fillfactor: Option<u32>,
    /// json and jsonb columns from which object fields that are null are taken out, at every depth.
    pub cleanup_nulls: Vec<String>,
    /// jsonb columns with the keys that are taken out at their top level.
    pub remove_keys: Vec<(String, Vec<String>)>,
}

impl TableSettings {
    /// True when rows are copied as they are.
    pub fn keeps_rows(&self) -> bool {
        self.cleanup_nulls.is_empty() && self.remove_keys.is_empty()
    }
}

/// The options that say which table, as a shell takes them.
pub(crate) fn typed(connection: &str, table: &TableName) -> String {
    format!("--connection {} --table {}", word(connection), word(&table.to_string()))
}

fn word(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_any_name_can_be_typed() {
        assert_eq!(typed("live", &TableName::new("public", "t")), "--connection live --table public.t");
        assert_eq!(
            typed("my db", &TableName::new("public", "It's")),
            r#"--connection 'my db' --table 'public."It'\''s"'"#
        );
    }

    #[test]
    fn each_level_of_the_fillfactor_works_alone_and_the_innermost_wins() {
        let (orders, items) = (TableName::new("sales", "orders"), TableName::new("sales", "items"));
        let other = TableName::new("public", "orders");
        let one = |fillfactor| TableSettings { fillfactor: Some(fillfactor), ..TableSettings::default() };
        let rules = TableRules { tables: [(orders.clone(), one(70))].into(), ..TableRules::default() };
        assert_eq!([&orders, &items, &other].map(|t| rules.of(t).fillfactor), [Some(70), None, None]);
        let rules = TableRules { schemas: [("sales".to_owned(), 80)].into(), ..rules };
        assert_eq!([&orders, &items, &other].map(|t| rules.of(t).fillfactor), [Some(70), Some(80), None]);
        let rules = TableRules { fillfactor: Some(90), ..rules };
        assert_eq!([&orders, &items, &other].map(|t| rules.of(t).fillfactor), [Some(70), Some(80), Some(90)]);
    }

    #[test]
    fn a_table_with_column_rules_still_gets_the_schema_s_fillfactor() {
        let orders = TableName::new("sales", "orders");
        let cleaned = TableSettings { cleanup_nulls: vec!["doc".into()], ..TableSettings::default() };
        let rules = TableRules {
            schemas: [("sales".to_owned(), 80)].into(),
            tables: [(orders.clone(), cleaned)].into(),
            fillfactor: None,
        };
        let settings = rules.of(&orders);
        assert_eq!((settings.fillfactor, settings.keeps_rows()), (Some(80), false));
    }
}
