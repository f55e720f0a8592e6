//! The binary as a person runs it, without a database.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const SECRET: &str = "correct horse battery";

const CONFIG: &str = r#"
[connections.prod]
host = "db.example"
user = "app"
password = "correct horse battery"
database = "shop"
[connections.warehouse]
host = "/run/postgresql"
port = 5433
user = "loader"
password = "env:WAREHOUSE_PASSWORD"
database = "dwh"
[[replicate]]
source = "prod"
target = "warehouse"
mode = "dml"
tables = ["public.orders"]
"#;

/// A home folder of one test, below a folder that goes away with it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Home(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("home")
    }

    fn with_default(config: &str) -> Self {
        let home = Home::new();
        fs::create_dir_all(home.dir().join("config")).unwrap();
        fs::write(home.dir().join("config/default.toml"), config).unwrap();
        home
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repcloud"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("REPCLOUD_HOME", self.dir())
            .env("WAREHOUSE_PASSWORD", SECRET)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const COMMANDS: &[&str] = &[
    "init",
    "show-connections",
    "doctor",
    "stream",
    "status",
    "verify",
    "reset",
    "skip",
    "drop-table",
    "create-schema",
    "drop-schema",
    "repack",
    "prepare",
    "swap",
    "abort",
    "pause",
    "resume",
    "stop",
    "throttle",
    "demo",
    "completions",
    "man",
];

#[test]
fn init_makes_a_private_home_and_never_overwrites() {
    let home = Home::new();
    let first = home.run(&["init"]);
    assert_eq!(code(&first), 0, "{}", err(&first));
    let file = home.dir().join("config/default.toml");
    assert!(out(&first).contains(&file.display().to_string()));
    assert_eq!((mode(&home.dir()), mode(&file)), (0o700, 0o600));
    assert!(home.dir().join("config/repcloud.example.toml").is_file());

    fs::write(&file, CONFIG).unwrap();
    let second = home.run(&["init", "--json"]);
    assert_eq!(code(&second), 0);
    let document: serde_json::Value = serde_json::from_str(&out(&second)).unwrap();
    assert_eq!(document["written"], false);
    assert_eq!(fs::read_to_string(&file).unwrap(), CONFIG);
}

#[test]
fn what_init_writes_is_in_order() {
    let home = Home::new();
    assert_eq!(code(&home.run(&["init"])), 0);
    let shown = home.run(&["show-connections"]);
    assert_eq!((code(&shown), err(&shown).as_str()), (0, ""));
    assert!(out(&shown).contains("has no connections yet"));
}

#[test]
fn without_repcloud_home_files_are_in_the_users_home() {
    let home = Home::new();
    let run = home.command(&["init"]).env_remove("REPCLOUD_HOME").output().unwrap();
    assert_eq!(code(&run), 0);
    assert!(home.0.path().join(".repcloud/config/default.toml").is_file());
    let nowhere = home.command(&["init"]).env_clear().output().unwrap();
    assert_eq!(code(&nowhere), 2, "{}", err(&nowhere));
    assert!(err(&nowhere).starts_with("error: no home folder"), "{}", err(&nowhere));
}

#[test]
fn connections_are_shown_without_their_secrets() {
    let home = Home::with_default(CONFIG);
    for name in ["show-connections", "show_connections"] {
        let shown = home.run(&[name]);
        assert_eq!((code(&shown), err(&shown).as_str()), (0, ""));
        for part in ["prod", "db.example", "5432", "app", "shop", "hidden", "warehouse", "/run/postgresql"] {
            assert!(out(&shown).contains(part), "{part} is not in\n{}", out(&shown));
        }
    }
    let json = home.run(&["show-connections", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&out(&json)).unwrap();
    let prod = &document["connections"][0];
    assert_eq!((&prod["name"], &prod["port"]), (&"prod".into(), &5432.into()));
    assert_eq!((&prod["password"], &prod["targets"][0]), (&true.into(), &"warehouse".into()));
}

#[test]
fn no_output_of_any_command_holds_a_secret() {
    let broken = CONFIG.replace("user = \"app\"", "user = 1").replace("port = 5433", "port = \"x\"");
    // What would contact a database is kept from it: by a broken configuration, or a source that feeds nothing.
    for (config, commands) in [
        (
            CONFIG,
            ["show-connections --debug -vv", "show-connections --json", "stream --source warehouse --debug"],
        ),
        (&broken, ["show-connections --debug -vv", "status --json --debug", "stream --source prod --debug"]),
    ] {
        let home = Home::with_default(config);
        for command in commands {
            let run = home.run(&command.split(' ').collect::<Vec<_>>());
            assert!(!format!("{}{}", out(&run), err(&run)).contains(SECRET), "{command}");
        }
        for file in fs::read_dir(home.dir().join("logs")).unwrap() {
            assert!(!fs::read_to_string(file.unwrap().path()).unwrap().contains(SECRET));
        }
    }
}

#[test]
fn a_command_that_changes_something_writes_a_log_file_where_one_is_asked_for() {
    let files = |home: &Home| -> Vec<String> {
        let names = fs::read_dir(home.dir().join("logs")).unwrap();
        names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    };
    let home = Home::with_default(CONFIG);
    home.run(&["show-connections", "--debug"]);
    home.run(&["stream", "--source", "warehouse"]);
    assert_eq!(files(&home), [""; 0]);
    home.run(&["stream", "--source", "warehouse", "--debug"]);
    let [file] = files(&home).try_into().unwrap();
    assert!(file.starts_with("repcloud_default.") && file.ends_with(".log"), "{file}");
    let home = Home::with_default(&format!("{CONFIG}[logging]\nlog_dest = \"file\"\n"));
    home.run(&["stream", "--source", "warehouse"]);
    assert_eq!(files(&home).len(), 1);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let home = Home::with_default(
        "colour = 1\n[connections.prod]\nhots = \"x\"\nport = \"5432\"\nuser = \"u\"\ndatabase = \"d\"\n\
         lock_timeout = \"soon\"\n",
    );
    let run = home.run(&["show-connections"]);
    assert_eq!((code(&run), out(&run).as_str()), (2, ""));
    let file = home.dir().join("config/default.toml").display().to_string();
    let lines: Vec<String> = err(&run).lines().map(|line| line.replace(&file, "FILE")).collect();
    assert_eq!(
        lines,
        [
            "error: the configuration has 5 errors:",
            "  FILE:1: colour: unknown key; remove it",
            "  FILE:2: connections.prod.host: is missing; give a host name or a socket directory",
            "  FILE:3: connections.prod.hots: unknown key; did you mean \"host\"?",
            "  FILE:4: connections.prod.port: expected a whole number from 1 to 65535, found a string",
            "  FILE:7: connections.prod.lock_timeout: \"soon\" is not a time like \"500ms\" or \"10s\"",
        ]
    );
}

#[test]
fn a_configuration_is_a_name_or_a_path() {
    let home = Home::with_default(CONFIG);
    let other = home.0.path().join("elsewhere.toml");
    fs::write(&other, CONFIG.replace("db.example", "other.example")).unwrap();
    let path = other.display().to_string();
    for args in [["--config", path.as_str(), "show-connections"], ["show-connections", "--config", &path]] {
        assert!(out(&home.run(&args)).contains("other.example"));
    }
    let missing = home.run(&["show-connections", "--config", "nope"]);
    assert_eq!(code(&missing), 2);
    assert!(err(&missing).contains("config/nope.toml"), "{}", err(&missing));
    let first = Home::new();
    let missing = first.run(&["show-connections"]);
    assert_eq!(code(&missing), 2);
    assert!(err(&missing).contains("`repcloud init`"), "{}", err(&missing));
    assert!(
        first.dir().join("config/repcloud.example.toml").is_file(),
        "the example is made at the first run"
    );
}

#[test]
fn a_source_that_is_not_there_is_a_wrong_command_line() {
    let home = Home::with_default(CONFIG);
    let unknown = home.run(&["stream", "--source", "prdo"]);
    assert_eq!(code(&unknown), 2);
    assert!(err(&unknown).contains("error: there is no connection \"prdo\"\nhint: "), "{}", err(&unknown));
    assert!(err(&unknown).contains("prod, warehouse"), "{}", err(&unknown));
    let target = home.run(&["stream", "--source", "warehouse"]);
    assert_eq!(code(&target), 2);
    assert!(err(&target).contains("nothing is replicated from \"warehouse\""), "{}", err(&target));
}

#[test]
fn a_configuration_written_for_rpcl_works_with_warnings() {
    let home = Home::with_default(
        "pid_dir = \"~/.repcloud/pid\"\n[logging]\nlog_dir = \"~/.repcloud/logs\"\nlog_level = \"debug\"\n\
         log_dest = \"console\"\nlog_days_keep = \"4\"\n[notifier]\nenable_email = false\n[connections.b]\n\
         user = \"app\"\npassword = \"correct horse battery\"\nport = \"55401\"\nhost = \"127.0.0.1\"\n\
         database = \"shop\"\nsslmode = \"prefer\"\nschemas = []\ntables = ['public.big']\n\
         max_replay_rows = \"100000\"\nlock_timeout = \"3s\"\ncheck_time = \"10\"\nanalyze_tables = \"yes\"\n\
         deadlock_resolution = \"nothing\"\n",
    );
    let conf = home.dir().join("config/table_conf");
    fs::create_dir_all(&conf).unwrap();
    fs::write(conf.join("default_b.toml"), "[storage]\nfillfactor = 80\n").unwrap();
    let run = home.run(&["show_connections"]);
    assert_eq!(code(&run), 0, "{}", err(&run));
    assert!(out(&run).contains("55401"));
    assert_eq!(err(&run).lines().filter(|line| line.starts_with("warning: ")).count(), 2, "{}", err(&run));
    assert_eq!(err(&home.run(&["show_connections", "-q"])), "");
}

#[test]
fn every_command_explains_itself_and_no_other_is_offered() {
    let home = Home::new();
    let help = home.run(&["--help"]);
    assert_eq!(code(&help), 0);
    for command in COMMANDS {
        assert!(out(&help).contains(&format!("  {command} ")), "{command} is not in\n{}", out(&help));
        let run = home.run(&[command, "--help"]);
        assert_eq!((code(&run), err(&run).as_str()), (0, ""), "{command}");
        for part in ["Usage: repcloud ", "--config <NAME|PATH>", "--debug", "--json", "--no-progress"] {
            assert!(out(&run).contains(part), "{part} is not in the help of {command}");
        }
    }
    for later in ["refresh", "import-mimeo", "notify-test"] {
        assert!(!out(&help).contains(&format!("\n  {later} ")), "{later} is offered");
        assert_eq!(code(&home.run(&[later])), 2, "{later}");
    }
    assert_eq!(code(&home.run(&[])), 2);
    assert!(out(&home.run(&["--version"])).starts_with("repcloud 0."));
    for (command, refused) in [
        ("swap", &["--dry-run", "--min-bloat", "--order-by", "--tablespace"][..]),
        ("abort", &["--window", "--on-failure"]),
    ] {
        let help = out(&home.run(&[command, "--help"]));
        assert!(help.contains("--connection"), "{help}");
        assert!(
            !refused.iter().any(|option| help.contains(option)),
            "{command} offers what it refuses:\n{help}"
        );
    }
    assert!(!home.dir().exists(), "asking for help makes no folder");
}

#[test]
fn completions_and_manual_name_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]);
        assert_eq!(code(&script), 0);
        assert!(COMMANDS.iter().all(|command| out(&script).contains(command)), "{shell}");
    }
    let manual = home.run(&["man"]);
    assert_eq!(code(&manual), 0);
    assert_eq!(out(&manual).lines().filter(|line| line.starts_with(".TH ")).count(), COMMANDS.len() + 1);
    for command in COMMANDS {
        assert!(out(&manual).contains(&format!(".TH repcloud-{command} ")), "{command}");
    }
}

#[test]
fn a_reader_who_goes_away_is_no_error() {
    let home = Home::with_default(CONFIG);
    for args in [&["man"][..], &["completions", "zsh"], &["show-connections"], &["--help"]] {
        let mut child = home.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), told.as_str()), (Some(0), ""), "{args:?}");
    }
    // Nor is a closed standard error.
    let mut child =
        home.command(&["stream", "--source", "x", "--debug"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
