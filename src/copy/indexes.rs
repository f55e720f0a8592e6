//! The key, the other indexes and the constraints that a target table gets after its rows.
//!
//! A table that is copied again has those of an earlier copy, and its source may be another table under the same name by now. So what is
//! there is told by what it is, not by its name: each statement is run on an empty table of the same columns, in a transaction that is
//! rolled back, and what comes of it is compared with what the target table has.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::catalog::ddl::{Makes, NamedStatement, TargetDdl};
use crate::copy::error::{CopyError, server};
use crate::copy::target::run;
use crate::model::{Oid, TableName, quote_ident};

const LOOKING: &str = "looking at the indexes on the target";

/// What a table has of its own: indexes, and CHECK constraints.
const OWN: &str = "\
SELECT coalesce(o.conname, c.relname)::text AS name, o.oid IS NOT NULL, i.indisprimary,
       coalesce(pg_catalog.pg_get_constraintdef(o.oid), pg_catalog.pg_get_indexdef(i.indexrelid))
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  LEFT JOIN pg_catalog.pg_constraint o ON o.conindid = i.indexrelid AND o.conrelid = i.indrelid AND o.contype IN ('p', 'u', 'x')
 WHERE i.indrelid = $1
 UNION ALL
SELECT o.conname::text, true, false, pg_catalog.pg_get_constraintdef(o.oid) FROM pg_catalog.pg_constraint o
 WHERE o.conrelid = $1 AND o.contype = 'c'
 ORDER BY name";

/// For each index and CHECK constraint of the second table, one of the first that is the same but for its name: method, uniqueness, timing,
/// columns and expressions with their operator classes, collations and order, predicate. A primary key is also a unique index.
const ALIKE: &str = "\
WITH what AS (
    SELECT i.indrelid AS rel, c.relname::text AS name, i.indisprimary AS prim, i.indisvalid AND i.indisready AND i.indislive AS good,
           ROW(c.relam, i.indisunique, i.indisexclusion, i.indimmediate, i.indnkeyatts, i.indclass::text, i.indcollation::text, i.indoption::text,
               to_jsonb(i)->>'indnullsnotdistinct',
               ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnatts::int4) k),
               pg_catalog.pg_get_expr(i.indpred, i.indrelid),
               (SELECT o.conexclop::text FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND o.contype = 'x'))::text AS shape
      FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid IN ($1, $2)
     UNION ALL
    SELECT o.conrelid, o.conname::text, false, true, regexp_replace(pg_catalog.pg_get_constraintdef(o.oid), ' NOT VALID$', '')
      FROM pg_catalog.pg_constraint o WHERE o.conrelid IN ($1, $2) AND o.contype = 'c')
SELECT wanted.name, wanted.prim, min(own.name)
  FROM what wanted
  LEFT JOIN what own ON own.rel = $1 AND own.shape = wanted.shape AND own.good AND (own.prim OR NOT wanted.prim)
 WHERE wanted.rel = $2
 GROUP BY 1, 2";

/// Something of the table's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    name: String,
    /// It is a constraint, or an index that belongs to one.
    constraint: bool,
    primary: bool,
    definition: String,
}

/// Something that the table is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted<'a> {
    statement: &'a NamedStatement,
    primary: bool,
    /// What the table has already of this kind.
    alike: Option<String>,
}

/// Makes the key and the other indexes and constraints, one after the other; what is there already, under whatever name, is left. The rows
/// are there: sorting them once costs less than finding each one's place in the index. Tells what had to get another name, because another
/// relation of the schema bears its own.
pub async fn build_indexes(target: &Client, ddl: &TargetDdl) -> Result<Vec<String>, CopyError> {
    let table = oid(target, &ddl.name).await?;
    let own = read_own(target, &ddl.name, table).await?;
    let mut told = Vec::new();
    for wanted in compare(target, ddl, table, &own).await? {
        if wanted.alike.is_none() {
            let name = build(target, &ddl.name, wanted.statement).await?;
            if name != wanted.statement.name {
                told.push(format!(
                    "target table {}: {} is made as {}, because something else there has that name",
                    ddl.name,
                    quote_ident(&wanted.statement.name),
                    quote_ident(&name)
                ));
            }
        }
    }
    Ok(told)
}

