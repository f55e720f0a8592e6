//! What can be missing, and the statements that mend it: each shape of statement that the program prints has a case here.

mod target;

pub(crate) use target::TARGET;

/// One thing that is missing. In all texts `{role}`, `{owner}`, `{db}`, `{s}`, `{t}` as `Patient::filled` has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The first major version that has it.
    pub(crate) from: u32,
    /// A setting that the server has to know.
    pub(crate) knows: Option<&'static str>,
    /// Keys of connection `prod`.
    pub(crate) keys: &'static str,
    /// The body of the `[[replicate]]` entry, without tables; `None`: a repack.
    pub(crate) entry: Option<&'static str>,
    /// What makes it so on the source, one statement after the other.
    pub(crate) source: &'static [&'static str],
    /// The same on the target.
    pub(crate) target: &'static [&'static str],
    /// The source has to be restarted for it.
    pub(crate) restart: bool,
    /// The connection whose check it is.
    pub(crate) at: &'static str,
    /// The check's name.
    pub(crate) check: &'static str,
    /// The shapes of its statements.
    pub(crate) shapes: &'static [&'static str],
}

const DML: Option<&str> = Some("mode = \"dml\"");
const SLOT: &str = "capture = \"slot\"";
const TRIGGER: &str = "capture = \"trigger\"";
const READY_MADE: &str = "capture = \"slot\"\npublication = \"their_pub\"";

/// A table as a stream wants it, of our role.
const TABLE: &str = "CREATE TABLE {t} (id int PRIMARY KEY, v text)";
const OURS: &str = "ALTER TABLE {t} OWNER TO {role}";

const GOOD: Case = Case {
    from: 14,
    knows: None,
    keys: SLOT,
    entry: DML,
    source: &[TABLE, OURS],
    target: &[],
    restart: false,
    at: "prod",
    check: "table {t}",
    shapes: &[],
};

