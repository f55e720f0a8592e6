//! What is asked of a repack that is not finished, and of a role that may not begin one.

use super::{Capture, LIMIT, Live};

const S3: &str = "CREATE TABLE s3 (id int PRIMARY KEY, v text); CREATE INDEX s3_v ON s3 (v); \
    INSERT INTO s3 SELECT i, 'v' || i FROM generate_series(1, 500) i; ANALYZE";
const T: [&str; 2] = ["--table", "public.s3"];

#[tokio::test]
async fn a_dry_run_says_that_it_is_gone_on_with() {
    for capture in [Capture::Pgoutput, Capture::Trigger] {
        let live = Live::by(capture, S3, "").await;
        live.command("prepare", &T).0.expect_code(0);
        for (changed, wanted) in
            [("SELECT", "or `repcloud swap"), ("ALTER TABLE s3 ADD w int", "begins anew")]
        {
            live.owner.exec(changed).await;
            let (finished, dry) = live.repack(&[&T[..], &["--dry-run"]].concat());
            finished.expect_code(0);
            let findings = dry[0]["findings"].as_array().unwrap();
            let said = findings.iter().find(|finding| finding["check"] == "unfinished").unwrap();
            let problem = said["problem"].as_str().unwrap();
            assert!(
                problem.contains("in state verified") && problem.contains(wanted),
                "{capture:?}: {problem}"
            );
            assert!(
                findings.iter().all(|finding| finding["severity"] == "warn"),
                "{capture:?}: {findings:?}"
            );
            assert!(dry[0]["lock"]["statements"].as_u64() > Some(0), "{dry:?}");
        }
        assert_eq!(live.state().await, "verified");
    }
}

#[tokio::test]
async fn another_capture_is_refused_like_other_changed_options() {
    let live = Live::new(S3, "").await;
    for (begun, other) in [("trigger", "slot"), ("slot", "trigger")] {
        let (with, against) = (format!("--capture={begun}"), format!("--capture={other}"));
        live.command("prepare", &[&T[..], &[with.as_str()]].concat()).0.expect_code(0);
        let (refused, reports) = live.repack(&[&T[..], &[against.as_str()]].concat());
        refused.expect_code(3);
        let reason = reports[0]["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("begun with --capture {begun}")), "{reason}");
        assert_eq!(live.state().await, "verified");
        live.repack(&T).0.expect_code(0);
        live.assert_clean().await;
    }
}

#[tokio::test]
async fn verify_says_what_became_of_the_table() {
    let live = Live::new(S3, "").await;
    live.command("prepare", &T).0.expect_code(0);
    live.owner.exec("ALTER TABLE s3 RENAME TO s3x").await;
    let verify = ["verify", "--connection", "live", "--table", "public.s3"];
    let told = live.program.run(&verify, LIMIT);
    let said = format!("{}{}", told.stdout, told.stderr);
    assert!(said.contains("the table is public.s3x now"), "{told:?}");
    assert_eq!(live.state().await, "verified", "looking removes nothing");
    live.owner.exec("DROP TABLE s3x").await;
    let told = live.program.run(&verify, LIMIT);
    let said = format!("{}{}", told.stdout, told.stderr);
    assert!(said.contains("the table was dropped"), "{told:?}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_the_grants_that_help() {
    let live = Live::new(S3, "").await;
    live.admin.exec("REVOKE CREATE ON DATABASE app FROM app").await;
    let grant = "GRANT CREATE ON DATABASE app TO app";
    let told = live.program.run(&["prepare", "--table", "public.s3"], LIMIT).expect_code(3);
    assert!(told.stdout.contains(grant) && !told.stdout.contains('…'), "{told:?}");
    let create = |grant: &'static str| {
        let told = live.program.run(&["create-schema"], LIMIT).expect_code(3);
        assert!(told.stderr.contains(grant), "{told:?}");
        live.admin.exec(grant)
    };
    create(grant).await;
    live.admin.exec("CREATE SCHEMA repcloud").await;
    create("GRANT postgres TO app").await;
    live.admin.exec("REVOKE postgres FROM app; GRANT USAGE ON SCHEMA repcloud TO app").await;
    create("GRANT USAGE, CREATE ON SCHEMA repcloud TO app").await;
    live.program.run(&["create-schema"], LIMIT).expect_code(0);
}
