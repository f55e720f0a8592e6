//! A source, a native subscription and our own copy of it, for one seed.

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::cluster::{Pair, builder};
use crate::support::db::Db;
use crate::support::process::{Finished, Repcloud, Running};
use crate::support::stream::{LIMIT, connection};
use crate::support::wait;

use super::compare::{PINNED, difference};
use super::tables::{SCHEMAS, Table, quote};
use super::values::{OWN_TYPES, TYPES};

/// Where the logdel copies are.
const KEEP: &str = "keep";

/// Who reads the source where no slot is to be used: with the rights that are documented, and no others.
const OWNER: &str = "plain_owner";

/// How the program reads the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    Pgoutput,
    Wal2json,
    Trigger,
}

/// Two servers that can serve many seeds.
pub(super) fn servers() -> Pair {
    let source = builder("source")
        .setting("track_commit_timestamp", "on")
        .setting("logical_decoding_work_mem", "64kB")
        .setting("max_worker_processes", "16");
    let target = builder("target")
        .setting("max_worker_processes", "16")
        .setting("wal_receiver_status_interval", "1s")
        .setting("wal_retrieve_retry_interval", "100ms");
    Pair::start_with(source, target)
}

/// See the module.
pub(super) struct World<'p> {
    pub(super) conninfo: String,
    tables: Vec<Table>,
    source: Db,
    native: Db,
    ours: Db,
    program: Repcloud,
    running: Option<Running>,
    seed: u64,
    capture: Capture,
    /// The consistent point of the program's slot (or its first tick), and the source's clock when all tables were copied.
    snapshot: String,
    copied_by: String,
    _pair: &'p Pair,
}

impl<'p> World<'p> {
    /// Databases, tables and the native subscription, which is there before the first row; ours is not started.
    pub(super) async fn new(pair: &'p Pair, tables: Vec<Table>, seed: u64, capture: Capture) -> Self {
        let (app, native) = (format!("app_{seed}"), format!("native_{seed}"));
        pair.create_database(&app);
        pair.target.create_database(&native).unwrap();
        let source = Db::connect(&pair.source, &app).await;
        let ours = Db::connect(&pair.target, &app).await;
        let native = Db::connect(&pair.target, &native).await;
        let all: String = tables.iter().map(Table::ddl).collect();
        let premade: String = tables.iter().filter(|t| t.premade).map(Table::ddl).collect();
        let schemas: String = SCHEMAS.iter().map(|s| format!("CREATE SCHEMA {};", quote(s))).collect();
        source.exec(&format!("{schemas}{TYPES}{OWN_TYPES}{all}")).await;
        native.exec(&format!("{schemas}{TYPES}{OWN_TYPES}{all}")).await;
        ours.exec(&format!("{TYPES}{premade}")).await;
        for db in [&source, &native, &ours] {
            db.exec(PINNED).await;
        }
        for table in tables.iter().filter(|t| t.logdel) {
            source.exec(&audit(table)).await;
        }
        if capture == Capture::Trigger {
            source.exec(&owned(&app)).await;
        }
        let program = Repcloud::new(&configuration(pair, &app, &tables, capture));
        let conninfo = pair.source.conninfo(&app);
        let world = World {
            conninfo,
            tables,
            source,
            native,
            ours,
            program,
            running: None,
            seed,
            capture,
            snapshot: String::new(),
            copied_by: String::new(),
            _pair: pair,
        };
        world.subscribe().await;
        world
    }