/// Before the rows of a table that we made are copied again: drops the primary key and what bears the name of something that is to be made,
/// where they are another one. The new rows need not hold what they demand. Tells what was dropped.
pub async fn drop_stale(target: &Client, ddl: &TargetDdl) -> Result<Vec<String>, CopyError> {
    let table = oid(target, &ddl.name).await?;
    let own = read_own(target, &ddl.name, table).await?;
    let wanted = compare(target, ddl, table, &own).await?;
    let mut told = Vec::new();
    for Own { name, constraint, definition, .. } in stale(&wanted, &own) {
        let quoted = quote_ident(name);
        let sql = match constraint {
            true => format!("ALTER TABLE {} DROP CONSTRAINT {quoted}", ddl.name),
            false => format!("DROP INDEX {}", TableName::new(&ddl.name.schema, name)),
        };
        run(target, &ddl.name, &sql).await?;
        told.push(format!(
            "target table {}: {quoted} ({definition}) is dropped, because the source has another one",
            ddl.name
        ));
    }
    Ok(told)
}

/// See [`drop_stale`]. Pure.
fn stale<'o>(wanted: &[Wanted<'_>], own: &'o [Own]) -> Vec<&'o Own> {
    let missing = |w: &&Wanted<'_>| w.alike.is_none();
    let needed = |own: &Own| wanted.iter().any(|w| w.alike.as_ref() == Some(&own.name));
    let another = |own: &Own| {
        wanted.iter().filter(missing).any(|w| w.statement.name == own.name || w.primary && own.primary)
    };
    own.iter().filter(|own| another(own) && (own.primary || !needed(own))).collect()
}

/// What bears the name already is the same, as both print it: nothing else is to be asked. Pure.
fn is_printed_alike(own: &Own, wanted: &NamedStatement) -> bool {
    own.name == wanted.name
        && match &wanted.makes {
            Makes::Constraint(definition) => own.constraint && own.definition == *definition,
            Makes::Index { .. } => !own.constraint && own.definition == wanted.sql,
        }
}

async fn oid(target: &Client, table: &TableName) -> Result<Oid, CopyError> {
    let sql = "SELECT $1::text::pg_catalog.regclass::oid";
    let row = target.query_one(sql, &[&table.to_string()]).await.map_err(server(LOOKING, table))?;
    row.try_get(0).map_err(server(LOOKING, table))
}

async fn read_own(target: &Client, name: &TableName, table: Oid) -> Result<Vec<Own>, CopyError> {
    let rows = target.query(OWN, &[&table]).await.map_err(server(LOOKING, name))?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Own {
            name: row.try_get(0)?,
            constraint: row.try_get(1)?,
            primary: row.try_get(2)?,
            definition: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(server(LOOKING, name))
}

/// All that the table is to have, with what it has already.
async fn compare<'d>(
    target: &Client,
    ddl: &'d TargetDdl,
    table: Oid,
    own: &[Own],
) -> Result<Vec<Wanted<'d>>, CopyError> {
    let mut wanted: Vec<Wanted<'d>> = ddl
        .key
        .iter()
        .chain(&ddl.after_rows)
        .map(|statement| {
            let alike = own.iter().find(|own| is_printed_alike(own, statement)).map(|own| own.name.clone());
            Wanted { statement, primary: false, alike }
        })
        .collect();
    if own.is_empty() || wanted.iter().all(|w| w.alike.is_some()) {
        return Ok(wanted);
    }
    run(target, &ddl.name, "BEGIN").await?;
    let tried = try_out(target, ddl, table, &mut wanted).await;
    // The first error tells what happened; when ROLLBACK fails too the connection is gone.
    run(target, &ddl.name, "ROLLBACK").await.and(tried)?;
    Ok(wanted)
}

