//! What the doctor judges by: the way in which each piece of work would read changes, and every connection by itself.

use std::process::{Child, Command, Stdio};

use repcloud::cluster::Cluster;
use serde_json::{Value, json};

use crate::patient::{Patient, statements};
use crate::support::cluster::{Pair, builder};
use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration, connection};
use crate::support::wait;

const DML: Option<&str> = Some("mode = \"dml\"");

/// Of a source: nothing but what README names for streams by triggers.
async fn with_trigger_rights(patient: &Patient) {
    patient.heal().await;
    let sql = "ALTER ROLE {role} NOREPLICATION; CREATE TABLE {t} (id int, v text); INSERT INTO {t} VALUES (1, 'a'); \
               ALTER SCHEMA {s} OWNER TO {owner}; GRANT USAGE ON SCHEMA {s} TO {role}; GRANT SELECT, TRIGGER ON {t} TO {role}";
    patient.db("prod").await.exec(&patient.filled(sql)).await;
}

fn failed(checks: &[Value]) -> Vec<&Value> {
    checks.iter().filter(|c| c["ok"] == false).collect()
}

#[tokio::test]
async fn a_role_that_may_make_triggers_is_enough_for_a_stream_by_triggers() {
    let patient = Patient::start().await;
    with_trigger_rights(&patient).await;
    for keys in ["capture = \"trigger\"", "capture = \"auto\""] {
        patient.configure(keys, DML);
        let seen = patient.program.run(&["doctor"], LIMIT).expect_code(0);
        assert!(seen.stdout.contains("stream to copy: changes are read from triggers"), "{seen:?}");
        assert!(seen.stdout.contains("does not own"), "what triggers miss is said: {seen:?}");
        let report = patient.program.json(&["doctor"], LIMIT);
        assert_eq!(report["connections"][1]["capture"], "trigger", "{report:#}");
    }
    // It has said the truth.
    patient.program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0);
    let count = patient.filled("SELECT count(*) FROM {t}");
    assert_eq!(patient.db("copy").await.value(&count).await, "1");
    // And goes on doing so for a stream that has begun, whose queues are no leftovers.
    let report = patient.program.json(&["doctor"], LIMIT);
    let checks = report["connections"][1]["checks"].as_array().unwrap();
    assert_eq!(failed(checks), Vec::<&Value>::new());
    assert!(checks.iter().any(|c| c["check"] == "leftovers" && c["level"] == "ok"), "{report:#}");
}

#[tokio::test]
async fn what_a_slot_lacks_is_a_failure_only_where_a_slot_is_asked_for() {
    let patient = Patient::start().await;
    with_trigger_rights(&patient).await;
    patient.configure("capture = \"slot\"", DML);
    patient.program.run(&["doctor"], LIMIT).expect_code(3);
    let checks = patient.checks("prod");
    assert!(
        checks.iter().any(|c| c["check"] == "stream to copy by triggers" && c["ok"] == true),
        "{checks:#?}"
    );
    assert!(failed(&checks).iter().any(|c| c["check"] == "a slot with pgoutput"), "{checks:#?}");
    patient.configure("capture = \"auto\"", DML);
    let checks = patient.checks("prod");
    assert_eq!(failed(&checks), Vec::<&Value>::new());
    let passed = checks.iter().find(|c| c["check"] == "a slot with pgoutput").unwrap();
    assert_eq!((&passed["level"], statements(passed).len()), (&"warn".into(), 1), "{passed}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_keeps_no_other_from_being_examined() {
    let stream = Stream::new(
        "CREATE TABLE public.orders (id int PRIMARY KEY)",
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\"]"],
    )
    .await;
    let text = configuration(&stream.pair, &["mode = \"dml\"\ntables = [\"public.orders\"]"])
        + "[connections.away]\nhost = \"/nowhere\"\nuser = \"app\"\ndatabase = \"shop\"\n";
    stream.program.write("config/default.toml", &text);
    let seen = stream.program.run(&["doctor", "--json"], LIMIT).expect_code(3);
    let report: Value = serde_json::from_str(&seen.stdout).unwrap();
    let names: Vec<&str> =
        report["connections"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["away", "copy", "prod"]);
    let away = &report["connections"][0];
    assert_eq!((&away["capture"], away["checks"].as_array().unwrap().len()), (&Value::Null, 1), "{away}");
    assert_eq!((&away["checks"][0]["check"], &away["checks"][0]["ok"]), (&json!("reachable"), &json!(false)));
    assert_eq!(report["connections"][2]["capture"], "slot");
    for connection in report["connections"].as_array().unwrap() {
        for check in connection["checks"].as_array().unwrap() {
            assert!(check["check"].is_string() && check["ok"].is_boolean() && check["detail"].is_string());
            assert!(check["remedy"].is_string() || check["remedy"].is_null(), "{check}");
            assert!(
                check["ok"] == true || check["remedy"].is_string(),
                "a failure without a way on: {check}"
            );
        }
    }
    // By itself each is what it is.
    stream.program.run(&["doctor", "--connection", "prod"], LIMIT).expect_code(0);
    let seen = stream.program.run(&["doctor", "--connection", "away"], LIMIT).expect_code(3);
    assert!(seen.stdout.contains("FAIL  reachable") && seen.stdout.contains("missing: away (1)"), "{seen:?}");
}

