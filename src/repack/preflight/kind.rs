//! What kind of table it is: only a permanent, ordinary table (or partition) can be rebuilt beside itself.

use super::finding::Finding;
use crate::capture::auto::Way;
use crate::model::TableName;
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::select::TableFacts;

const CHECK: &str = "kind";

const SHAPE: &str = "\
SELECT t.typname::text, coalesce(am.amname::text, 'heap'),
       (SELECT string_agg(e.extname::text, ', ')
          FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
           AND d.refclassid = 'pg_extension'::regclass)
  FROM pg_class c
  LEFT JOIN pg_type t ON t.oid = c.reloftype
  LEFT JOIN pg_am am ON am.oid = c.relam
 WHERE c.oid = $1";

/// What the catalogs say beside [`TableFacts`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shape {
    of_type: Option<String>,
    access_method: String,
    extension: Option<String>,
}

/// Refuses what cannot be rebuilt, when changes are read in one of these ways.
pub async fn check(session: &Session, table: &TableFacts, ways: &[Way]) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "the kind of a table";
    let found = rows(session, WHAT, SHAPE, &[&table.oid]).await?;
    let Some(row) = found.first() else {
        return Ok(vec![Finding::refuse(CHECK, &table.name, "it has just been dropped")]);
    };
    let shape = Shape {
        of_type: cell(row, 0, WHAT)?,
        access_method: cell(row, 1, WHAT)?,
        extension: cell(row, 2, WHAT)?,
    };
    Ok(judge(table, &shape, ways))
}

fn judge(table: &TableFacts, shape: &Shape, ways: &[Way]) -> Vec<Finding> {
    let name = &table.name;
    let other = match table.kind {
        'r' => None,
        'p' => Some("it is partitioned and holds no rows of its own; its partitions are repacked"),
        'f' => Some("it is a foreign table, its rows are elsewhere"),
        'v' => Some("it is a view, which has no rows"),
        'm' => {
            Some("it is a materialized view; REFRESH MATERIALIZED VIEW CONCURRENTLY and VACUUM rebuild it")
        }
        _ => Some("it is not a table"),
    };
    if let Some(problem) = other {
        return vec![Finding::refuse(CHECK, name, problem)];
    }
    let mut findings = Vec::new();
    let mut refuse = |problem: String| findings.push(Finding::refuse(CHECK, name, problem));
    match table.persistence {
        'u' if ways == [Way::Triggers] => {}
        'u' => refuse("it is unlogged, so no slot sees its changes".to_owned()),
        't' => refuse("it is temporary, another session cannot read it".to_owned()),
        _ => {}
    }
    if let Some(of_type) = &shape.of_type {
        refuse(format!("it is a table OF type {of_type}, and its copy would not be"));
    }
    if shape.access_method != "heap" {
        refuse(format!("its access method is {}, only heap can be copied by pages", shape.access_method));
    }
    if let Some(extension) = &shape.extension {
        refuse(format!("it belongs to extension {extension}, which would lose it"));
    }
    if is_ours(name) {
        refuse("it is in a schema of ours or of the server".to_owned());
    }
    if table.persistence == 'u' {
        let remedy = format!(
            "set capture = \"trigger\"; or ALTER TABLE {name} SET LOGGED, which rewrites it, and so removes its bloat at once"
        );
        findings = findings.into_iter().map(|finding| finding.help(remedy.clone())).collect();
    }
    findings
}

fn is_ours(name: &TableName) -> bool {
    matches!(
        name.schema.as_str(),
        "repcloud" | "repcloud_new" | "repcloud_old" | "pg_catalog" | "information_schema"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Plugin;
    use crate::repack::select::tests::table;

    #[test]
    fn a_plain_table_has_no_finding_and_every_other_kind_has_one() {
        let heap = || Shape { access_method: "heap".into(), ..Shape::default() };
        let plain = table("t", None);
        let ways = [Way::Slot(Plugin::Pgoutput), Way::Triggers];
        let judge_ways = judge;
        let judge = |table: &TableFacts, shape: &Shape| judge_ways(table, shape, &ways);
        assert_eq!(judge(&plain, &heap()), []);
        for (kind, word) in [('p', "partitioned"), ('f', "foreign"), ('v', "view"), ('m', "REFRESH")] {
            let findings = judge(&TableFacts { kind, ..plain.clone() }, &heap());
            assert!(findings.len() == 1 && findings[0].problem.contains(word), "{findings:?}");
        }
        let some = |text: &str| Some(text.to_owned());
        for (shape, word) in [
            (Shape { of_type: some("y"), ..heap() }, "OF type y"),
            (Shape { access_method: "columnar".into(), ..heap() }, "columnar"),
            (Shape { extension: some("e"), ..heap() }, "extension e"),
        ] {
            let findings = judge(&plain, &shape);
            assert!(findings.len() == 1 && findings[0].problem.contains(word), "{findings:?}");
        }
        let table = TableFacts { persistence: 'u', ..plain.clone() };
        assert_eq!(judge_ways(&table, &heap(), &[Way::Triggers]), [], "triggers see an unlogged table");
        let unlogged = judge(&table, &heap());
        assert!(
            unlogged[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("SET LOGGED")),
            "{unlogged:?}"
        );
    }
}
