//! Repacks of live tables, as their plain owner.

mod basic;
mod cases;
mod company;
mod compared;
mod control;
mod ddl;
mod everything;
mod interrupted;
mod lanes;
mod large;
mod leftovers;
mod load;
mod options;
mod partitions;
mod rebuilt;
mod renamed;
mod settings;
mod several;
mod tampered;
mod trigger;
mod under_lock;
mod undone;
mod unfinished;
mod waits;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

use repcloud::cluster::Cluster;
use serde_json::Value;

use crate::support::cluster::builder;
use crate::support::db::Db;
use crate::support::process::{Finished, Repcloud};
use crate::support::wait::until;

pub(crate) const LIMIT: Duration = Duration::from_secs(45);

/// Role `app` owns the tables and runs the program: no superuser. `writer` and `reader` are the application.
const ROLES: &str = "CREATE ROLE app LOGIN REPLICATION; CREATE ROLE writer LOGIN; CREATE ROLE reader LOGIN; \
     GRANT CREATE ON DATABASE app TO app; ALTER SCHEMA public OWNER TO app; \
     ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO writer; \
     ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT USAGE ON SEQUENCES TO writer; \
     ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO reader";

/// The copy rests as long as a file is there; see [`Live::hold`].
pub(crate) const THROTTLED: &str = "throttle_file = \"env:HOLD\"";

/// How a repack reads the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capture {
    Pgoutput,
    Wal2json,
    /// By a role that may use no slot.
    Trigger,
}

/// One server with a database, and the program with a connection to it.
pub(crate) struct Live {
    pub(crate) cluster: Cluster,
    /// As `app`.
    pub(crate) owner: Db,
    /// As superuser, to look at what a plain role does not see.
    pub(crate) admin: Db,
    pub(crate) program: Repcloud,
}

impl Live {
    /// Runs `schema` as `app`; `settings` are further lines of the connection.
    pub(crate) async fn new(schema: &str, settings: &str) -> Live {
        let cluster = builder("live").setting("wal_level", "logical").start().expect("the server starts");
        cluster.create_database("app").expect("a database");
        let admin = Db::connect(&cluster, "app").await;
        admin.exec(ROLES).await;
        let owner = connect(&cluster, "app").await;
        owner.exec(schema).await;
        let config = format!(
            "[connections.live]\nhost = \"{}\"\nport = {}\nuser = \"app\"\ndatabase = \"app\"\n{settings}\n",
            cluster.socket_dir().display(),
            cluster.port()
        );
        let program = Repcloud::new(&config);
        Live { cluster, owner, admin, program }
    }

    /// The same, with the changes read this way.
    pub(crate) async fn by(capture: Capture, schema: &str, settings: &str) -> Live {
        let how = match capture {
            Capture::Pgoutput => "",
            Capture::Wal2json => "plugin = \"wal2json\"\nallow_lossy_numbers = true",
            Capture::Trigger => "capture = \"trigger\"",
        };
        let live = Live::new(schema, &format!("{how}\n{settings}")).await;
        if capture == Capture::Trigger {
            live.admin.exec("ALTER ROLE app NOREPLICATION").await;
        }
        live
    }

    /// The same as [`Live::new`], with a file: as long as it is there the copy rests.
    pub(crate) async fn held(schema: &str, settings: &str) -> (Live, PathBuf) {
        Live::new(schema, &format!("{THROTTLED}\n{settings}")).await.hold()
    }

    /// With the file that the settings [`THROTTLED`] ask for.
    pub(crate) fn hold(self) -> (Live, PathBuf) {
        let Live { cluster, owner, admin, program } = self;
        let hold = program.home().join("hold");
        std::fs::write(&hold, "").unwrap();
        (Live { cluster, owner, admin, program: program.env("HOLD", hold.to_str().unwrap()) }, hold)
    }

    /// Waits until the copy rests because of the file.
    pub(crate) async fn copy_rests(&self) {
        until("the copy rests", LIMIT, || async {
            self.state().await == "shadow_ready"
                && self.admin.value("SELECT throttled_by LIKE 'throttle_file%' FROM repcloud.repack WHERE state = 'shadow_ready'").await == "t"
        })
        .await;
    }

