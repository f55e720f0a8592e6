//! Reading wal2json: what it cannot carry, and how it is chosen. That it carries the rest is shown by the cases and the oracle,
//! which run with both plugins.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use repcloud::cluster::ClusterBuilder;

use crate::support::cluster::{Pair, builder, has_wal2json};
use crate::support::db::{Db, assert_same};
use crate::support::process::{Finished, Repcloud};
use crate::support::stream::{LIMIT, connection};

const ENTRY: &str =
    "[[replicate]]\nsource = \"prod\"\ntarget = \"copy\"\nmode = \"dml\"\ntables = [\"public.t\"]\n";

struct Stage {
    pair: Pair,
    source: Db,
    target: Db,
}

impl Stage {
    async fn over(source: ClusterBuilder, schema: &str) -> Self {
        let pair = Pair::start_with(source, builder("target"));
        pair.create_database("app");
        let source = Db::connect(&pair.source, "app").await;
        let target = Db::connect(&pair.target, "app").await;
        source.exec(schema).await;
        Stage { pair, source, target }
    }

    fn program(&self, settings: &str) -> Repcloud {
        let source = connection("prod", &self.pair.source, "app");
        let target = connection("copy", &self.pair.target, "app");
        Repcloud::new(&format!("{source}{settings}\n{target}{ENTRY}"))
    }

    fn stream(&self, settings: &str) -> Finished {
        self.program(settings).run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT)
    }

    async fn plugins(&self) -> String {
        self.source.value("SELECT coalesce(string_agg(plugin, ' '), '') FROM pg_replication_slots").await
    }

    async fn assert_untouched(&self) {
        let sql =
            "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
        assert_eq!(self.source.value(sql).await, "0", "slots and publications");
    }

    /// Whether this server's wal2json can send NaN.
    async fn keeps_numbers(&self) -> bool {
        self.source.exec("SELECT pg_create_logical_replication_slot('ask', 'wal2json')").await;
        let peek =
            "SELECT pg_logical_slot_peek_changes('ask', NULL, 1, 'numeric-data-types-as-string', 'true')";
        let known = self.source.try_exec(peek).await.is_ok();
        self.source.exec("SELECT pg_drop_replication_slot('ask')").await;
        known
    }
}

#[tokio::test]
async fn numbers_that_would_become_null_are_refused_or_arrive() {
    if !has_wal2json() {
        return;
    }
    let schema = "CREATE TABLE t (id int PRIMARY KEY, \"N\" numeric(9,2), f float4, whole bigint, s text);
         INSERT INTO t VALUES (1, 'NaN', '-Infinity', 1, 's')";
    let stage = Stage::over(builder("source"), schema).await;
    let plain = "capture = \"slot\"\nplugin = \"wal2json\"";
    let change = "INSERT INTO t VALUES (2, 'NaN', 'Infinity', 2, 's'), (3, 1.50, 0.1, 3, 's')";
    if stage.keeps_numbers().await {
        stage.stream(plain).expect_code(0);
        stage.source.exec(change).await;
        stage.stream(plain).expect_code(0);
        return assert_same(&stage.source, &stage.target, "t").await;
    }
    let refused = stage.stream(plain).expect_code(3);
    for text in ["public.t.\"N\", public.t.f can hold", "wal2json 2.6", "allow_lossy_numbers = true"] {
        assert!(refused.stderr.contains(text), "`{text}`:\n{}", refused.stderr);
    }
    stage.assert_untouched().await;

    let accepted = format!("{plain}\nallow_lossy_numbers = true");
    stage.stream(&accepted).expect_code(0);
    stage.source.exec(change).await;
    stage.stream(&accepted).expect_code(0);
    // The copied row is whole; of the streamed ones, the numbers are.
    let rows = stage
        .target
        .value("SELECT string_agg(concat_ws(' ', id, \"N\", f, whole), ',' ORDER BY id) FROM t")
        .await;
    assert_eq!(rows, "1 NaN -Infinity 1,2 2,3 1.50 0.1 3");
    // What was accepted once is asked anew by a start without it: the slot is there, and nothing may be lost in silence.
    let told = stage.stream(plain);
    assert!(told.code() != 0 && told.stderr.contains("allow_lossy_numbers"), "{}", told.stderr);
}

#[tokio::test]
async fn columns_that_are_left_out_are_no_reason_to_refuse() {
    if !has_wal2json() {
        return;
    }
    let stage = Stage::over(builder("source"), "CREATE TABLE t (id int PRIMARY KEY, f float8, s text)").await;
    let program = stage.program("plugin = \"wal2json\"");
    let path = "config/default.toml";
    let text = std::fs::read_to_string(program.home().join(path)).unwrap();
    program.write(path, &format!("{text}columns = [\"id\", \"s\"]\n"));
    let run = || program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0);
    run();
    stage.source.exec("INSERT INTO t VALUES (1, 'NaN', 'a'); UPDATE t SET s = 'b'").await;
    run();
    assert_eq!(stage.target.value("SELECT id || s FROM t").await, "1b");
}