/// Of the server's settings and the role as such.
pub(crate) const SERVER: &[Case] = &[
    Case {
        source: &[TABLE, OURS, "ALTER SYSTEM SET wal_level = 'replica'"],
        restart: true,
        check: "wal_level",
        shapes: &["ALTER SYSTEM SET wal_level = ?"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER SYSTEM SET max_replication_slots = 0"],
        restart: true,
        check: "max_replication_slots",
        shapes: &["ALTER SYSTEM SET max_replication_slots = ?"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER SYSTEM SET max_wal_senders = 0"],
        restart: true,
        check: "max_wal_senders",
        shapes: &["ALTER SYSTEM SET max_wal_senders = ?"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER SYSTEM SET max_slot_wal_keep_size = -1", "SELECT pg_reload_conf()"],
        check: "max_slot_wal_keep_size",
        shapes: &["ALTER SYSTEM SET max_slot_wal_keep_size = ?", "SELECT pg_catalog.pg_reload_conf ( )"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER SYSTEM SET wal_sender_timeout = 0", "SELECT pg_reload_conf()"],
        check: "wal_sender_timeout",
        shapes: &["ALTER SYSTEM SET wal_sender_timeout = ?", "SELECT pg_catalog.pg_reload_conf ( )"],
        ..GOOD
    },
    Case {
        from: 18,
        source: &[
            TABLE,
            OURS,
            "ALTER SYSTEM SET idle_replication_slot_timeout = '1h'",
            "SELECT pg_reload_conf()",
        ],
        check: "idle_replication_slot_timeout",
        shapes: &[
            "ALTER SYSTEM SET idle_replication_slot_timeout = ?",
            "SELECT pg_catalog.pg_reload_conf ( )",
        ],
        ..GOOD
    },
    Case {
        knows: Some("output_plugin_libraries"),
        source: &[
            TABLE,
            OURS,
            "ALTER SYSTEM SET output_plugin_libraries = 'test_decoding'",
            "SELECT pg_reload_conf()",
        ],
        check: "a slot with pgoutput",
        shapes: &["ALTER SYSTEM SET output_plugin_libraries = *", "SELECT pg_catalog.pg_reload_conf ( )"],
        ..GOOD
    },
    Case {
        knows: Some("output_plugin_libraries"),
        // One name with a comma in it: no plugin is called so.
        source: &[
            TABLE,
            OURS,
            "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput, wal2json'",
            "SELECT pg_reload_conf()",
        ],
        check: "a slot with pgoutput",
        shapes: &["ALTER SYSTEM SET output_plugin_libraries = *", "SELECT pg_catalog.pg_reload_conf ( )"],
        ..GOOD
    },
    Case {
        source: &["ALTER ROLE {role} NOLOGIN"],
        check: "reachable",
        shapes: &["ALTER ROLE ? LOGIN"],
        ..GOOD
    },
    Case {
        source: &["REVOKE CONNECT ON DATABASE {db} FROM PUBLIC, {role}"],
        check: "reachable",
        shapes: &["GRANT CONNECT ON DATABASE ? TO ?"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER ROLE {role} NOREPLICATION"],
        check: "a slot with pgoutput",
        shapes: &["ALTER ROLE ? REPLICATION"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER ROLE {role} IN DATABASE {db} SET default_transaction_read_only = on"],
        check: "default_transaction_read_only",
        shapes: &["ALTER ROLE ? IN DATABASE ? SET default_transaction_read_only = off"],
        ..GOOD
    },
];

/// Of the tables of a source that is read from a slot.
pub(crate) const SOURCE: &[Case] = &[
    Case {
        source: &[TABLE, OURS, "REVOKE CREATE ON DATABASE {db} FROM {role}"],
        check: "publication",
        shapes: &["GRANT CREATE ON DATABASE ? TO ?"],
        ..GOOD
    },
    Case {
        source: &["CREATE TABLE {t} (id int)", OURS],
        shapes: &["ALTER TABLE * REPLICA IDENTITY FULL"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "ALTER TABLE {t} REPLICA IDENTITY NOTHING"],
        shapes: &["ALTER TABLE * REPLICA IDENTITY DEFAULT", "ALTER TABLE * REPLICA IDENTITY FULL"],
        ..GOOD
    },
    Case {
        source: &[
            "CREATE TABLE {t} (id int NOT NULL)",
            "CREATE UNIQUE INDEX \"An \"\"index\"\"\" ON {t} (id)",
            OURS,
        ],
        shapes: &["ALTER TABLE * REPLICA IDENTITY USING INDEX ?", "ALTER TABLE * REPLICA IDENTITY FULL"],
        ..GOOD
    },
    Case {
        source: &["CREATE UNLOGGED TABLE {t} (id int PRIMARY KEY)", OURS],
        shapes: &["ALTER TABLE * SET LOGGED"],
        ..GOOD
    },
    Case {
        source: &[TABLE, "ALTER TABLE {t} OWNER TO {owner}", "GRANT SELECT ON {t} TO {role}"],
        shapes: &["GRANT ? TO ?"],
        ..GOOD
    },
    Case {
        // A superuser's rights are not to be given.
        source: &[TABLE, "GRANT SELECT ON {t} TO {role}"],
        shapes: &["ALTER TABLE * OWNER TO ?"],
        ..GOOD
    },
    Case {
        from: 15,
        entry: Some("mode = \"dml\"\ncondition = \"id <> 0\""),
        source: &[TABLE, OURS, "REVOKE TEMPORARY ON DATABASE {db} FROM PUBLIC, {role}"],
        shapes: &["GRANT TEMPORARY ON DATABASE ? TO ?"],
        ..GOOD
    },
    Case { keys: READY_MADE, check: "publication", shapes: &["CREATE PUBLICATION ? FOR TABLE *"], ..GOOD },
    Case {
        keys: READY_MADE,
        source: &[TABLE, OURS, "CREATE PUBLICATION their_pub FOR TABLE {t} WITH (publish = 'insert')"],
        check: "publication",
        shapes: &["ALTER PUBLICATION ? SET ( publish = ? )"],
        ..GOOD
    },
    Case {
        keys: READY_MADE,
        source: &[
            "CREATE TABLE {t} (id int PRIMARY KEY) PARTITION BY RANGE (id)",
            "CREATE TABLE {s}.part PARTITION OF {t} DEFAULT",
            "CREATE PUBLICATION their_pub FOR TABLE {t} WITH (publish_via_partition_root)",
        ],
        check: "publication",
        shapes: &["ALTER PUBLICATION ? SET ( publish_via_partition_root = false )"],
        ..GOOD
    },
    Case {
        keys: READY_MADE,
        source: &[TABLE, OURS, "CREATE PUBLICATION their_pub"],
        shapes: &["ALTER PUBLICATION ? ADD TABLE ONLY *"],
        ..GOOD
    },
    Case {
        from: 15,
        keys: READY_MADE,
        source: &[TABLE, OURS, "CREATE PUBLICATION their_pub FOR TABLE {t} (id)"],
        shapes: &["ALTER PUBLICATION ? DROP TABLE ONLY *", "ALTER PUBLICATION ? ADD TABLE ONLY *"],
        ..GOOD
    },
    Case {
        source: &[
            TABLE,
            OURS,
            "SELECT pg_create_logical_replication_slot('repcloud_left__over', 'pgoutput')",
        ],
        check: "slot repcloud_left__over",
        shapes: &["SELECT pg_catalog.pg_drop_replication_slot ( ? )"],
        ..GOOD
    },
    Case {
        source: &[TABLE, OURS, "CREATE PUBLICATION \"repcloud_Left \"\"over\"\"\""],
        check: "publication repcloud_Left \"over\"",
        shapes: &["DROP PUBLICATION ?"],
        ..GOOD
    },
];

/// Of a source that is read by triggers, by a role that owns nothing, and of a repack.
pub(crate) const TRIGGERS: &[Case] = &[
    Case {
        keys: TRIGGER,
        source: &[TABLE, "ALTER SCHEMA {s} OWNER TO {owner}", "GRANT SELECT, TRIGGER ON {t} TO {role}"],
        shapes: &["GRANT USAGE ON SCHEMA ? TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[TABLE, "GRANT SELECT ON {t} TO {role}"],
        shapes: &["GRANT TRIGGER ON * TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[TABLE, "GRANT TRIGGER ON {t} TO {role}"],
        shapes: &["GRANT SELECT ON * TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[
            TABLE,
            "GRANT SELECT, TRIGGER ON {t} TO {role}",
            "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
        ],
        shapes: &["ALTER ROLE ? BYPASSRLS"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &["CREATE UNLOGGED TABLE {t} (id int PRIMARY KEY)", "GRANT SELECT, TRIGGER ON {t} TO {role}"],
        shapes: &["ALTER TABLE * SET LOGGED"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[
            TABLE,
            OURS,
            "CREATE FUNCTION {s}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER \"!A \"\"trigger\"\"\" AFTER INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.f()",
        ],
        shapes: &["ALTER TRIGGER ? ON * RENAME TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[TABLE, "ALTER TABLE {t} OWNER TO {owner}", "GRANT SELECT, TRIGGER ON {t} TO {role}"],
        check: "replicated writes",
        shapes: &["GRANT ? TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[TABLE, OURS, "REVOKE CREATE ON DATABASE {db} FROM {role}"],
        check: "database",
        shapes: &["GRANT CREATE ON DATABASE ? TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        // An empty schema of the name does not do: it is made by IF NOT EXISTS, which wants the right all the same.
        source: &[
            TABLE,
            OURS,
            "REVOKE CREATE ON DATABASE {db} FROM {role}",
            "CREATE SCHEMA repcloud",
            "GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}",
        ],
        check: "database",
        shapes: &["GRANT CREATE ON DATABASE ? TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[TABLE, OURS, "CREATE SCHEMA repcloud"],
        check: "schema repcloud",
        shapes: &["GRANT USAGE , CREATE ON SCHEMA ? TO ?"],
        ..GOOD
    },
    Case {
        keys: TRIGGER,
        source: &[
            TABLE,
            OURS,
            "CREATE SCHEMA repcloud",
            "GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}",
            "CREATE TABLE repcloud.version (version int)",
            "ALTER TABLE repcloud.version OWNER TO {owner}",
        ],
        check: "tables of schema repcloud",
        shapes: &["GRANT ? TO ?"],
        ..GOOD
    },
    Case {
        entry: None,
        source: &[TABLE, OURS, "ALTER SCHEMA {s} OWNER TO {owner}", "GRANT USAGE ON SCHEMA {s} TO {role}"],
        shapes: &["GRANT CREATE ON SCHEMA ? TO ?"],
        ..GOOD
    },
    Case {
        entry: None,
        source: &[TABLE, "ALTER TABLE {t} OWNER TO {owner}"],
        shapes: &["GRANT ? TO ?"],
        ..GOOD
    },
    Case {
        from: 16,
        entry: None,
        source: &[TABLE, "ALTER TABLE {t} OWNER TO {owner}", "GRANT {owner} TO {role} WITH SET FALSE"],
        shapes: &["GRANT ? TO ? WITH SET TRUE"],
        ..GOOD
    },
    Case {
        from: 15,
        entry: None,
        source: &[
            TABLE,
            OURS,
            "CREATE SCHEMA repcloud AUTHORIZATION {role}",
            "CREATE PUBLICATION \"A \"\"pub\"\"\" FOR TABLES IN SCHEMA repcloud",
        ],
        check: "publication \"A \"\"pub\"\"\"",
        shapes: &["ALTER PUBLICATION ? DROP TABLES IN SCHEMA ?"],
        ..GOOD
    },
];

/// Every case.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [SERVER, SOURCE, TRIGGERS, TARGET].into_iter().flatten()
}