    /// A session of another role.
    pub(crate) async fn session(&self, role: &str) -> Db {
        connect(&self.cluster, role).await
    }

    /// `repcloud repack --json ARGUMENTS`: how it ended, and a report a table.
    pub(crate) fn repack(&self, arguments: &[&str]) -> (Finished, Vec<Value>) {
        self.command("repack", arguments)
    }

    /// The same for another command.
    pub(crate) fn command(&self, command: &str, arguments: &[&str]) -> (Finished, Vec<Value>) {
        let all: Vec<&str> = [command, "--json"].into_iter().chain(arguments.iter().copied()).collect();
        let finished = self.program.run(&all, LIMIT);
        let reports = reports(&finished.stdout);
        (finished, reports)
    }

    /// Nothing of a repack is left.
    pub(crate) async fn assert_clean(&self) {
        let rows = self.left_behind().await;
        assert!(rows.is_empty(), "left behind: {rows:?}");
    }

    /// Slots, publications and what there is in our schemas, and constraints that are not valid.
    pub(crate) async fn left_behind(&self) -> Vec<String> {
        let left = "SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL SELECT 'publication ' || pubname FROM pg_publication \
             UNION ALL SELECT 'relation ' || oid::regclass::text FROM pg_class WHERE relnamespace IN (SELECT oid FROM pg_namespace \
             WHERE nspname IN ('repcloud_new', 'repcloud_old')) \
             UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '!repcloud%' \
             UNION ALL SELECT 'queue ' || relname FROM pg_class WHERE relname LIKE 'queue\\_%' AND relnamespace = 'repcloud'::regnamespace \
             UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'repcloud'::regnamespace \
             UNION ALL SELECT 'position ' || source FROM repcloud.checkpoint \
             UNION ALL SELECT 'constraint ' || conname FROM pg_constraint WHERE NOT convalidated";
        self.admin.query_text(left).await.into_iter().flatten().flatten().collect()
    }

    /// The state in `repcloud.repack` of the table's latest repack; empty without one.
    pub(crate) async fn state(&self) -> String {
        let there = self.admin.value("SELECT to_regclass('repcloud.repack') IS NOT NULL").await;
        if there != "t" {
            return String::new();
        }
        let sql = "SELECT coalesce((SELECT state FROM repcloud.repack ORDER BY started_at DESC LIMIT 1), '')";
        self.admin.value(sql).await
    }
}

/// One JSON document a line.
pub(crate) fn reports(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

pub(crate) async fn connect(cluster: &Cluster, role: &str) -> Db {
    let conninfo =
        format!("host={} port={} user={role} dbname=app", cluster.socket_dir().display(), cluster.port());
    Db::connect_to(&conninfo).await
}

/// A table that is half bloat, with a good part of what can hang on one.
pub(crate) const ORDERS: &str = "
    CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO customer SELECT i, 'customer ' || i FROM generate_series(1, 50) i;
    CREATE TABLE orders (
        id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
        customer int NOT NULL REFERENCES customer,
        code text NOT NULL UNIQUE,
        total numeric(12, 2) NOT NULL DEFAULT 0 CHECK (total >= 0),
        doc jsonb,
        big text,
        twice numeric GENERATED ALWAYS AS (total * 2) STORED);
    CREATE INDEX orders_total ON orders (total) WHERE total > 10;
    COMMENT ON TABLE orders IS 'what was ordered';
    COMMENT ON COLUMN orders.code IS 'printed on it';
    INSERT INTO orders (customer, code, total, doc, big)
        SELECT i % 50 + 1, 'c' || i, i, jsonb_build_object('n', i), repeat('x', i % 200) FROM generate_series(1, 6000) i;
    DELETE FROM orders WHERE id % 2 = 0;
    CREATE TABLE item (id int PRIMARY KEY, orders bigint NOT NULL REFERENCES orders ON DELETE CASCADE);
    INSERT INTO item SELECT i, i * 2 - 1 FROM generate_series(1, 500) i;
    CREATE VIEW big_orders AS SELECT id, code, total FROM orders WHERE total > 100;
    CREATE VIEW big_count AS SELECT count(*) AS n FROM big_orders;
    GRANT SELECT ON big_orders, big_count TO reader;
    ANALYZE";
