//! Cases of repack without code: the folders `tests/cases/repack_*`, one test each.
//!
//! A case is `create.sql` (run by the owner, table `t` among it), `before.sql` and `during.sql` (may be missing) and `expect.toml`
//! (see [`Case`]). It is run four times, on a server each: with the changes of `during.sql` made while the copy is held up, so that
//! they are replayed over copied rows, the same from a slot with wal2json, the same from triggers by a role without REPLICATION,
//! and made while the copy is complete and waits for the exchange.
//!
//! The sessions of `before.sql` are open, in a transaction perhaps, when the repack begins, and go on in `during.sql`. Where there
//! are any, `during.sql` is run as soon as the slot is asked for: the server makes it only after the end of transactions that
//! write.
//!
//! These two are scripts (`support::script`). `-- @told`: waits until the repack has told what `tells` lists.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Capture, LIMIT, Live};
use crate::cases::shown;
use crate::support::cluster::has_wal2json;
use crate::support::process::{Finished, Running};
use crate::support::script::{self, Sessions};
use crate::support::wait::until;

const TABLE: &str = "public.t";

macro_rules! cases {
    ($($name:ident)*) => {
        const LISTED: &[&str] = &[$(stringify!($name)),*];
        $(mod $name {
            #[tokio::test]
            async fn while_it_is_copied() {
                super::run(stringify!($name), super::Way::Copying).await;
            }
            #[tokio::test]
            async fn while_it_waits_for_the_exchange() {
                super::run(stringify!($name), super::Way::Waiting).await;
            }
            #[tokio::test]
            async fn from_wal2json() {
                super::run(stringify!($name), super::Way::Json).await;
            }
            #[tokio::test]
            async fn from_triggers() {
                super::run(stringify!($name), super::Way::Triggers).await;
            }
        })*
    };
}

cases! {
    repack_atomic
    repack_cleanup
    repack_cleanup_refused
    repack_float_digits
    repack_function_refused
    repack_inheritance
    repack_key_change
    repack_killed_then_aborted
    repack_killed_then_repacked
    repack_matviews
    repack_nested_trigger
    repack_open_elsewhere
    repack_open_large
    repack_open_overlap
    repack_order_of_actions
    repack_partition
    repack_policies
    repack_policies_refused
    repack_replica_role
    repack_rules
    repack_savepoints
    repack_small_replay
    repack_toast
    repack_unique_swap
    repack_writer_function
    repack_writer_role
    repack_xid_inverted
}

/// `expect.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What the case is about; for its reader.
    #[serde(rename = "about")]
    _about: String,
    /// Further lines of the connection.
    #[serde(default)]
    settings: String,
    /// The connection's file of table settings.
    #[serde(default)]
    table_conf: String,
    /// 0: it is exchanged. 3: it is refused before anything is written.
    #[serde(default)]
    exit: i32,
    /// What the report's reason must say.
    #[serde(default)]
    says: Vec<String>,
    /// `repack` or `abort`: the process is killed after the changes (`kill -9`), and this is what is typed next.
    killed: Option<String>,
    /// What the repack must tell before what stands below `-- @told` is done.
    #[serde(default)]
    tells: Vec<String>,
    /// Rows are other ones afterwards, because the settings ask for it.
    #[serde(default)]
    rows_change: bool,
    /// What must be true in the end: columns joined by `|`, rows by `,`, NULL as `null`.
    #[serde(default)]
    query: Vec<Query>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    sql: String,
    result: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Copying,
    Waiting,
    /// As `Copying`, from a slot with wal2json. What is refused is refused whatever the plugin: it is run with the others.
    Json,
    /// As `Copying`, from triggers: the role may use no slot.
    Triggers,
}

