//! Every statement that `doctor` prints is run by the administrator, and mends what it was printed for.

use std::collections::BTreeSet;

use repcloud::doctor::{SHAPES, shape};
use serde_json::Value;

use crate::cases::{self, Case};
use crate::patient::{Patient, statements};
use crate::support::cluster::{knows, major};
use crate::support::stream::LIMIT;
use crate::support::wait;

/// Its statement is for a service that has a role of this name; `on_amazon_the_services_own_role_is_granted` runs it.
const ELSEWHERE: &str = "GRANT rds_replication TO ?";

#[test]
fn every_shape_of_statement_has_a_case() {
    let tried: BTreeSet<&str> =
        cases::all().flat_map(|case| case.shapes).copied().chain([ELSEWHERE]).collect();
    let printed: BTreeSet<&str> = SHAPES.iter().copied().collect();
    assert_eq!(tried, printed);
}

/// The statements of a case's check, while it is not ok.
fn finding(patient: &Patient, case: &Case) -> Option<Value> {
    let name = patient.filled(case.check);
    let is_it = |check: &Value| {
        let found: Vec<_> = statements(check).iter().map(|s| shape(s).unwrap_or("none")).collect();
        check["check"] == *name && check["level"] != "ok" && found == case.shapes
    };
    patient.checks(case.at).into_iter().find(is_it)
}

/// Breaks it, lets the doctor say what mends it, does that, and asks again: each statement that does by itself in turn.
async fn try_case(patient: &mut Patient, case: &Case) {
    let name = format!("{} on {}: {:?}", patient.filled(case.check), case.at, case.shapes);
    for way in 0.. {
        patient.heal().await;
        for (at, broken) in [("prod", case.source), ("copy", case.target)] {
            let db = patient.db(at).await;
            for statement in broken {
                db.exec(&patient.filled(statement)).await;
            }
        }
        if case.restart {
            patient.restart("prod");
        }
        patient.configure(case.keys, case.entry);
        // A reload is not seen at once.
        let mut seen = Vec::new();
        let began = tokio::time::Instant::now();
        let found = loop {
            if let Some(found) = finding(patient, case) {
                break found;
            }
            seen.clear();
            seen.extend(patient.checks(case.at));
            assert!(began.elapsed() < LIMIT / 12, "{name} is not found: {seen:#?}");
        };
        let printed = statements(&found);
        let one_of = found["one_of"] == true;
        let db = patient.db(case.at).await;
        for statement in printed.iter().skip(way).take(if one_of { 1 } else { usize::MAX }) {
            db.exec(statement).await;
        }
        drop(db);
        if found["remedy"].as_str().unwrap().contains("restart the server") {
            patient.restart(case.at);
        }
        wait::until(&format!("{name} is mended"), LIMIT / 12, async || finding(patient, case).is_none())
            .await;
        if !one_of || way + 1 == printed.len() {
            break;
        }
    }
}

async fn try_all(cases: &[Case]) {
    let mut patient = Patient::start().await;
    let here = |case: &&Case| case.from <= major() && case.knows.is_none_or(knows);
    for case in cases.iter().filter(here) {
        try_case(&mut patient, case).await;
    }
}

#[tokio::test]
async fn what_a_server_lacks_is_mended_by_what_is_printed() {
    try_all(cases::SERVER).await;
}

#[tokio::test]
async fn what_a_source_lacks_is_mended_by_what_is_printed() {
    try_all(cases::SOURCE).await;
}

#[tokio::test]
async fn what_triggers_and_a_repack_lack_is_mended_by_what_is_printed() {
    try_all(cases::TRIGGERS).await;
}

#[tokio::test]
async fn what_a_target_lacks_is_mended_by_what_is_printed() {
    try_all(cases::TARGET).await;
}

#[tokio::test]
async fn on_amazon_the_services_own_role_is_granted() {
    let patient = Patient::start().await;
    patient.heal().await;
    let db = patient.db("prod").await;
    db.exec("CREATE ROLE rds_superuser; CREATE ROLE rds_replication").await;
    db.exec(&patient.filled("ALTER ROLE {role} NOREPLICATION; CREATE TABLE {t} (id int PRIMARY KEY)")).await;
    patient.configure("capture = \"slot\"", Some("mode = \"dml\""));
    let checks = patient.checks("prod");
    let named = |name: &str| checks.iter().find(|c| c["check"] == name).expect("a check");
    assert_eq!(named("platform")["detail"], "Amazon RDS");
    let printed = statements(named("a slot with pgoutput"));
    assert_eq!(printed.iter().map(|s| shape(s)).collect::<Vec<_>>(), [Some(ELSEWHERE)]);
    db.exec(&printed[0]).await;
    let member = "SELECT count(*) FROM pg_auth_members WHERE roleid = 'rds_replication'::regrole";
    assert_eq!(db.value(member).await, "1");
    // What a plain server sets by a statement is set in a console there.
    assert!(
        checks.iter().all(|c| statements(c).iter().all(|s| !s.starts_with("ALTER SYSTEM"))),
        "{checks:#?}"
    );
}
