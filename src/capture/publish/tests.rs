//! What needs no server: versions and kinds of tables that a test server of one version cannot show.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::{ColumnDef, IdentityKind, IndexDef};
use crate::model::ReplicaIdentity;

fn column(name: &str, generated: Option<&str>) -> ColumnDef {
    ColumnDef {
        name: name.into(),
        attnum: 1,
        type_modifier: -1,
        type_oid: 23,
        type_sql: "integer".into(),
        input_type_sql: "integer".into(),
        has_equality: true,
        collation: None,
        not_null: true,
        default: None,
        generated: generated.map(str::to_owned),
        identity: IdentityKind::None,
    }
}

fn unique_index(name: &str, column: &str, primary: bool) -> IndexDef {
    IndexDef {
        name: name.into(),
        definition: String::new(),
        unique: true,
        primary,
        exclusion: false,
        replica_identity: false,
        immediate: true,
        valid: true,
        columns: vec![Some(column.into())],
        predicate: None,
        referenced: vec![column.into()],
    }
}

fn table(name: &str) -> TableDef {
    TableDef {
        oid: 20_000,
        name: TableName::new("s", name),
        kind: TableKind::Ordinary,
        persistence: 'p',
        owner: "app".into(),
        columns: vec![column("id", None), column("v", None), column("g", Some("v * 2"))],
        indexes: vec![unique_index("pk", "id", true)],
        constraints: vec![],
        identity: ReplicaIdentity::Default,
        triggers: vec![],
        row_security: (false, false),
        leaves: vec![],
        pages: 0,
        estimated_rows: -1.0,
    }
}

fn wanted(table: TableDef) -> WantedTable {
    WantedTable { table, leaves: vec![], condition: None, columns: None, key: None, insert_only: false }
}

fn source(version: i32) -> SourceFacts {
    SourceFacts {
        version,
        role: "rc".into(),
        database: "shop".into(),
        may_replicate: true,
        replication_role: None,
        may_create: true,
        wal_level: "logical".into(),
        slots: (10, 0),
        wal_senders: (10, 0),
    }
}

fn found(version: i32, wanted: &[WantedTable]) -> Vec<Finding> {
    plan("p", &source(version), &BTreeMap::new(), wanted, &[]).err().unwrap_or_default()
}

#[test]
fn both_publications_are_made_even_when_one_is_empty() {
    let plan = plan("p", &source(150_000), &BTreeMap::new(), &[wanted(table("Order"))], &[]).unwrap();
    assert_eq!(plan.publications, ["p", "p_ins"]);
    assert_eq!(
        plan.statements,
        [
            "CREATE PUBLICATION p FOR TABLE ONLY s.\"Order\" WITH \
             (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)",
            "CREATE PUBLICATION p_ins WITH (publish = 'insert', publish_via_partition_root = false)",
        ]
    );
}

#[test]
fn what_is_no_table_of_the_application_is_refused() {
    let with = |change: &dyn Fn(&mut TableDef)| {
        let mut table = table("t");
        change(&mut table);
        found(150_000, &[wanted(table)])
    };
    for letter in ['v', 'm', 'f', 'S', 't'] {
        assert_eq!(with(&|t| t.kind = TableKind::Other(letter)).len(), 1, "{letter}");
    }
    assert_eq!(with(&|t| t.oid = 1259)[0].problem, "system tables are not replicated");
    assert_eq!(with(&|t| t.persistence = 't').len(), 1);
    assert_eq!(with(&|t| t.persistence = 'u')[0].statements, ["ALTER TABLE s.t SET LOGGED"]);
    let mut leaf = table("leaf");
    leaf.kind = TableKind::Other('f');
    let mut root = wanted(table("root"));
    root.table.kind = TableKind::Partitioned;
    root.leaves = vec![leaf];
    let findings = found(150_000, &[root]);
    assert!(findings.iter().any(|f| f.problem.starts_with("a partition of s.root")), "{findings:?}");
}

#[test]
fn version_14_has_no_row_filters() {
    let mut table = wanted(table("t"));
    let condition =
        Condition { sql: "id > 0".into(), normalised: "(id > 0)".into(), columns: vec!["id".into()] };
    table.condition = Some(condition);
    assert!(found(140_000, std::slice::from_ref(&table))[0].problem.contains("PostgreSQL 14"));
    assert_eq!(found(150_000, &[table]), []);
}

#[test]
fn generated_columns_do_not_identify_rows() {
    let mut by_generated = table("t");
    by_generated.indexes[0].columns = vec![Some("g".into())];
    by_generated.indexes.push(unique_index("by_v", "v", false));
    let findings = found(150_000, &[wanted(by_generated)]);
    assert_eq!(findings[0].statements[0], "ALTER TABLE s.t REPLICA IDENTITY USING INDEX by_v");

    let mut full = table("t");
    full.identity = ReplicaIdentity::Full;
    assert_eq!(found(170_000, &[wanted(full.clone())]), []);
    let findings = found(180_000, &[wanted(full)]);
    assert_eq!(findings[0].statements, ["ALTER TABLE s.t REPLICA IDENTITY DEFAULT"]);
}

#[test]
fn findings_read_as_one_line_with_their_statements() {
    let finding = Finding::new(&TableName::new("s", "T"), "no key").help("A").help("B");
    assert_eq!(finding.to_string(), "table s.\"T\": no key; run: A; or: B;");
}

#[test]
fn managed_services_give_replication_by_a_role() {
    let mut facts = source(150_000);
    facts.may_replicate = false;
    assert_eq!(check_source(&facts, 1)[0].statements, ["ALTER ROLE rc REPLICATION"]);
    facts.replication_role = Some("rds_replication".into());
    assert_eq!(check_source(&facts, 1)[0].statements, ["GRANT rds_replication TO rc"]);
    facts.wal_level = "replica".into();
    facts.may_create = false;
    assert_eq!(check_source(&facts, 1).len(), 2);
    let refused = plan("p", &facts, &BTreeMap::new(), &[], &[]).unwrap_err();
    assert_eq!(refused[0].statements, ["GRANT CREATE ON DATABASE shop TO rc"]);
}
