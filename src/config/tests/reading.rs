//! What is read, and what is said where it cannot be.

use super::*;

#[test]
fn everything_wrong_is_reported_at_once_with_line_and_key() {
    let text = r#"colour = "red"

[connections.prod]
hots = "x"
port = "5432"
user = 7
database = "d"
sslmode = "yes"
capture = "queue"
plugin = "decoderbufs"
max_retained_wal = "20 apples"
lock_timeout = "soon"

[connections."Big One"]
host = "h"
port = 70000
user = "u"
database = "d"
sslcert = "c.pem"

[[replicate]]
source = "prdo"
mode = "snapshot"
tables = ["orders", "p.t"]
copy = "yes"
period = "5 minutes"

[service]
http = ""

[logging]
log_level = "loud"
"#;
    let expected = [
        "1: colour: unknown key; remove it",
        "3: connections.prod.host: is missing; give a host name or a socket directory",
        "4: connections.prod.hots: unknown key; did you mean \"host\"?",
        "5: connections.prod.port: expected a whole number from 1 to 65535, found a string",
        "6: connections.prod.user: expected a string, found a whole number",
        "8: connections.prod.sslmode: \"yes\" is not a value it can have; use one of: disable, allow, prefer, \
         require, verify-ca, verify-full",
        "9: connections.prod.capture: \"queue\" is not a value it can have; use one of: auto, slot, trigger",
        "10: connections.prod.plugin: \"decoderbufs\" is not a value it can have; use one of: pgoutput, wal2json",
        "11: connections.prod.max_retained_wal: \"20 apples\" is not a size like \"20GB\"",
        "12: connections.prod.lock_timeout: \"soon\" is not a time like \"500ms\" or \"10s\"",
        "14: connections.Big One: is not a name a connection can have; use 1 to 24 of a-z, 0-9 and single _, \
         beginning with a letter",
        "16: connections.Big One.port: 70000 is not a whole number from 1 to 65535",
        "19: connections.Big One.sslcert: a client certificate needs its key; give sslkey",
        "21: replicate[1].target: is missing; give another connection",
        "22: replicate[1].source: there is no connection \"prdo\"; did you mean \"prod\"?",
        "23: replicate[1].mode: \"snapshot\" is not built yet (the scheduled modes); choose another value",
        "24: replicate[1].tables: \"orders\" is not a table like \"public.orders\" or \"sales.*\"",
        "25: replicate[1].copy: \"yes\" is not true or false; write it without quotes",
        "26: replicate[1].period: not built yet (the schedule); remove the key",
        "28: service: not built yet (the HTTP service); remove the key",
        "32: logging.log_level: \"loud\" is not a value it can have; use one of: error, warn, warning, info, \
         debug, trace",
    ];
    let found = errors(text);
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn what_is_not_toml_is_reported_by_line_and_never_shown() {
    let found = errors("[connections.a]\npassword = hunter2\nhost = \"x\nhost = \"y\"\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found[0].starts_with("2: "), "{found:?}");
    assert!(!found.concat().contains("hunter2"), "{found:?}");
    assert_eq!(errors("a = 1\na = 2\n"), ["2: a: duplicate key"]);
    assert_eq!(errors("connections = 1\nreplicate = 2\n").len(), 2);
    assert_eq!(
        errors("connections.a = 1\nreplicate = [2]\n"),
        [
            "1: connections.a: expected a section [connections.NAME], found a whole number",
            "2: replicate[1]: expected an entry, found a whole number; write it as [[replicate]]"
        ]
    );
}

#[test]
#[allow(clippy::too_many_lines)]
fn a_whole_configuration_is_resolved() {
    let text = r#"
[connections.prod]
host = "db"
port = 5433
user = "u"
password = "p"
database = "d"
sslmode = "verify-full"
sslrootcert = "ca.pem"
sslcert = "/etc/c.pem"
sslkey = "~/k.pem"
capture = "slot"
slot_name = "s"
publication = "Pub"
max_retained_wal = "1GB"
[connections.w]
host = "/run/postgresql"
user = "u"
database = "d"
[[replicate]]
source = "prod"
target = "w"
mode = "logdel"
tables = ['public."Big Table"']
target_table = "mart.orders"
columns = ["id", '"Total"']
condition = "region = 'EU'"
key = ["ID"]
copy = false
indexes = false
owner = "mart"
grants = ["select, insert to analysts"]
deleted_column = "gone"
publish = "all"
[[replicate]]
source = "prod"
target = "w"
mode = "dml"
tables = ["sales.*"]
"#;
    let fake = Fake { vars: [("HOME", "/home/r")].into(), ..Fake::default() };
    let Loaded { settings, warnings } = read_with(text, &fake).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let prod = &settings.connections["prod"];
    assert_eq!((prod.port, prod.line, prod.sslmode), (5433, 2, SslMode::VerifyFull));
    assert_eq!(prod.sslrootcert.as_deref(), Some(Path::new("/c/ca.pem")));
    assert_eq!(prod.sslcert.as_deref(), Some(Path::new("/etc/c.pem")));
    assert_eq!(prod.sslkey.as_deref(), Some(Path::new("/home/r/k.pem")));
    assert_eq!((prod.capture, prod.max_retained_wal), (Capture::Slot, Some(1 << 30)));
    assert_eq!((prod.slot_name.as_deref(), prod.publication.as_deref()), (Some("s"), Some("pub")));
    let w = &settings.connections["w"];
    assert_eq!(
        (w.port, w.sslmode, w.capture, w.is_unix_socket()),
        (5432, SslMode::Prefer, Capture::Auto, true)
    );
    assert!(w.password.is_none());
    let [first, second] = settings.replicate.as_slice() else { panic!("{:?}", settings.replicate) };
    assert_eq!(
        *first,
        ReplicateEntry {
            line: 20,
            source: "prod".into(),
            target: "w".into(),
            mode: Mode::Logdel,
            tables: vec![TablePattern::Table(TableName::new("public", "Big Table"))],
            target_table: Some(TableName::new("mart", "orders")),
            columns: Some(vec!["id".into(), "Total".into()]),
            condition: Some("region = 'EU'".into()),
            key: Some(vec!["id".into()]),
            copy: false,
            indexes: false,
            owner: Some("mart".into()),
            grants: vec![Grant { privileges: vec!["SELECT", "INSERT"], role: Some("analysts".into()) }],
            deleted_column: "gone".into(),
            on_conflict: OnConflict::Log,
            on_schema_change: OnSchemaChange::Stop,
            publish: Publish::All,
        }
    );
    assert_eq!(second.deleted_column, DEFAULT_DELETED_COLUMN);
    assert_eq!((second.on_conflict, second.copy, second.indexes), (OnConflict::Stop, true, true));
    assert_eq!(settings.targets_of("prod").len(), 1);
    assert_eq!(settings.entries_of("prod").count(), 2);
    assert_eq!(settings.logging.log_dir, Path::new("/home/r/logs"));
}

#[test]
fn an_empty_file_is_a_configuration_without_connections() {
    let loaded = read("# nothing yet\n").unwrap();
    assert!(loaded.settings.connections.is_empty() && loaded.warnings.is_empty());
}

#[test]
fn passwords_come_from_the_file_the_environment_or_the_password_file_in_this_order() {
    let text = |password: &str| {
        format!("[connections.a]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"d\"\nport = \"env:P\"\n{password}")
    };
    let mut fake = Fake {
        vars: [("P", "5433"), ("SECRET", "from env"), ("PGPASSWORD", "pg")].into(),
        files: [(PathBuf::from("/c/pw"), "from file\r\n".to_owned())].into(),
        passfile: Some("pass"),
    };
    let password = |line: &str, fake: &Fake| {
        let loaded = read_with(&text(line), fake).unwrap();
        loaded.settings.connections["a"].password.as_ref().map(|p| p.expose_secret().to_owned())
    };
    assert_eq!(password("password = \"env:SECRET\"", &fake).as_deref(), Some("from env"));
    assert_eq!(password("password = \"file:pw\"", &fake).as_deref(), Some("from file"));
    assert_eq!(password("password = \"plain\"", &fake).as_deref(), Some("plain"));
    assert_eq!(password("", &fake).as_deref(), Some("pg"));
    assert_eq!(password("password = \"\"", &fake).as_deref(), Some("pg"));
    fake.vars.remove("PGPASSWORD");
    assert_eq!(password("", &fake).as_deref(), Some("pass@h:5433/d/u"));
    fake.passfile = None;
    assert_eq!(password("", &fake), None);
    let missing = read_with(&text("password = \"env:NOPE\""), &fake).unwrap_err();
    assert_eq!(missing.len(), 1);
    assert!(missing[0].to_string().starts_with(
        "/c/my.toml:6: connections.a.password: the environment variable \"NOPE\" is not set; set it"
    ));
    let unreadable = read_with(&text("password = \"file:/nope\""), &fake).unwrap_err();
    assert!(unreadable[0].to_string().contains("password: cannot read the file /nope: "));
}

#[test]
fn secrets_are_shown_neither_in_errors_nor_in_debug() {
    let secret = "hunter2hunter2";
    let fake = Fake { vars: [("S", secret)].into(), ..Fake::default() };
    let text = format!("{TWO}password = \"{secret}\"\n");
    assert!(!format!("{:?}", read_with(&text, &fake).unwrap()).contains(secret));
    // A secret in the wrong place is not shown either: what came from elsewhere is named by where it came from.
    let wrong = "[connections.a]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"d\"\nport = \"env:S\"\n\
                 sslmode = \"env:S\"\nmax_retained_wal = \"env:S\"\n[[replicate]]\nsource = \"env:S\"\n\
                 target = \"a\"\nmode = \"dml\"\ntables = [\"env:S\"]\ncopy = \"env:S\"\n";
    let found = read_with(wrong, &fake).unwrap_err();
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(!format!("{found:?}").contains(secret), "{found:#?}");
    let found = read_with("[connections.a]\npassword = [\"hunter2hunter2\"]\n", &fake).unwrap_err();
    assert!(!format!("{found:?}").contains(secret), "{found:#?}");
}

#[test]
fn values_of_an_entry_may_come_from_elsewhere_too() {
    let fake = Fake { vars: [("T", "p.x"), ("C", "false")].into(), ..Fake::default() };
    let text =
        entry("source = \"a\"\ntarget = \"b\"\nmode = \"dml\"\ntables = [\"env:T\"]\ncopy = \"env:C\"\n");
    let loaded = read_with(&text, &fake).unwrap();
    let e = &loaded.settings.replicate[0];
    assert_eq!((e.tables[0].to_string().as_str(), e.copy), ("p.x", false));
}
