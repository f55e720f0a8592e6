//! `cleanup_nulls` and `remove_keys` on a real server: what they take out, of which types, and by whom they are refused.

use repcloud::catalog::{TableDef, read_table};
use repcloud::repack::cleanup::Cleanup;
use repcloud::repack::options::{TableRules, TableSettings};
use repcloud::repack::preflight::{check_table, is_refused};

use crate::support::owner::{Owner, lines};

fn settings(nulls: &[&str], keys: &[(&str, &[&str])]) -> TableSettings {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    TableSettings {
        fillfactor: None,
        cleanup_nulls: owned(nulls),
        remove_keys: keys.iter().map(|(column, keys)| ((*column).to_owned(), owned(keys))).collect(),
    }
}

async fn definition(owner: &Owner, table: &str) -> TableDef {
    read_table(&owner.session, &owner.table(table).await.name).await.unwrap().unwrap()
}

/// As jsonb has it: the order of keys says nothing.
#[track_caller]
fn same(text: &str, json: &str) {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parsed(text), parsed(json));
}

#[tokio::test]
async fn copied_and_replayed_rows_lose_the_same() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE DOMAIN doc AS jsonb; \
             CREATE TABLE t (id int PRIMARY KEY, j json, b jsonb, d doc, \"Odd name\" jsonb, plain jsonb); \
             CREATE TABLE copied (LIKE t); CREATE TABLE replayed (LIKE t)",
        )
        .await;
    let definition = definition(&owner, "t").await;
    let rules =
        settings(&["j", "b", "d"], &[("b", &["gone", "it's"]), ("Odd name", &["gone", "back\\slash"])]);
    let (cleanup, findings) = Cleanup::plan(&definition, &rules);
    assert!(findings.is_empty(), "{:?}", lines(&findings));
    let document = r#"{"a": null, "gone": 1, "it''s": 2, "back\\slash": 3, "deep": {"gone": 4, "n": null}, "list": [null, {"n": null}, "gone"]}"#;
    owner
        .app
        .exec(&format!(
            "INSERT INTO t VALUES (1, '{document}', '{document}', '{document}', '{document}', '{document}'), \
             (2, 'null', 'null', NULL, '\"gone\"', 'null'), (3, '[null]', '[\"gone\", null]', '7', '[\"gone\"]', '7'), \
             (4, NULL, NULL, NULL, NULL, NULL)"
        ))
        .await;
    let columns = ["id", "j", "b", "d", "Odd name", "plain"];
    owner
        .app
        .exec(&format!("INSERT INTO copied SELECT {} FROM t", cleanup.select_list(&columns, "t.")))
        .await;
    // As the applier sends it: texts, cast to their types.
    let types = ["int4", "json", "jsonb", "jsonb", "jsonb", "jsonb"];
    let replayed: Vec<String> = columns
        .iter()
        .zip(types)
        .enumerate()
        .map(|(at, (column, sql))| cleanup.expression(column, &format!("v.c{at}::{sql}")))
        .collect();
    owner
        .app
        .exec(&format!(
            "INSERT INTO replayed SELECT {} FROM (SELECT id::text, j::text, b::text, d::text, \"Odd name\"::text, \
             plain::text FROM t) AS v (c0, c1, c2, c3, c4, c5)",
            replayed.join(", ")
        ))
        .await;
    assert_eq!(owner.app.table_hash("copied").await, owner.app.table_hash("replayed").await);
    let rows = owner.app.query_text("SELECT * FROM copied ORDER BY id").await;
    let texts = |row: usize| rows[row].iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>();
    let stripped =
        r#"{"gone": 1, "it's": 2, "back\\slash": 3, "deep": {"gone": 4}, "list": [null, {}, "gone"]}"#;
    same(texts(0)[1], stripped);
    same(texts(0)[2], r#"{"back\\slash": 3, "deep": {"gone": 4}, "list": [null, {}, "gone"]}"#);
    same(texts(0)[3], stripped);
    same(
        texts(0)[4],
        r#"{"a": null, "it's": 2, "deep": {"gone": 4, "n": null}, "list": [null, {"n": null}, "gone"]}"#,
    );
    same(texts(0)[5], &document.replace("''", "'"));
    assert_eq!(texts(1), ["2", "null", "null", "NULL", "\"gone\"", "null"]);
    assert_eq!(texts(2), ["3", "[null]", "[\"gone\", null]", "7", "[\"gone\"]", "7"]);
    assert_eq!(texts(3)[1..], ["NULL"; 5]);
    // Once is enough: a row that has been cleaned stays as it is.
    owner
        .app
        .exec(&format!(
            "CREATE TABLE again (LIKE t); INSERT INTO again SELECT {} FROM copied t",
            cleanup.select_list(&columns, "t.")
        ))
        .await;
    assert_eq!(owner.app.table_hash("again").await, owner.app.table_hash("copied").await);
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_by_name() {
    let owner = Owner::start().await;
    owner
        .app
        .exec(
            "CREATE TABLE t (id int PRIMARY KEY, j json, v text, list jsonb[], \
             g jsonb GENERATED ALWAYS AS ('{}'::jsonb) STORED); \
             CREATE TABLE keyed (doc jsonb PRIMARY KEY, v jsonb); \
             CREATE TABLE whole (id int, doc jsonb); ALTER TABLE whole REPLICA IDENTITY FULL; \
             CREATE TABLE fully (id int PRIMARY KEY, doc jsonb); ALTER TABLE fully REPLICA IDENTITY FULL",
        )
        .await;
    for (table, rules, problem) in [
        ("t", settings(&["missing"], &[]), "cleanup_nulls names column missing, which it does not have"),
        ("t", settings(&["v"], &[]), "cleanup_nulls is for json and jsonb, and column v is text"),
        ("t", settings(&["list"], &[]), "column list is jsonb[]"),
        ("t", settings(&[], &[("j", &["k"])]), "remove_keys is for jsonb, and column j is json"),
        ("t", settings(&["g"], &[]), "column g, which is generated"),
        ("keyed", settings(&["doc"], &[]), "column doc, by which its rows are found"),
        ("whole", settings(&["doc"], &[]), "without a key are found by all their columns"),
    ] {
        let (cleanup, findings) = Cleanup::plan(&definition(&owner, table).await, &rules);
        assert!(cleanup.is_empty() && is_refused(&findings), "{problem}");
        assert!(findings.len() == 1 && findings[0].problem.contains(problem), "{:?}", lines(&findings));
    }
    let (cleanup, findings) = Cleanup::plan(&definition(&owner, "fully").await, &settings(&["doc"], &[]));
    assert!(cleanup.touches("doc") && findings.is_empty());
    // Pre-flight says all of it.
    let table = owner.table("t").await;
    let mut options = owner.options.clone();
    options.rules = TableRules {
        tables: [(table.name.clone(), settings(&["missing", "v"], &[]))].into(),
        ..TableRules::default()
    };
    let found = check_table(&owner.session, &options, &table).await.unwrap();
    assert_eq!(found.iter().filter(|finding| finding.check == "cleanup").count(), 2, "{:?}", lines(&found));
}
