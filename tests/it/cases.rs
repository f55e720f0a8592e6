//! Cases without code: one folder of `tests/cases` each, one test each.
//!
//! A case is `create.sql` (run on the source), `target.sql` (on the target, may be missing), `during.sql` (on the source, after
//! the first rows were copied; may be missing) and `expect.toml` (see [`Case`]). It is run, side by side in databases of its
//! own: with the changes of `during.sql` as a backlog that the next run finds, and with a stream running while they are made; and
//! a third and fourth time with a stream that reads wal2json, and one that reads triggers, unless `expect.toml` says why that cannot be. All must end as `expect.toml` says.
//!
//! The files are scripts (`support::script`). `-- @until QUERY` in `during.sql` waits until the query gives true on the target;
//! as a backlog it means nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use repcloud::cluster::Cluster;
use serde::Deserialize;

use crate::support::cluster::{Pair, has_wal2json, major};
use crate::support::db::Db;
use crate::support::process::{Finished, Repcloud};
use crate::support::script::{self, Sessions};
use crate::support::stream::LIMIT;
use crate::support::wait;

/// One test a folder; `every_case_is_listed` tells when one is missing.
macro_rules! cases {
    ($($name:ident)*) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            run_case(stringify!($name));
        })*
    };
}

cases! {
    cast_refused
    condition
    condition_refused
    conflicts
    copy_false
    enum_label
    float_digits
    foreign_keys
    foreign_keys_circle_refused
    foreign_keys_restricted
    generated_columns
    generated_columns_full
    identities
    identity_columns
    identity_refused
    key_change
    key_override
    key_override_refused
    late_commit
    logdel
    logdel_refused
    long_values
    names
    narrower_target
    narrower_varchar
    nested_trigger
    no_key_full
    no_key_refused
    odd_shapes
    other_types
    partition_attached
    partition_detached
    partition_truncated
    partitions
    plain_roles
    reactions_refused
    replica_role
    schema_star
    several_targets
    tables_made
    toast
    triggers
    truncate
    truncate_identity
    unique_swap
    wide_table
    writer_function
    writer_role
    xid_inverted
}

/// `expect.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case is about; for its reader.
    #[serde(rename = "about")]
    _about: String,
    /// `[[replicate]]` bodies without source and target.
    replicate: Vec<toml::Table>,
    /// Roles that both servers get before anything else: `name options`.
    #[serde(default)]
    roles: Vec<String>,
    /// Holds on servers before this major version.
    before: Option<u32>,
    /// Why it cannot be run with wal2json.
    wal2json_cannot: Option<String>,
    /// Why it cannot be run with triggers.
    trigger_cannot: Option<String>,
    /// Who reads the source, and who writes the target. `:reader` in create.sql stands for the first.
    #[serde(default = "superuser")]
    source_user: String,
    /// Who reads it where triggers are used.
    trigger_user: Option<String>,
    #[serde(default = "superuser")]
    target_user: String,
    /// The run that copies.
    #[serde(default)]
    first: Run,
    /// The run (or runs) that apply `during.sql`.
    #[serde(default)]
    after: Run,
    /// What somebody else does after the first run.
    #[serde(default)]
    tamper: Vec<Statement>,
    /// What a person does about a run that stopped; then another run follows, `last`.
    #[serde(default)]
    mend: Vec<Statement>,
    #[serde(default)]
    last: Run,
    /// Tables (or queries, as `(SELECT …) q`) that must be equal on both sides in the end.
    #[serde(default)]
    equal: Vec<String>,
    /// Queries that must give the same rows, in any order, in the end.
    #[serde(default)]
    same: Vec<Same>,
    /// What else must be true in the end.
    #[serde(default)]
    query: Vec<Query>,
}

fn superuser() -> String {
    "postgres".to_owned()
}

impl Case {
    fn reader(&self, way: Way) -> &str {
        let plain = self.trigger_user.as_ref().filter(|_| way == Way::Trigger);
        plain.unwrap_or(&self.source_user)
    }
}

/// How a run must end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    #[serde(default)]
    exit: i32,
    /// What standard error must say.
    #[serde(default)]
    says: Vec<String>,
    /// What it must not say: row values.
    #[serde(default)]
    never_says: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Source,
    Target,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    on: Side,
    sql: String,
}

/// A query on the source and one on the target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Same {
    source: String,
    target: String,
}

/// A query and its result: columns joined by `|`, rows by `,`, NULL as `null`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    on: Side,
    sql: String,
    result: String,
    /// What wal2json does not send.
    #[serde(default)]
    pgoutput_only: bool,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[test]
