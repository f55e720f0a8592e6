//! Configurations written for rpcl.

use std::time::Duration;

use super::*;
use crate::repack::options::RepackSettings;

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
    let settings_of = &example.repack.settings;
    assert_eq!(settings_of.lock_timeout, Duration::from_secs(3));
    assert_eq!(
        settings_of,
        &RepackSettings { lock_timeout: Duration::from_secs(3), ..RepackSettings::default() }
    );
    let selection = &example.repack.selection;
    assert_eq!(
        (&selection.schemas, &selection.tables),
        (&vec!["foo".to_owned()], &vec![TableName::new("foo", "bar")])
    );
    let orders = example.repack.rules.of(&TableName::new("public", "orders"));
    assert_eq!((orders.fillfactor, orders.cleanup_nulls), (Some(90), vec!["note".to_owned()]));
    let keys: Vec<(String, usize)> = warnings.iter().map(|w| (w.key.clone(), w.line)).collect();
    let connection = |key: &str, line| (format!("connections.example.{key}"), line);
    assert_eq!(
        keys,
        [
            ("pid_dir".to_owned(), 2),
            ("logging.log_dest".to_owned(), 6),
            ("notifier".to_owned(), 8),
            connection("my_note", 32),
        ],
        "{warnings:#?}"
    );
    assert!(!format!("{warnings:?}{settings:?}").contains("secret\""), "a secret is shown");
    // What rpcl never had is as strict as ever, and what is wrong is wrong.
    let more = format!("{RPCL}\n[[replicate]]\nmode = \"snapshot\"\nperiods = 1\n");
    assert_eq!(errors(&more).len(), 5, "{:#?}", errors(&more));
    assert_eq!(errors(&RPCL.replace("\"5432\"", "\"fifty\"")).len(), 1);
}