    async fn subscribe(&self) {
        let (name, conninfo) = (self.subscription(), self.conninfo.replace('\'', "''"));
        let tables: Vec<_> = self.tables.iter().filter(|t| t.native).map(Table::sql_name).collect();
        self.source.exec(&format!("CREATE PUBLICATION {name} FOR TABLE {}", tables.join(", "))).await;
        self.native
            .exec(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{conninfo}' PUBLICATION {name} WITH (copy_data = false)"))
            .await;
    }

    fn subscription(&self) -> String {
        format!("native_{}", self.seed)
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The source's position and clock, for a person.
    pub(super) async fn note(&self, what: &str) {
        let sql = "SELECT pg_current_wal_lsn() || ' at ' || clock_timestamp()";
        println!("seed {}: {what}: {}", self.seed, self.source.value(sql).await);
    }

    /// Starts the program; it runs until [`World::compare`] has stopped it.
    pub(super) fn start(&mut self) {
        self.running = Some(self.program.spawn(&["stream", "--source", "prod"]));
    }

    /// When the program's snapshot is fixed: what commits from now on must come by the stream.
    pub(super) async fn wait_for_snapshot(&mut self) {
        let running = self.running.as_mut().unwrap();
        let position = match self.capture {
            Capture::Trigger => FIRST_TICK.to_owned(),
            _ => format!(
                "select max(confirmed_flush_lsn)::text from pg_replication_slots where slot_name like 'repcloud_prod__%' and confirmed_flush_lsn is not null and database = 'app_{}'",
                self.seed
            ),
        };
        let there = "select to_regclass('repcloud.tick') is not null";
        let snapshot = wait::value("the program has its snapshot", LIMIT, async || {
            assert!(running.is_running(), "the program ended\n{}", tail(&running.stderr()));
            if self.capture == Capture::Trigger && self.source.value(there).await != "t" {
                return None;
            }
            Some(self.source.value(&position).await).filter(|lsn| !lsn.is_empty())
        })
        .await;
        self.snapshot = snapshot;
    }

    /// `kill -9`, and starts it again.
    pub(super) fn kill_and_start(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
        self.start();
    }

    /// When every table has been copied.
    pub(super) async fn wait_for_copy(&mut self) {
        let running = self.running.as_mut().unwrap();
        let sql = "select count(*) filter (where state <> 'streaming') = 0 and count(*) > 0 from repcloud.table_state";
        wait::until("all tables are copied", LIMIT, async || {
            assert!(running.is_running(), "the program ended\n{}", tail(&running.stderr()));
            self.ours.value(sql).await == "t"
        })
        .await;
        if self.capture == Capture::Trigger {
            // Deletions are stamped with their batch's time: those of before are in before the clock is read.
            let queued = QUEUED;
            wait::until("the queues are empty", LIMIT, async || self.source.value(queued).await == "0").await;
        }
        self.copied_by = self.source.value("SELECT clock_timestamp()").await;
    }

    /// Waits until both copies have everything, and compares all tables. The program is stopped.
    pub(super) async fn compare(&mut self, when: &str) {
        self.source.exec("SELECT pg_logical_emit_message(true, 'oracle', 'here')").await;
        let here = self.source.value("SELECT pg_current_wal_lsn()").await;
        if let Some(running) = self.running.take() {
            let mut running = running;
            assert!(
                running.is_running(),
                "seed {} {when}: the program ended\n{}",
                self.seed,
                tail(&running.stderr())
            );
            running.terminate();
            let finished = running.wait(LIMIT);
            println!("{}", tail(&finished.stderr));
            self.must_end_well(&finished, when);
        }
        self.note(when).await;
        let end = if self.capture == Capture::Trigger { "caught-up" } else { &here };
        let finished = self.program.run(&["stream", "--source", "prod", "--until", end], LIMIT);
        self.must_end_well(&finished, when);
        self.wait_for_native(&here).await;
        let mut report = String::new();
        for table in &self.tables {
            let name = table.sql_name();
            let all = format!("select {} from {name}", columns(table));
            if table.native
                && let Some(text) = difference(&self.source, &self.native, &all, &all).await
            {
                let _ = write!(report, "{name}: source (left) and native (right)\n{text}\n");
            }
            if let Some(text) = difference(&self.source, &self.ours, &all, &all).await {
                let _ = write!(report, "{name}: source (left) and ours (right)\n{text}\n");
            }
            if table.logdel {
                self.compare_logdel(table, &mut report).await;
            }
        }
        assert!(report.is_empty(), "seed {}, {when}:\n{report}\n{}", self.seed, tail(&finished.stderr));
        assert_eq!(
            self.ours.value("select count(*) from repcloud.conflict").await,
            "0",
            "conflicts were recorded"
        );
    }

    /// Live rows equal the source's; a deleted key keeps its last image, stamped with the deletion's commit time.
    async fn compare_logdel(&self, table: &Table, report: &mut String) {
        let (name, kept, columns) = (table.sql_name(), kept(table), columns(table));
        let all = format!("select {columns} from {name}");
        let live = format!("select {columns} from {kept} where repcloud_source_deleted is null");
        if let Some(text) = difference(&self.source, &self.ours, &all, &live).await {
            let _ = write!(report, "{kept}: source (left) and live rows (right)\n{text}\n");
        }
        let key: Vec<_> = table.identity().into_iter().map(quote).collect();
        let same: Vec<_> = key.iter().map(|k| format!("s.{k} = a.{k}")).collect();
        let (key, same, audit) = (key.join(", "), same.join(" and "), audit_table(table));
        // A table whose copy had to begin again holds no deletion from before that.
        let from = if self.copied_late(&kept).await { self.copied_by.as_str() } else { "-infinity" };
        // A batch of a queue knows its own time, and not when each of its transactions committed.
        let (committed, stamp) = match self.capture {
            Capture::Trigger => ("null::timestamptz", "null::timestamptz"),
            _ => ("pg_catalog.pg_xact_commit_timestamp(a_xid)", "repcloud_source_deleted"),
        };
        let gone = format!(
            "select {columns}, {committed} from (select distinct on ({key}) a.* from {audit} a \
             where not exists (select from {name} s where {same}) order by {key}, a_seq desc) last \
             where pg_catalog.pg_xact_commit_timestamp(a_xid) > '{from}'"
        );
        let stamped =
            format!("select {columns}, {stamp} from {kept} where repcloud_source_deleted > '{from}'");
        if let Some(text) = difference(&self.source, &self.ours, &gone, &stamped).await {
            let _ = write!(report, "{kept}: deleted on the source (left) and stamped rows (right)\n{text}\n");
        }
    }

    /// The table's rows were copied under a later snapshot than the slot's: it was truncated meanwhile, or the program
    /// was killed.
    async fn copied_late(&self, kept: &str) -> bool {
        let sql = format!(
            "select copied_at_lsn > '{}' from repcloud.table_state where target_table::regclass = {}::regclass",
            self.snapshot,
            text(kept)
        );
        self.ours.value(&sql).await == "t"
    }

    /// Forgets deletions so far: those that were before the first rows were copied.
    pub(super) async fn forget_deletions(&self) {
        for table in self.tables.iter().filter(|t| t.logdel) {
            self.source.exec(&format!("TRUNCATE {}", audit_table(table))).await;
        }
    }

    fn must_end_well(&self, finished: &Finished, when: &str) {
        assert_eq!(finished.code(), 0, "seed {}, {when}:\n{}", self.seed, tail(&finished.stderr));
    }

    async fn wait_for_native(&self, here: &str) {
        let sql = format!(
            "select confirmed_flush_lsn >= '{here}' from pg_replication_slots where slot_name = '{}'",
            self.subscription()
        );
        wait::until("the native subscription has everything", Duration::from_secs(60), async || {
            self.source.value(&sql).await == "t"
        })
        .await;
    }

    /// Removes what the source keeps for this seed.
    pub(super) async fn finish(self) {
        self.native.exec(&format!("DROP SUBSCRIPTION {}", self.subscription())).await;
        self.source
            .exec("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
            .await;
    }
}

/// The number of the first tick, as the position that it is.
const FIRST_TICK: &str =
    "select '0/' || to_hex(min(number)) from repcloud.tick where consumer like 'repcloud\\_prod\\_\\_%'";

/// Rows in all queues.
const QUEUED: &str = "select coalesce(sum((xpath('/row/n/text()', query_to_xml(format('select count(*) as n from repcloud.%I', relname), \
     false, true, '')))[1]::text::bigint), 0) from pg_class where relkind = 'r' and relname like 'queue\\_%'";

/// The tables, given to a role that has LOGIN, owns them, and may make a schema.
fn owned(database: &str) -> String {
    let schemas: Vec<_> = SCHEMAS.iter().map(|s| quote(s)).collect();
    format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') THEN CREATE ROLE {OWNER} LOGIN; END IF; END $$;
         GRANT CREATE ON DATABASE {database} TO {OWNER};
         GRANT USAGE ON SCHEMA {} TO {OWNER};
         DO $$ DECLARE t regclass; BEGIN
           FOR t IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema', 'audit')
           LOOP EXECUTE format('ALTER TABLE %s OWNER TO {OWNER}', t); END LOOP; END $$",
        schemas.join(", ")
    )
}

fn columns(table: &Table) -> String {
    table.columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ")
}

fn text(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

fn kept(table: &Table) -> String {
    format!("{KEEP}.{}", quote(&table.name))
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|l| !l.contains(": cop")).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

fn audit_table(table: &Table) -> String {
    format!("audit.{}", quote(&table.name))
}

/// Triggers that write down every deleted row, with its transaction, on the source.
fn audit(table: &Table) -> String {
    let (name, audit) = (table.sql_name(), audit_table(table));
    let function =
        format!("audit.{}", quote(&format!("f {}", &table.name.chars().take(20).collect::<String>())));
    let xid = "pg_current_xact_id()::xid";
    let key: Vec<_> = table
        .identity()
        .into_iter()
        .map(|c| format!("OLD.{0} IS NOT DISTINCT FROM NEW.{0}", quote(c)))
        .collect();
    let same = key.join(" AND ");
    format!(
        "CREATE SCHEMA IF NOT EXISTS audit;
         CREATE TABLE {audit} AS SELECT t.*, NULL::xid AS a_xid FROM {name} t WITH NO DATA;
         ALTER TABLE {audit} ADD a_seq bigint GENERATED ALWAYS AS IDENTITY;
         CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $audit$
         BEGIN
           IF TG_OP = 'TRUNCATE' THEN INSERT INTO {audit} SELECT t.*, {xid} FROM {name} t;
           ELSIF TG_OP = 'DELETE' OR NOT ({same}) THEN INSERT INTO {audit} SELECT (OLD).*, {xid};
           END IF;
           RETURN NULL;
         END $audit$;
         CREATE TRIGGER audit AFTER DELETE OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION {function}();
         CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}();\n"
    )
}

fn configuration(pair: &Pair, database: &str, tables: &[Table], capture: Capture) -> String {
    let source = connection("prod", &pair.source, database);
    let source = match capture {
        Capture::Pgoutput => source + "plugin = \"pgoutput\"\n",
        Capture::Wal2json => source + "plugin = \"wal2json\"\nallow_lossy_numbers = true\n",
        Capture::Trigger => source.replace("\"postgres\"", &toml(OWNER)) + "capture = \"trigger\"\n",
    };
    let mut text = source + &connection("copy", &pair.target, database);
    let head = "[[replicate]]\nsource = \"prod\"\ntarget = \"copy\"\n";
    let names: Vec<_> = tables.iter().map(|t| toml(&t.sql_name())).collect();
    let _ = writeln!(text, "{head}mode = \"dml\"\ntables = [{}]", names.join(", "));
    for table in tables.iter().filter(|t| t.logdel) {
        let (name, target) = (toml(&table.sql_name()), toml(&kept(table)));
        let _ = writeln!(text, "{head}mode = \"logdel\"\ntables = [{name}]\ntarget_table = {target}");
    }
    text
}

fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