/// Makes all of it on an empty table, in a transaction that is to be rolled back.
async fn try_out(
    target: &Client,
    ddl: &TargetDdl,
    table: Oid,
    wanted: &mut [Wanted<'_>],
) -> Result<(), CopyError> {
    let name = &ddl.name;
    // In the table's schema: who makes indexes there may make a table there.
    let probe = TableName::new(&name.schema, format!("repcloud_probe_{table}"));
    let made = |number: usize| format!("{}_{number}", probe.table);
    run(target, name, &format!("CREATE TABLE {probe} (LIKE {name})")).await?;
    for (number, wanted) in wanted.iter().enumerate() {
        run(target, name, &wanted.statement.under(&probe, &made(number))).await?;
    }
    let probe_oid = oid(target, &probe).await?;
    let failed = || server(LOOKING, name);
    for row in target.query(ALIKE, &[&table, &probe_oid]).await.map_err(failed())? {
        let found: String = row.try_get(0).map_err(failed())?;
        let Some((_, wanted)) = wanted.iter_mut().enumerate().find(|(number, _)| made(*number) == found)
        else {
            continue;
        };
        wanted.primary = row.try_get(1).map_err(failed())?;
        wanted.alike = row.try_get(2).map_err(failed())?;
    }
    Ok(())
}

/// Builds it under its own name, or another one where that is taken; returns the name.
async fn build(target: &Client, table: &TableName, wanted: &NamedStatement) -> Result<String, CopyError> {
    for name in std::iter::once(wanted.name.clone()).chain(wanted.other_names(table)) {
        if is_taken(target, table, &name).await? {
            continue;
        }
        match run(target, table, &wanted.under(table, &name)).await {
            // Another table's was made just now.
            Err(error) if error.is_duplicate() => {}
            made => return made.map(|()| name),
        }
    }
    // As the server says it.
    run(target, table, &wanted.sql).await.map(|()| wanted.name.clone())
}

/// Another relation of the schema, or another constraint of the table, bears the name.
async fn is_taken(target: &Client, table: &TableName, name: &str) -> Result<bool, CopyError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = t.relnamespace AND relname = $2) \
               OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conrelid = t.oid AND conname = $2) \
               FROM pg_catalog.pg_class t WHERE t.oid = $1::text::pg_catalog.regclass";
    let row = target.query_one(sql, &[&table.to_string(), &name]).await.map_err(server(LOOKING, table))?;
    row.try_get(0).map_err(server(LOOKING, table))
}

impl CopyError {
    fn is_duplicate(&self) -> bool {
        const DUPLICATE: [SqlState; 2] = [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT];
        matches!(self, CopyError::Server { error, .. } if error.code.as_ref().is_some_and(|code| DUPLICATE.contains(code)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str, primary: bool) -> Own {
        Own { name: name.into(), constraint: primary, primary, definition: String::new() }
    }

    fn statement(name: &str) -> NamedStatement {
        let makes = Makes::Constraint("PRIMARY KEY (id)".into());
        NamedStatement { name: name.into(), sql: String::new(), makes }
    }

    #[test]
    fn what_another_source_left_goes_and_what_is_the_same_stays_under_any_name() {
        let (key, index) = (statement("k"), statement("i"));
        let wanted = |alike_key: Option<&str>, alike_index: Option<&str>| {
            vec![
                Wanted { statement: &key, primary: true, alike: alike_key.map(str::to_owned) },
                Wanted { statement: &index, primary: false, alike: alike_index.map(str::to_owned) },
            ]
        };
        let there = [own("p", true), own("i", false), own("theirs", false)];
        for (wanted, expected) in [
            (wanted(Some("p"), Some("i")), &[][..]),
            (wanted(Some("p"), Some("theirs")), &[]),
            (wanted(Some("p"), None), &["i"]),
            (wanted(None, Some("i")), &["p"]),
            (wanted(None, None), &["p", "i"]),
            // The key is needed as a unique index too, and only one key can be.
            (wanted(None, Some("p")), &["p"]),
        ] {
            let names: Vec<&str> = stale(&wanted, &there).iter().map(|own| own.name.as_str()).collect();
            assert_eq!(names, expected, "{wanted:?}");
        }
    }

    #[test]
    fn the_same_under_the_same_name_is_told_without_a_try() {
        let wanted = statement("k");
        let there = Own { definition: "PRIMARY KEY (id)".into(), ..own("k", true) };
        assert!(is_printed_alike(&there, &wanted));
        assert!(!is_printed_alike(&Own { name: "other".into(), ..there.clone() }, &wanted));
        assert!(!is_printed_alike(&Own { definition: "PRIMARY KEY (v)".into(), ..there.clone() }, &wanted));
        assert!(!is_printed_alike(&Own { constraint: false, ..there }, &wanted));
    }
}