#[tokio::test]
async fn what_a_publication_filters_and_other_encodings_are_refused() {
    if !has_wal2json() {
        return;
    }
    let stage = Stage::over(builder("source"), "CREATE TABLE t (id int PRIMARY KEY)").await;
    let program = stage.program("plugin = \"wal2json\"");
    let path = "config/default.toml";
    let text = std::fs::read_to_string(program.home().join(path)).unwrap();
    program.write(path, &format!("{text}condition = \"id > 1\"\n"));
    let told =
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(3).stderr;
    assert!(told.contains("table public.t: its `condition` is a row filter"), "{told}");
    stage.assert_untouched().await;

    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    stage.source.exec(latin).await;
    let other = Db::connect(&stage.pair.source, "latin").await;
    other.exec("CREATE TABLE t (id int PRIMARY KEY)").await;
    program.write(path, &text.replacen("database = \"app\"", "database = \"latin\"", 1));
    let told =
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(3).stderr;
    assert!(told.contains("its encoding is LATIN1"), "{told}");
    stage.assert_untouched().await;
}

/// A server that finds only these plugins, as a managed service that offers no others.
fn only(plugins: &[&str]) -> (ClusterBuilder, PathBuf) {
    let program = repcloud::cluster::Binaries::find(Some(crate::support::cluster::major()))
        .and_then(|binaries| binaries.program("postgres"))
        .unwrap();
    let home = program.parent().and_then(Path::parent).unwrap();
    let place = tempfile::Builder::new().prefix("repcloud-plugins").tempdir().unwrap().keep();
    for plugin in plugins {
        let file = format!("{plugin}.so");
        let found = ["lib", "lib/postgresql"].map(|lib| home.join(lib).join(&file));
        symlink(found.iter().find(|file| file.exists()).unwrap(), place.join(&file)).unwrap();
    }
    // Servers may run as another user.
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (builder("source").setting("dynamic_library_path", place.to_str().unwrap()), place)
}

#[tokio::test]
async fn auto_takes_the_plugin_that_is_allowed_and_says_why() {
    if !has_wal2json() {
        return;
    }
    let (source, place) = only(&["wal2json"]);
    let schema = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 50) i;
         CREATE ROLE app LOGIN REPLICATION; GRANT CREATE ON DATABASE app TO app; ALTER TABLE t OWNER TO app";
    let stage = Stage::over(source, schema).await;
    let as_app = |settings: &str| {
        let program = stage.program(settings);
        let path = "config/default.toml";
        let text = std::fs::read_to_string(program.home().join(path)).unwrap();
        program.write(path, &text.replacen("user = \"postgres\"", "user = \"app\"", 1));
        program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT)
    };
    let told = as_app("capture = \"slot\"");
    assert!(told.code() != 0 && told.stderr.contains("pgoutput"), "{}", told.stderr);
    assert_eq!(stage.plugins().await, "");

    let told = as_app("").expect_code(0).stderr;
    assert!(
        told.contains("passed over, source: a slot with pgoutput: the server has no output plugin pgoutput"),
        "{told}"
    );
    assert_eq!(stage.plugins().await, "wal2json");
    stage
        .source
        .exec("UPDATE t SET id = id + 100, v = 'changed' WHERE id < 10; DELETE FROM t WHERE id = 20")
        .await;
    // The slot is there: nothing is tried, and its plugin is read.
    let told = as_app("").expect_code(0).stderr;
    assert!(!told.contains("passed over"), "{told}");
    assert_same(&stage.source, &stage.target, "t").await;

    // A slot of the other plugin is never read as if it were the wanted one.
    let told = as_app("plugin = \"pgoutput\"");
    assert!(told.code() != 0 && told.stderr.contains("was made for plugin wal2json"), "{}", told.stderr);
    std::fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn auto_says_of_every_way_why_it_was_passed_over() {
    let (source, place) = only(&[]);
    let stage = Stage::over(source, "CREATE TABLE t (id int PRIMARY KEY)").await;
    // What is left are triggers.
    let told = stage.stream("").expect_code(0).stderr;
    for plugin in ["pgoutput", "wal2json"] {
        let why = format!("a slot with {plugin}: the server has no output plugin {plugin}");
        assert!(told.contains(&why), "{told}");
    }
    assert!(told.contains("triggers and queues made for 1 tables"), "{told}");
    std::fs::remove_dir_all(place).unwrap();
}
