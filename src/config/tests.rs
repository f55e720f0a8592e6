//! Configurations as people write them, and what is said about them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::environment::{Environment, Login};
use super::*;
use crate::model::{TableName, TablePattern};

#[derive(Default)]
struct Fake {
    vars: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, String>,
    passfile: Option<&'static str>,
}

impl Environment for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|v| (*v).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn passfile_password(&self, login: Login<'_>) -> Result<Option<SecretString>, String> {
        Ok(self
            .passfile
            .map(|p| format!("{p}@{}:{}/{}/{}", login.host, login.port, login.database, login.user)))
        .map(|p| p.map(SecretString::from))
    }
}

fn read_with(text: &str, fake: &Fake) -> Result<Loaded, Vec<Finding>> {
    let source =
        Source { file: Path::new("/c/my.toml"), name: "my", text, log_dir: Path::new("/home/r/logs") };
    resolve(source, fake)
}

fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
    read_with(text, &Fake::default())
}

/// Errors without the file's name: `line: key: problem; advice`.
fn errors(text: &str) -> Vec<String> {
    let findings = read(text).map(|_| ()).unwrap_err();
    findings.iter().map(|f| f.to_string().replacen("/c/my.toml:", "", 1)).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = read(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    loaded.warnings.iter().map(|f| f.to_string().replacen("/c/my.toml:", "", 1)).collect()
}

const TWO: &str = "[connections.a]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"d\"\n\
                   [connections.b]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"e\"\n";

/// Two connections (8 lines) and one entry with these lines from line 10 on.
fn entry(lines: &str) -> String {
    format!("{TWO}[[replicate]]\n{lines}")
}

const PLAIN: &str = "source = \"a\"\ntarget = \"b\"\nmode = \"dml\"\ntables = [\"p.t\"]\n";

#[test]
fn everything_wrong_is_reported_at_once_with_line_and_key() {
    let text = r#"colour = "red"

[connections.prod]
hots = "x"
port = "5432"
user = 7
database = "d"
sslmode = "yes"
capture = "trigger"
plugin = "wal2json"
max_retained_wal = "20 apples"
lock_timeout = "1s"

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
        "9: connections.prod.capture: \"trigger\" is not built yet (capture by triggers); choose another value",
        "10: connections.prod.plugin: \"wal2json\" is not built yet (reading wal2json); choose another value",
        "11: connections.prod.max_retained_wal: \"20 apples\" is not a size like \"20GB\"",
        "12: connections.prod.lock_timeout: not built yet (repack); remove the key",
        "14: connections.Big One: is not a name a connection can have; use 1 to 24 of a-z, 0-9 and single _, \
         beginning with a letter",
        "16: connections.Big One.port: 70000 is not a whole number from 1 to 65535",
        "19: connections.Big One.sslcert: a client certificate needs its key; give sslkey",
        "21: replicate[1].target: is missing; give another connection",
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
    assert_eq!(found.len(), 5, "{found:#?}");
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

#[test]
fn contradictions_within_an_entry() {
    for (lines, expected) in [
        (
            "target_table = \"p.x\"\ntables = [\"p.a\", \"p.b\"]",
            "13: replicate[1].target_table: goes with one table only; give the table an entry of its own, or \
             remove target_table",
        ),
        (
            "target_table = \"p.x\"\ntables = [\"p.*\"]",
            "13: replicate[1].target_table: goes with one table only; give the table an entry of its own, or \
             remove target_table",
        ),
        ("tables = []", "13: replicate[1].tables: is empty; name at least one, or remove the key"),
        ("tables = [\"p.a\", \"P.A\"]", "13: replicate[1].tables: names p.a twice; name it once"),
        ("tables = [\"p.a\", \"p.*\"]", "13: replicate[1].tables: names p.a twice; name it once"),
        (
            "tables = [\"p.a\"]\ncolumns = [\"x\"]\nkey = [\"id\"]",
            "14: replicate[1].columns: lacks \"id\", a column of key; add it",
        ),
        (
            "tables = [\"p.a\"]\ncolumns = [\"x\", \"X\"]",
            "14: replicate[1].columns: names the column \"x\" twice; name it once",
        ),
        (
            "tables = [\"p.a\"]\ndeleted_column = \"x\"",
            "14: replicate[1].deleted_column: goes with mode \"logdel\" only; remove it",
        ),
        (
            "tables = [\"p.a\"]\ncontrol = \"updated_at\"",
            "14: replicate[1].control: not built yet (the modes inserter and updater); remove the key",
        ),
        (
            "tables = [\"p.a\"]\non_schema_change = \"add\"",
            "14: replicate[1].on_schema_change: \"add\" is not built yet (adding columns to a target); choose \
             another value",
        ),
        (
            "tables = [\"p.a\"]\ngrants = [\"drop to x\"]",
            "14: replicate[1].grants: \"drop to x\" is not a grant like \"select to analysts\"",
        ),
    ] {
        let text = entry(&format!("source = \"a\"\ntarget = \"b\"\nmode = \"dml\"\n{lines}\n"));
        assert_eq!(errors(&text), [expected]);
    }
    let logdel = |lines: &str| {
        errors(&entry(&format!(
            "source = \"a\"\ntarget = \"b\"\nmode = \"logdel\"\ntables = [\"p.a\"]\n{lines}\n"
        )))
    };
    assert!(logdel("publish = \"insert\"")[0].starts_with("14: replicate[1].publish: "));
    assert!(
        logdel("columns = [\"repcloud_source_deleted\"]")[0].starts_with("14: replicate[1].columns: names")
    );
}

#[test]
fn source_and_target_must_exist_and_differ() {
    let found = errors(&entry(&PLAIN.replace("\"a\"", "\"aa\"")));
    assert_eq!(found, ["10: replicate[1].source: there is no connection \"aa\"; did you mean \"a\"?"]);
    let same = PLAIN.replace("\"b\"", "\"a\"");
    assert!(errors(&entry(&same))[0].starts_with("11: replicate[1].target: is the database of the source"));
    let renamed = |to: &str| entry(&format!("{same}target_table = \"{to}\"\n"));
    assert!(read(&renamed("p.x")).is_ok());
    assert_eq!(errors(&renamed("p.t")).len(), 1);
    // Another name for the same database is the same database.
    let twin = entry(PLAIN).replace("\"e\"", "\"d\"");
    assert_eq!(errors(&twin).len(), 1);
}

#[test]
fn no_target_table_has_two_entries() {
    let second = |lines: &str| {
        let second = format!("[[replicate]]\nsource = \"a\"\ntarget = \"b\"\nmode = \"dml\"\n{lines}\n");
        read(&format!("{}{second}", entry(PLAIN))).map(|_| ()).map_err(|e| e[0].to_string())
    };
    let twice = second("tables = [\"p.t\"]").unwrap_err();
    assert_eq!(
        twice,
        "/c/my.toml:18: replicate[2].tables: feeds p.t of \"b\", which replicate[1] (line 9) feeds already; \
         remove one of them, or give it another target_table"
    );
    assert!(second("tables = [\"p.*\"]").is_err());
    assert!(second("tables = [\"p.x\"]\ntarget_table = \"p.t\"").is_err());
    // One table may feed several.
    assert_eq!(second("tables = [\"p.t\"]\ntarget_table = \"p.t2\""), Ok(()));
    assert_eq!(second("tables = [\"q.*\"]"), Ok(()));
    // Whether q has the renamed table is known only when q is read.
    assert_eq!(second("tables = [\"q.t\"]\ntarget_table = \"q.x\""), Ok(()));
}

#[test]
fn a_slot_of_the_dba_needs_its_publication_and_serves_one_target() {
    let with = |keys: &str, more: &str| format!("{}{more}", entry(PLAIN).replacen("\"h\"\n", keys, 1));
    let lone = errors(&with("\"h\"\nslot_name = \"s\"\n", ""));
    assert_eq!(lone.len(), 1);
    assert!(lone[0].starts_with("3: connections.a.slot_name: a slot made by the DBA needs"), "{lone:?}");
    assert!(read(&with("\"h\"\npublication = \"p\"\n", "")).is_ok());
    let both = "\"h\"\nslot_name = \"s\"\npublication = \"p\"\n";
    assert!(read(&with(both, "")).is_ok());
    let more = "[connections.c]\nhost = \"x\"\nuser = \"u\"\ndatabase = \"d\"\n[[replicate]]\n".to_owned()
        + &PLAIN.replace("\"b\"", "\"c\"");
    assert!(errors(&with(both, &more))[0].contains("one slot cannot serve several targets (b, c)"));
    let unused = entry(PLAIN).replacen("[[rep", "max_retained_wal = \"1GB\"\n[[rep", 1);
    assert_eq!(
        warnings(&unused),
        ["5: connections.b.max_retained_wal: has no effect: no entry has this source"]
    );
}

/// The shape of what rpcl 0.1a1 shipped, in our words.
const RPCL: &str = r#"
pid_dir = "~/.repcloud/pid"
[logging]
log_dir = "~/.repcloud/logs"
log_level = "warning"
log_dest = "file"
log_days_keep = "4"
[notifier]
enable_email = false
[notifier.email]
mailfrom = "db@example.com"
mailto = ["dba@example.com"]
smtp_server = "mail.example.com"
smtp_port = "25"
smtp_ssl = "starttls"
smtp_username = "db"
smtp_password = "mail secret"
[connections.example]
user = "app"
password = "app secret"
port = "5432"
host = "localhost"
database = "shop"
sslmode = "prefer"
schemas = ['foo']
tables = ['foo.bar']
max_replay_rows = "100000"
lock_timeout = "3s"
check_time = "10"
analyze_tables = "yes"
deadlock_resolution = "nothing"
my_note = "rpcl never looked at it"
"#;

#[test]
fn a_configuration_written_for_rpcl_loads_unchanged_and_says_what_has_no_effect() {
    let conf = "[storage]\nfillfactor = 90\n[public.orders]\nnote.cleanup_nulls = true\n";
    let fake = Fake {
        vars: [("HOME", "/home/r")].into(),
        files: [(PathBuf::from("/c/table_conf/my_example.toml"), conf.to_owned())].into(),
        passfile: None,
    };
    let Loaded { settings, warnings } = read_with(RPCL, &fake).unwrap_or_else(|e| panic!("{e:#?}"));
    let example = &settings.connections["example"];
    assert_eq!((example.port, example.database.as_str()), (5432, "shop"));
    let logging = Logging {
        log_dir: "/home/r/.repcloud/logs".into(),
        log_level: LogLevel::Warn,
        log_dest: LogDest::File,
        log_days_keep: 4,
    };
    assert_eq!(settings.logging, logging);
    let keys: Vec<(String, usize)> = warnings.iter().map(|w| (w.key.clone(), w.line)).collect();
    let connection = |key: &str, line| (format!("connections.example.{key}"), line);
    assert_eq!(
        keys,
        [
            ("pid_dir".to_owned(), 2),
            ("logging.log_dest".to_owned(), 6),
            ("notifier".to_owned(), 8),
            connection("schemas", 25),
            connection("tables", 26),
            connection("max_replay_rows", 27),
            connection("lock_timeout", 28),
            connection("check_time", 29),
            connection("analyze_tables", 30),
            connection("deadlock_resolution", 31),
            connection("my_note", 32),
            ("storage".to_owned(), 1),
            ("public".to_owned(), 3),
        ],
        "{warnings:#?}"
    );
    assert!(!format!("{warnings:?}{settings:?}").contains("secret\""), "a secret is shown");
    // What rpcl never had is as strict as ever, and what is wrong is wrong.
    let more = format!("{RPCL}\n[[replicate]]\nmode = \"snapshot\"\nperiods = 1\n");
    assert_eq!(errors(&more).len(), 5, "{:#?}", errors(&more));
    assert_eq!(errors(&RPCL.replace("\"5432\"", "\"fifty\"")).len(), 1);
}

#[test]
fn a_table_conf_is_refused_where_the_configuration_was_not_written_for_rpcl() {
    let file = |text: &str| Fake {
        files: [(PathBuf::from("/c/table_conf/my_a.toml"), text.to_owned())].into(),
        ..Fake::default()
    };
    let refused = read_with(TWO, &file("[storage]\nfillfactor = 90\n")).unwrap_err();
    assert_eq!(
        refused[0].to_string(),
        "/c/table_conf/my_a.toml:1: storage: not built yet (repack); remove the file"
    );
    assert_eq!(read_with(TWO, &file("[storage\n")).unwrap_err().len(), 1);
}

#[test]
fn every_file_in_config_loads_as_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = read(&text).unwrap_or_else(|e| panic!("{}: {e:#?}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        seen += 1;
    }
    assert!(seen >= 3, "{seen}");
}

#[test]
fn the_example_without_its_comment_signs_loads_and_names_every_key() {
    let is_key = |line: &str| {
        let word = line.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_');
        line.starts_with('[') || word.len() < line.len() && word.starts_with(" = ")
    };
    let text: String = home::EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let fake = Fake { vars: [("PROD_PASSWORD", "x"), ("HOME", "/home/r")].into(), ..Fake::default() };
    let loaded = read_with(&text, &fake).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!((loaded.settings.connections.len(), loaded.settings.replicate.len()), (2, 2));
    // A key that is read but not in the example is one nobody can find.
    let sources = [include_str!("connection.rs"), include_str!("replicate.rs"), include_str!("resolve.rs")];
    let reading = ["text", "integer", "boolean", "choice", "parsed", "list", "name_text", "path_value"];
    let mut keys = 0;
    for source in sources {
        for call in reading {
            for part in source.split(&format!(".{call}(")).skip(1) {
                let Some(key) = part.trim_start().strip_prefix('"').and_then(|p| p.split('"').next()) else {
                    continue;
                };
                assert!(home::EXAMPLE.contains(&format!("\n#{key} = ")), "the example lacks {key}");
                keys += 1;
            }
        }
    }
    assert!(keys > 25, "{keys}");
}

mod home_folder {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_made_private_and_what_is_there_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep/home");
        let home = Home::locate(&Variable(dir.clone())).unwrap();
        home.ensure().unwrap();
        for folder in ["", "config", "config/table_conf", "logs", "pid", "spool"] {
            assert_eq!(mode(&dir.join(folder)), 0o700, "{folder}");
        }
        assert_eq!(std::fs::read_to_string(home.example()).unwrap(), home::EXAMPLE);
        assert!(home.write_example(&home.default_file()).unwrap());
        assert_eq!(mode(&home.default_file()), 0o600);
        std::fs::write(home.default_file(), "mine").unwrap();
        assert!(!home.write_example(&home.default_file()).unwrap());
        assert_eq!(std::fs::read_to_string(home.default_file()).unwrap(), "mine");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).unwrap();
        home.ensure().unwrap();
        assert_eq!(mode(&dir), 0o750);
    }

    #[test]
    fn config_is_a_name_or_a_path() {
        let home = Home::locate(&Variable("/h".into())).unwrap();
        for (config, file, name) in [
            ("default", "/h/config/default.toml", "default"),
            ("prod.toml", "/h/config/prod.toml", "prod"),
            ("./prod.toml", "./prod.toml", "prod"),
            ("/etc/repcloud/eu.toml", "/etc/repcloud/eu.toml", "eu"),
        ] {
            assert_eq!(home.config_file(config), (PathBuf::from(file), name.to_owned()));
        }
        let none = Fake::default();
        assert!(matches!(Home::locate(&none), Err(ConfigError::NoHome)));
        let user = Fake { vars: [("HOME", "/u"), ("REPCLOUD_HOME", "")].into(), ..Fake::default() };
        assert_eq!(Home::locate(&user).unwrap().dir(), Path::new("/u/.repcloud"));
    }

    struct Variable(PathBuf);

    impl Environment for Variable {
        fn var(&self, name: &str) -> Option<String> {
            (name == "REPCLOUD_HOME").then(|| self.0.to_string_lossy().into_owned())
        }

        fn read(&self, path: &Path) -> io::Result<String> {
            std::fs::read_to_string(path)
        }

        fn passfile_password(&self, _: Login<'_>) -> Result<Option<SecretString>, String> {
            Ok(None)
        }
    }
}
