//! `doctor --bundle`: all that support needs, and nothing that is nobody's business.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::process::Repcloud;
use crate::support::stream::{LIMIT, Stream, configuration};

/// What must not be found, whole or as JSON writes it.
const FROM_ENV: &str = "of-the-environment \"7\" \\ é";
const FROM_FILE: &str = "of-a-file-4711";
const IN_TEXT: &str = "of-the-text-4712";
const ROW: &str = "a-row's-value-4713";

#[tokio::test]
async fn a_bundle_has_what_support_needs_and_no_secret_and_no_row() {
    let entry = format!(
        "mode = \"dml\"\ntables = [\"public.orders\"]\ncondition = \"note <> '{}'\"",
        ROW.replace('\'', "''")
    );
    let stream = Stream::new(
        "CREATE TABLE public.orders (id int PRIMARY KEY, note text); ALTER TABLE orders REPLICA IDENTITY FULL",
        "CREATE TABLE public.orders (id int PRIMARY KEY, note text CHECK (note <> 'bad'))",
        &[],
    )
    .await;
    let text = configuration(&stream.pair, &[&entry])
        .replacen("[connections.prod]\n", "[connections.prod]\npassword = \"env:PROD_PASSWORD\"\n", 1)
        .replacen("[connections.copy]\n", "[connections.copy]\npassword = \"file:secret\"\n", 1)
        + &format!(
            "[connections.away]\nhost = \"/nowhere\"\nuser = \"app\"\ndatabase = \"shop\"\npassword = \"{IN_TEXT}\"\n"
        );
    let program = Repcloud::new("").env("PROD_PASSWORD", FROM_ENV);
    let secret = program.home().join("secret");
    std::fs::write(&secret, format!("{FROM_FILE}\n")).unwrap();
    program.write("config/default.toml", &text.replace("file:secret", &format!("file:{}", secret.display())));
    // State of a stream whose table is parked with a row that the target does not take.
    program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0);
    let row = ROW.replace('\'', "''");
    stream.source.exec(&format!("INSERT INTO orders VALUES (1, 'x{row}')")).await;
    program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT).expect_code(0);
    stream
        .source
        .exec(&format!(
            "INSERT INTO orders VALUES (2, 'bad'); UPDATE orders SET note = 'y{row}' WHERE id = 1"
        ))
        .await;
    let ended = program.run(&["stream", "--source", "prod", "--until", "caught-up"], LIMIT);
    assert_eq!(stream.target.value("SELECT state FROM repcloud.table_state").await, "parked", "{ended:?}");

    let file = program.home().join("for-support.json");
    let name = file.display().to_string();
    // The connection that is away fails; the bundle is written all the same.
    let seen = program.run(&["doctor", "--bundle", &name], LIMIT).expect_code(3);
    assert!(seen.stdout.contains("everything for support is in"), "{seen:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let bundle: Value = serde_json::from_str(&text).unwrap();
    for secret in [FROM_ENV, "of-the-environment", FROM_FILE, IN_TEXT, "4713", "row's-value"] {
        for output in [&text, &seen.stdout, &seen.stderr] {
            assert!(!output.contains(secret), "{secret}: {output}");
        }
    }
    assert!(bundle["doctor"]["connections"].as_array().unwrap().len() == 3, "{bundle:#}");
    assert_eq!(bundle["configuration"]["replicate"][0]["condition"], true);
    let prod = &bundle["databases"]["prod"];
    assert!(prod["version"][0]["version"].as_str().unwrap().starts_with("PostgreSQL"), "{prod:#}");
    assert_eq!(prod["slots"][0]["slot_name"], "repcloud_prod__copy");
    let settings = prod["settings"].as_array().unwrap();
    assert!(settings.iter().any(|s| s["name"] == "wal_level" && s["setting"] == "logical"), "{settings:#?}");
    assert_eq!(bundle["databases"]["copy"]["repcloud.table_state"][0]["row"]["state"], "parked");
    assert!(bundle["databases"]["away"]["error"].is_string());
    assert!(bundle["log"].is_array());

    // What is there is nobody's to replace, and that is said before any server is asked.
    let again = program.run(&["doctor", "--bundle", &name], LIMIT).expect_code(2);
    assert!(again.stderr.contains("is there already") && again.stdout.is_empty(), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[tokio::test]
async fn a_secret_that_something_wrote_into_the_log_does_not_get_out() {
    let program = Repcloud::new(
        "[connections.away]\nhost = \"/nowhere\"\nuser = \"app\"\ndatabase = \"shop\"\npassword = \"env:AWAY_PASSWORD\"\n",
    )
    .env("AWAY_PASSWORD", FROM_ENV);
    std::fs::create_dir_all(program.home().join("logs")).unwrap();
    program.write("logs/repcloud_default.log", &format!("somebody wrote {FROM_ENV} here\n"));
    let file = program.home().join("b.json");
    program.run(&["doctor", "--bundle", &file.display().to_string()], LIMIT).expect_code(3);
    let text = std::fs::read_to_string(&file).unwrap();
    let bundle: Value = serde_json::from_str(&text).unwrap();
    let log = bundle["log"].to_string();
    assert!(!text.contains("of-the-environment") && log.contains("(hidden)"), "{log}");
}