impl Way {
    fn capture(self) -> Capture {
        match self {
            Way::Copying | Way::Waiting => Capture::Pgoutput,
            Way::Json => Capture::Wal2json,
            Way::Triggers => Capture::Trigger,
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[test]
fn every_case_is_listed() {
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("repack_"))
        .collect();
    found.sort();
    assert_eq!(found, LISTED, "left: folders of tests/cases, right: the list in tests/it/repack/cases.rs");
}

/// A case's files, read.
struct Files {
    case: Case,
    create: String,
    before: String,
    during: String,
}

impl Files {
    fn read(name: &str) -> Files {
        let read = |file: &str| std::fs::read_to_string(folder().join(name).join(file)).unwrap_or_default();
        let case = toml::from_str(&read("expect.toml")).unwrap_or_else(|e| panic!("{name}/expect.toml: {e}"));
        Files { case, create: read("create.sql"), before: read("before.sql"), during: read("during.sql") }
    }
}

async fn run(name: &str, way: Way) {
    let files = Files::read(name);
    let case = &files.case;
    if way == Way::Json && (case.exit == 3 || !has_wal2json()) {
        return;
    }
    // It waits for no transaction but those that write to the table: there is nothing to tell.
    if way == Way::Triggers && !case.tells.is_empty() {
        return;
    }
    let settings = format!("throttle_file = \"env:HOLD\"\n{}", case.settings);
    let Live { cluster, owner, admin, program } = Live::by(way.capture(), &files.create, &settings).await;
    let hold = program.home().join("hold");
    program.write("config/table_conf/default_live.toml", &case.table_conf);
    let live = Live { cluster, owner, admin, program: program.env("HOLD", hold.to_str().unwrap()) };
    if case.exit == 3 {
        refused(&live, case).await;
    } else {
        let expected = carried_out(&live, &files, &hold, way).await;
        if !case.rows_change {
            assert_eq!(live.admin.table_hash(TABLE).await, expected, "{way:?}: rows, md5");
        }
        live.assert_clean().await;
    }
    for Query { sql, result } in &case.query {
        assert_eq!(&shown(live.admin.query_text(sql).await), result, "{way:?}: {sql}");
    }
}

async fn refused(live: &Live, case: &Case) {
    let before = live.admin.table_hash(TABLE).await;
    let (finished, reports) = live.repack(&["--table", TABLE]);
    let reason = reports.iter().map(|report| report["reason"].to_string()).collect::<String>();
    check(case, &finished, &reason);
    assert_eq!(live.admin.table_hash(TABLE).await, before);
    assert_untouched(live).await;
}

/// Repacks, with the changes on the way; what the table held after them.
async fn carried_out(live: &Live, files: &Files, hold: &Path, way: Way) -> String {
    let Files { case, before, during, .. } = files;
    let mut sessions = Sessions::new(&live.cluster, "app");
    change(&mut sessions, before, async || {}).await;
    let running = match way {
        Way::Copying | Way::Json | Way::Triggers => {
            std::fs::write(hold, "").unwrap();
            live.program.spawn(&["repack", "--json", "--table", TABLE, "--verify", "full"])
        }
        Way::Waiting => live.program.spawn(&["repack", "--json", "--table", TABLE, "--postpone-swap"]),
    };
    let told = async || {
        until("it is told", LIMIT, || async {
            let stderr = running.stderr();
            case.tells.iter().all(|text| stderr.contains(text))
        })
        .await;
    };
    let open_before = !sessions.is_empty();
    if open_before {
        if way == Way::Triggers {
            triggers_are_asked_for(live).await;
        } else {
            slot_is_asked_for(live).await;
        }
        change(&mut sessions, during, &told).await;
    }
    match way {
        Way::Copying | Way::Json | Way::Triggers => {
            until("the copy is held up", LIMIT, || async {
                live.state().await == "shadow_ready" && live.admin.value(HELD).await == "1"
            })
            .await;
        }
        Way::Waiting => until("it is ready", LIMIT, || async { live.state().await == "verified" }).await,
    }
    if !open_before {
        change(&mut sessions, during, &told).await;
    }
    drop(sessions);
    let expected = live.admin.table_hash(TABLE).await;
    let finished = end(live, case, running, hold, way);
    check(case, &finished, &finished.stdout);
    expected
}

/// A slot whose snapshot is held: rows are being copied.
const HELD: &str = "SELECT count(*) FROM repcloud.repack WHERE copied_at_lsn > '0/0'";

/// They are there, or wait for those who write.
async fn triggers_are_asked_for(live: &Live) {
    until("triggers are asked for", LIMIT, || async {
        let asked = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!repcloud%') \
             + (SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND NOT granted) > 0";
        live.admin.value(asked).await == "t"
    })
    .await;
}

async fn slot_is_asked_for(live: &Live) {
    until("the slot is asked for", LIMIT, || async {
        let slots =
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'repcloud\\_repack\\_%' AND active";
        live.admin.value(slots).await == "1"
    })
    .await;
}

/// How it comes to its end once the changes are made.
fn end(live: &Live, case: &Case, running: Running, hold: &Path, way: Way) -> Finished {
    if let Some(command) = &case.killed {
        running.kill();
        let _may_be_missing = std::fs::remove_file(hold);
        return live.command(command, &["--table", TABLE]).0;
    }
    match way {
        Way::Copying | Way::Json | Way::Triggers => std::fs::remove_file(hold).unwrap(),
        Way::Waiting => {
            let swap = live.command("swap", &["--table", TABLE]).0;
            assert_eq!(swap.code(), case.exit, "{swap:?}, asked of {}", running.stderr());
        }
    }
    running.wait(LIMIT)
}

/// Runs a script; `told` waits for what the repack is to tell.
async fn change(sessions: &mut Sessions<'_>, text: &str, told: impl AsyncFn()) {
    for part in script::parts(text) {
        match part.head {
            "told" => told().await,
            _ => sessions.run(&part).await,
        }
    }
}

fn check(case: &Case, finished: &Finished, reason: &str) {
    assert_eq!(finished.code(), case.exit, "{finished:?}");
    for text in &case.says {
        assert!(reason.contains(text), "`{text}` is not in {reason}\n{finished:?}");
    }
}

/// What is refused leaves no trace: not even our schemas.
async fn assert_untouched(live: &Live) {
    let left = "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'repcloud%' \
         UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots \
         UNION ALL SELECT 'publication ' || pubname FROM pg_publication \
         UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'repcloud%'";
    let rows = live.admin.query_text(left).await;
    assert!(rows.is_empty(), "left behind: {rows:?}");
}
