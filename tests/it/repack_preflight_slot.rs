//! May the role have a slot? Tried on servers that refuse in different ways.

use std::time::Duration;

use repcloud::capture::auto::Asked;
use repcloud::repack::options::RepackOptions;
use repcloud::repack::preflight::{Severity, check_server, is_refused, server, slot};

use crate::support::cluster::builder;
use crate::support::owner::{Owner, lines};

/// The same, and a slot it must be.
fn by_slot(options: &RepackOptions) -> RepackOptions {
    let mut options = options.clone();
    options.settings.capture.asked = Asked::Slot;
    options
}

#[tokio::test]
async fn a_server_without_room_says_what_is_full() {
    let owner = Owner::over(
        builder("full").setting("max_replication_slots", "1").setting("deadlock_timeout", "200ms"),
    )
    .await;
    let options = by_slot(&owner.options);
    owner.admin.exec("SELECT pg_create_physical_replication_slot('taken')").await;
    let found = check_server(&owner.session, &options).await.unwrap();
    let text = lines(&found);
    assert_eq!(found.len(), 2, "{text:?}");
    assert!(
        text[0].starts_with("Warn limits: server: lock_timeout is 500ms") && text[0].contains("waits 100ms"),
        "{text:?}"
    );
    assert!(text[1].starts_with("Refuse slot: server: every replication slot"), "{text:?}");
    owner.admin.exec("SELECT pg_drop_replication_slot('taken')").await;
    for _ in 0..3 {
        // The one slot there is can be had again at once.
        let found = check_server(&owner.session, &options).await.unwrap();
        assert!(!is_refused(&found), "{:?}", lines(&found));
    }
}

#[tokio::test]
async fn a_server_without_walsenders_or_decoding_says_so() {
    let owner = Owner::over(builder("senders").setting("max_wal_senders", "0")).await;
    let found = check_server(&owner.session, &owner.options).await.unwrap();
    let text = lines(&found);
    assert!(found.len() == 1 && text[0].contains("no replication connection is free"), "{text:?}");

    let owner = Owner::over(builder("replica").setting("wal_level", "replica")).await;
    // Triggers need none of it.
    let found = check_server(&owner.session, &owner.options).await.unwrap();
    assert!(found.len() == 1 && found[0].severity == Severity::Warn, "{:?}", lines(&found));
    let found = check_server(&owner.session, &by_slot(&owner.options)).await.unwrap();
    let text = lines(&found);
    assert!(
        found.len() == 1 && text[0].starts_with("Refuse server: server: wal_level is replica"),
        "{text:?}"
    );
}

#[tokio::test]
async fn a_slot_that_waits_for_a_transaction_names_it_and_leaves_nothing() {
    let owner = Owner::start().await;
    owner.app.exec("CREATE TABLE t (id int)").await;
    let pid = owner.app.value("SELECT pg_backend_pid()").await;
    owner.app.exec("BEGIN; INSERT INTO t VALUES (1)").await;
    let facts = server::read(&owner.session).await.unwrap();
    let limit = Duration::from_millis(700);
    let found = slot::check_within(&owner.session, &owner.options, &facts, limit).await.unwrap();
    let text = lines(&found);
    assert!(found.len() == 1 && found[0].severity == Severity::Warn, "{text:?}");
    assert!(text[0].contains(&format!("pid {pid} of role app (open for")), "{text:?}");
    assert_eq!(owner.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    owner.app.exec("COMMIT").await;
    assert_eq!(slot::check(&owner.session, &owner.options, &facts).await.unwrap(), []);
    assert_eq!(owner.admin.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}
