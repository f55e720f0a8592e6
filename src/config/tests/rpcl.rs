//! Configurations written for rpcl.

use super::*;

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