#[tokio::test]
async fn a_target_that_cannot_see_its_source_says_so_and_is_examined_otherwise() {
    let mut stream = Stream::new(
        "CREATE TABLE public.orders (id int PRIMARY KEY)",
        "",
        &["mode = \"dml\"\ntables = [\"public.orders\"]"],
    )
    .await;
    stream.pair.source.kill().unwrap();
    let report = stream.program.json(&["doctor", "--connection", "copy"], LIMIT);
    let checks = report["connections"][0]["checks"].as_array().unwrap();
    let named =
        |name: &str| checks.iter().find(|c| c["check"] == name).unwrap_or_else(|| panic!("{checks:#?}"));
    assert!(
        named("target tables of prod")["detail"].as_str().unwrap().contains("the source is not reachable")
    );
    assert_eq!(named("schema repcloud")["ok"], true);
}

#[tokio::test]
async fn a_stream_that_has_its_slot_needs_no_room_for_another() {
    let pair = Pair::start_with(builder("source").setting("max_replication_slots", "1"), builder("target"));
    let entries = &["mode = \"dml\"\ntables = [\"public.orders\"]"];
    let stream = Stream::over(pair, "CREATE TABLE public.orders (id int PRIMARY KEY)", "", entries).await;
    stream.program.run(&["doctor"], LIMIT).expect_code(0);
    stream.catch_up();
    let seen = stream.program.run(&["doctor"], LIMIT).expect_code(0);
    assert!(seen.stdout.contains("1 of 1 slots in use, 0 more wanted"), "{seen:?}");
    // A repack would need one more, and has triggers to turn to.
    let text = configuration(&stream.pair, entries).replacen(
        "[connections.prod]\n",
        "[connections.prod]\ntables = [\"public.orders\"]\ncapture = \"slot\"\n",
        1,
    );
    stream.program.write("config/default.toml", &text);
    let seen = stream.program.run(&["doctor"], LIMIT).expect_code(3);
    assert!(seen.stdout.contains("1 of 1 slots in use, 1 more wanted"), "{seen:?}");
}

/// PgBouncer before a server, in transaction mode; ended when dropped.
struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// `None`, and said, where there is none to start.
    async fn start(cluster: &Cluster, ignored: &str) -> Option<Self> {
        let there = Command::new("pgbouncer").arg("--version").output().is_ok();
        if !there {
            std::io::Write::write_all(
                &mut std::io::stderr(),
                b"there is no pgbouncer here: it is left out\n",
            )
            .unwrap();
            return None;
        }
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let directory = cluster.directory();
        let users = directory.join("pooler-users");
        std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\nauth_file = {}\n\
             pool_mode = transaction\nunix_socket_dir =\nignore_startup_parameters = {ignored}\n",
            cluster.socket_dir().display(),
            cluster.port(),
            users.display()
        );
        let file = directory.join("pooler.ini");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let child = command.arg("-q").arg(&file).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Pooler { child, port };
        wait::until("the pooler listens", LIMIT, async || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[tokio::test]
async fn a_pooler_in_between_is_named() {
    let cluster = builder("source").start().unwrap();
    // One that refuses what it does not know, and one that was told to let it pass.
    for (ignored, expected) in [("extra_float_digits", "reachable"), ("extra_float_digits,options", "pooler")]
    {
        let Some(pooler) = Pooler::start(&cluster, ignored).await else { return };
        let direct = connection("prod", &cluster, "postgres");
        let through = direct.replace(&cluster.socket_dir().display().to_string(), "127.0.0.1");
        let through =
            through.replace(&format!("port = {}", cluster.port()), &format!("port = {}", pooler.port));
        let program = Repcloud::new(&through);
        let seen = program.run(&["doctor", "--json"], LIMIT).expect_code(3);
        let report: Value = serde_json::from_str(&seen.stdout).unwrap();
        let checks = report["connections"][0]["checks"].as_array().unwrap();
        let failed = failed(checks);
        assert_eq!((failed.len(), &failed[0]["check"]), (1, &expected.into()), "{checks:#?}");
        assert!(failed[0]["detail"].as_str().unwrap().contains(if expected == "pooler" {
            "pooler"
        } else {
            "startup parameter"
        }));
        assert!(
            failed[0]["remedy"].as_str().unwrap().contains("host and port of the server itself"),
            "{failed:#?}"
        );
    }
}