fn every_case_is_listed() {
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        // Those have a runner and a list of their own: `repack::cases`.
        .filter(|name| !name.starts_with("repack_"))
        .collect();
    found.sort();
    let mut listed = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed, "left: folders of tests/cases, right: the list in tests/it/cases.rs");
}

/// A case's files, read.
struct Files {
    case: Case,
    create: String,
    target: String,
    during: String,
}

impl Files {
    fn read(name: &str) -> Self {
        let folder = folder().join(name);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        let expect = read("expect.toml");
        let case = toml::from_str(&expect).unwrap_or_else(|error| panic!("{name}/expect.toml: {error}"));
        let create = read("create.sql");
        assert!(!create.is_empty(), "{name}/create.sql is missing or empty");
        Files { case, create, target: read("target.sql"), during: read("during.sql") }
    }
}

/// How the changes meet the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Backlog,
    Live,
    /// As `Live`, from a slot with wal2json.
    Json,
    /// As `Live`, from queues that triggers fill.
    Trigger,
}

impl Way {
    /// Name of the source connection, hence of the slot, and of the databases.
    fn name(self) -> &'static str {
        match self {
            Way::Backlog => "backlog",
            Way::Live => "live",
            Way::Json => "json",
            Way::Trigger => "trig",
        }
    }
}

fn run_case(name: &str) {
    let files = Files::read(name);
    if files.case.before.is_some_and(|before| major() >= before) {
        return;
    }
    let pair = Pair::start();
    for role in &files.case.roles {
        for cluster in [&pair.source, &pair.target] {
            on_own_runtime(async {
                Db::connect(cluster, "postgres").await.exec(&format!("CREATE ROLE {role}")).await
            });
        }
    }
    std::thread::scope(|scope| {
        let json = files.case.wal2json_cannot.is_none() && has_wal2json();
        let trigger = files.case.trigger_cannot.is_none();
        let ways =
            [Some(Way::Backlog), Some(Way::Live), json.then_some(Way::Json), trigger.then_some(Way::Trigger)];
        for way in ways.into_iter().flatten() {
            let (pair, files) = (&pair, &files);
            std::thread::Builder::new()
                .name(format!("{name}, {}", way.name()))
                .spawn_scoped(scope, move || on_own_runtime(Box::pin(run_way(pair, files, way))))
                .unwrap();
        }
    });
}

fn on_own_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// Runs a file's statements in sessions of their own: they may change role and settings. `until` waits for a query.
async fn execute(cluster: &Cluster, way: Way, text: &str, until: impl AsyncFn(&str)) {
    let mut sessions = Sessions::new(cluster, way.name());
    for part in script::parts(text) {
        match part.head.strip_prefix("until ") {
            Some(query) => until(query).await,
            None => sessions.run(&part).await,
        }
    }
}

/// Nobody applies anything that could be waited for.
async fn nobody(_query: &str) {}

async fn run_way(pair: &Pair, files: &Files, way: Way) {
    pair.create_database(way.name());
    let case = &files.case;
    execute(&pair.source, way, &files.create.replace(":reader", case.reader(way)), nobody).await;
    execute(&pair.target, way, &files.target, nobody).await;
    let source = Db::connect(&pair.source, way.name()).await;
    let target = Db::connect(&pair.target, way.name()).await;
    let stage = Stage { program: Repcloud::new(&configuration(pair, case, way)), pair, way, source, target };
    stage.catch_up("first run", &case.first);
    for Statement { on, sql } in &case.tamper {
        stage.db(*on).exec(sql).await;
    }
    if !files.during.is_empty() {
        match way {
            // What was refused cannot run.
            Way::Live | Way::Json | Way::Trigger if case.first.exit == 0 => {
                stage.change_while_streaming(files).await
            }
            _ => execute(&pair.source, way, &files.during, nobody).await,
        }
        stage.catch_up("run after the changes", &case.after);
    }
    if !case.mend.is_empty() {
        for Statement { on, sql } in &case.mend {
            stage.db(*on).exec(sql).await;
        }
        stage.catch_up("last run", &case.last);
    }
    for table in &case.equal {
        let hashes = (stage.source.table_hash(table).await, stage.target.table_hash(table).await);
        assert_eq!(hashes.0, hashes.1, "{way:?}: {table} differs (rows, md5), left is the source");
    }
    for Same { source, target } in &case.same {
        let hashes = (stage.source.query_hash(source).await, stage.target.query_hash(target).await);
        assert_eq!(hashes.0, hashes.1, "{way:?}: rows, md5 of\n{source}\n{target}");
    }
    for Query { on, sql, result, .. } in case.query.iter().filter(|q| !(q.pgoutput_only && way == Way::Json))
    {
        assert_eq!(&shown(stage.db(*on).query_text(sql).await), result, "{way:?}, {on:?}: {sql}");
    }
}

