//! Conditions of a stream by triggers: the source judges the queued images, whatever the table is by now.
//!
//! A queue may have several readers with different conditions, so each asks for itself. Only the columns that a condition speaks of
//! are sent back, as values of the types (and collations) that the table had.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::capture::CaptureError;
use crate::capture::publish::Condition;
use crate::capture::trigger::layout::Layouts;
use crate::capture::trigger::rows::QueueError;
use crate::model::{Change, OldTuple, TableName, Tuple, Value, quote_ident};
use crate::pg::{PgError, Session};

/// A text, as its bytes.
#[derive(Debug)]
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT
    }

    to_sql_checked!();
}

/// The statement that judges rows: a parameter of texts for each column, an answer for each row.
fn statement(table: &TableName, condition: &Condition, types: &[&str]) -> String {
    let numbers = 1..=types.len();
    let parameters: Vec<String> =
        numbers.clone().map(|n| format!("pg_catalog.unnest(${n}::text[])")).collect();
    let names: Vec<String> = numbers.clone().map(|n| format!("c{n}")).collect();
    let columns = condition.columns.iter().zip(types).zip(numbers);
    let columns: Vec<String> =
        columns.map(|((name, of), n)| format!("q.c{n}::{of} AS {}", quote_ident(name))).collect();
    format!(
        "SELECT coalesce((SELECT ({}) FROM (SELECT {}) AS {}), false) \
         FROM ROWS FROM ({}) WITH ORDINALITY AS q ({}, repcloud_row) ORDER BY repcloud_row",
        condition.normalised,
        columns.join(", "),
        quote_ident(&table.table),
        parameters.join(", "),
        names.join(", ")
    )
}

/// The images of a change: of the row before, and after it.
fn images(change: &Change) -> (Option<&Tuple>, Option<&Tuple>) {
    match change {
        Change::Insert { new, .. } => (None, Some(new)),
        Change::Update { old, new, .. } => (old.as_ref().map(OldTuple::tuple), Some(new)),
        Change::Delete { old, .. } => (Some(old.tuple()), None),
        Change::Truncate { .. } => (None, None),
    }
}

/// What the change is for a target that has only rows for which the condition holds: one that leaves it is removed there, one that
/// enters it is new.
fn seen_through(change: Change, before: bool, after: bool) -> Option<Change> {
    Some(match change {
        Change::Update { relation, old: Some(old), .. } if before && !after => {
            Change::Delete { relation, old }
        }
        Change::Update { relation, new, .. } if !before && after => Change::Insert { relation, new },
        Change::Truncate { .. } => change,
        _ if before || after => change,
        _ => return None,
    })
}

/// Leaves of `changes`, all of one table, what the condition lets through; in place of the others stands `None`.
pub(super) async fn judge(
    session: &Session,
    table: &TableName,
    condition: &Condition,
    layouts: &Layouts,
    changes: Vec<Change>,
) -> Result<Vec<Option<Change>>, CaptureError> {
    let mixed = || CaptureError::from(QueueError::Mixed { table: table.clone() });
    let types: Option<Vec<&str>> = condition.columns.iter().map(|name| layouts.type_of(name)).collect();
    let sql = statement(table, condition, &types.ok_or_else(mixed)?);
    let mut columns: Vec<Vec<Option<Text<'_>>>> = condition.columns.iter().map(|_| Vec::new()).collect();
    let mut asked = 0;
    for change in &changes {
        let (before, after) = images(change);
        let (Change::Insert { relation, .. }
        | Change::Update { relation, .. }
        | Change::Delete { relation, .. }) = change
        else {
            continue;
        };
        for image in [before, after].into_iter().flatten() {
            for (name, values) in condition.columns.iter().zip(&mut columns) {
                let value = relation.column_index(name).and_then(|index| image.get(index));
                values.push(match value.ok_or_else(mixed)? {
                    Value::Text(bytes) => Some(Text(bytes)),
                    _ => None,
                });
            }
            asked += 1;
        }
    }
    let held = if columns.is_empty() {
        vec![constant(session, condition).await?; asked]
    } else {
        holds(session, &sql, &columns).await?
    };
    drop(columns);
    let mut held = held.into_iter();
    let mut answer = |image: Option<&Tuple>| image.is_some() && held.next().unwrap_or(false);
    Ok(changes
        .into_iter()
        .map(|change| {
            let (before, after) = images(&change);
            let (before, after) = (answer(before), answer(after));
            seen_through(change, before, after)
        })
        .collect())
}

async fn holds(
    session: &Session,
    sql: &str,
    columns: &[Vec<Option<Text<'_>>>],
) -> Result<Vec<bool>, PgError> {
    if columns.iter().all(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let statement = session.prepared(sql).await?;
    let parameters: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|c| c as &(dyn ToSql + Sync)).collect();
    let rows = session.query(&statement, &parameters).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// A condition that speaks of no column.
async fn constant(session: &Session, condition: &Condition) -> Result<bool, PgError> {
    let sql = format!("SELECT coalesce(({}), false)", condition.normalised);
    Ok(session.query_one(&sql, &[]).await?.try_get(0)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Relation, ReplicaIdentity};

    #[test]
    fn a_row_that_leaves_is_removed_and_one_that_enters_is_new() {
        let relation = Arc::new(Relation {
            oid: 7,
            name: TableName::new("public", "t"),
            identity: ReplicaIdentity::Full,
            columns: Vec::new(),
        });
        let tuple = |text: &'static str| -> Tuple { [Value::Text(text.as_bytes())].into_iter().collect() };
        let update = || Change::Update {
            relation: relation.clone(),
            old: Some(OldTuple::Full(tuple("a"))),
            new: tuple("b"),
        };
        assert_eq!(seen_through(update(), true, true), Some(update()));
        let removed = Change::Delete { relation: relation.clone(), old: OldTuple::Full(tuple("a")) };
        assert_eq!(seen_through(update(), true, false), Some(removed));
        let new = Change::Insert { relation: relation.clone(), new: tuple("b") };
        assert_eq!(seen_through(update(), false, true), Some(new.clone()));
        assert_eq!(seen_through(update(), false, false), None);
        assert_eq!(seen_through(new, false, false), None);
    }

    #[test]
    fn values_are_judged_in_the_types_of_the_table_under_its_name() {
        let condition = Condition {
            sql: String::new(),
            normalised: "(\"Total\" > 5)".to_owned(),
            columns: vec!["Total".to_owned()],
        };
        assert_eq!(
            statement(&TableName::new("public", "Orders"), &condition, &["numeric(10,2)"]),
            "SELECT coalesce((SELECT ((\"Total\" > 5)) FROM (SELECT q.c1::numeric(10,2) AS \"Total\") AS \"Orders\"), false) \
             FROM ROWS FROM (pg_catalog.unnest($1::text[])) WITH ORDINALITY AS q (c1, repcloud_row) ORDER BY repcloud_row"
        );
    }
}