pub(crate) fn shown(rows: Vec<Vec<Option<String>>>) -> String {
    let row = |row: Vec<Option<String>>| {
        let values: Vec<String> = row.into_iter().map(|v| v.unwrap_or_else(|| "null".to_owned())).collect();
        values.join("|")
    };
    rows.into_iter().map(row).collect::<Vec<_>>().join(",")
}

/// The configuration's text: two connections and the case's entries.
fn configuration(pair: &Pair, case: &Case, way: Way) -> String {
    let connections =
        [(way.name(), &pair.source, case.reader(way)), ("copy", &pair.target, case.target_user.as_str())];
    let mut text = String::new();
    for (name, cluster, user) in connections {
        let (socket, port) = (cluster.socket_dir().display(), cluster.port());
        text.push_str(&format!(
            "[connections.{name}]\nhost = \"{socket}\"\nport = {port}\nuser = \"{user}\"\ndatabase = \"{}\"\n",
            way.name()
        ));
        if way == Way::Trigger && name == way.name() {
            text.push_str("capture = \"trigger\"\n");
        }
        if way == Way::Json && name == way.name() {
            text.push_str("capture = \"slot\"\nplugin = \"wal2json\"\nallow_lossy_numbers = true\n");
        }
    }
    for entry in &case.replicate {
        let body = toml::to_string(entry).unwrap();
        text.push_str(&format!("[[replicate]]\nsource = \"{}\"\ntarget = \"copy\"\n{body}\n", way.name()));
    }
    text
}

/// A case under way.
struct Stage<'p> {
    pair: &'p Pair,
    program: Repcloud,
    way: Way,
    source: Db,
    target: Db,
}

impl Stage<'_> {
    fn db(&self, side: Side) -> &Db {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    fn catch_up(&self, what: &str, expected: &Run) {
        let arguments = ["stream", "--source", self.way.name(), "--until", "caught-up"];
        self.check(what, expected, &self.program.run(&arguments, LIMIT));
    }

    fn check(&self, what: &str, expected: &Run, run: &Finished) {
        let told = &run.stderr;
        assert_eq!(run.code(), expected.exit, "{:?}, {what}, exit code:\n{told}", self.way);
        for text in &expected.says {
            assert!(told.contains(text), "{:?}, {what} does not say `{text}`:\n{told}", self.way);
        }
        for text in &expected.never_says {
            assert!(!told.contains(text), "{:?}, {what} says `{text}`:\n{told}", self.way);
        }
    }

    async fn change_while_streaming(&self, files: &Files) {
        let mut running = self.program.spawn(&["stream", "--source", self.way.name()]);
        wait::until("the stream runs", LIMIT, async || {
            assert!(running.is_running(), "the stream ended early:\n{}", running.stderr());
            running.stderr().contains("streaming from")
        })
        .await;
        let until = async |query: &str| {
            wait::until(query, LIMIT, async || self.target.value(query).await == "t").await;
        };
        execute(&self.pair.source, self.way, &files.during, until).await;
        if files.case.after.exit == 4 {
            // It goes on without the table, for the reason that the run after it gives again.
            wait::until("the table is set aside", LIMIT, async || {
                let told = running.stderr();
                files.case.after.says.iter().all(|text| told.contains(text))
            })
            .await;
            running.terminate();
            let ended = running.wait(LIMIT);
            let expected = Run { exit: 0, ..files.case.after.clone() };
            return self.check("stream that was running", &expected, &ended);
        }
        if files.case.after.exit != 0 {
            // It stops by itself, for the reason that the run after it gives again.
            let ended = running.wait(LIMIT);
            return self.check("stream that was running", &files.case.after, &ended);
        }
        // Most of it arrives by itself; what does not within a moment is left to the run that follows.
        let end = self.source.value("SELECT pg_current_wal_insert_lsn()").await;
        let confirmed = format!(
            "SELECT bool_and(confirmed_flush_lsn >= '{end}') FROM pg_replication_slots WHERE slot_name = 'repcloud_{}__copy'",
            self.way.name()
        );
        let deadline = Instant::now() + Duration::from_secs(2);
        while running.is_running() && Instant::now() < deadline && self.source.value(&confirmed).await != "t"
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if running.is_running() {
            running.terminate();
        }
        let ended = running.wait(LIMIT);
        assert_eq!(ended.code(), 0, "{:?}, the stream that was running:\n{}", self.way, ended.stderr);
    }
}
