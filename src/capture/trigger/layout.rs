//! What ticks say of a captured table, and how the rows between two of them are read. Pure.
//!
//! A queued row does not say which columns the table had when it was written. Both ticks do: where the columns changed between
//! them, rows of before and after are told apart by the number of their fields, or, where that does not do, not at all.

use std::collections::BTreeMap;

use crate::capture::trigger::rows::{QueueError, QueueRow, QueueTable};
use crate::model::{Change, Oid, TableName};

/// A table as one tick shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Shape {
    /// The live columns, in order.
    pub(super) columns: Vec<ShapeColumn>,
    /// The highest number that a column ever had.
    pub(super) last: i16,
    /// Our triggers, with the transaction that touched each last.
    pub(super) triggers: String,
}

/// A live column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(super) struct ShapeColumn {
    pub(super) number: i16,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_oid: Oid,
    #[serde(rename = "modifier")]
    pub(super) type_modifier: i32,
    /// The type as SQL writes it, with the collation where it is not the default.
    #[serde(rename = "sql")]
    pub(super) type_sql: String,
    pub(super) generated: bool,
}

impl ShapeColumn {
    /// The same column with the same values, whatever it is called.
    fn is_like(&self, other: &ShapeColumn) -> bool {
        let of = |c: &ShapeColumn| (c.number, c.type_oid, c.type_modifier, c.generated);
        of(self) == of(other)
    }
}

impl Shape {
    fn column(&self, number: i16) -> Option<&ShapeColumn> {
        self.columns.iter().find(|c| c.number == number)
    }
}

/// What the text of a tick says of each table; nothing where it cannot be read.
pub(super) fn shapes(text: &str) -> BTreeMap<Oid, Shape> {
    let read: BTreeMap<String, Shape> = serde_json::from_str(text).unwrap_or_default();
    read.into_iter().filter_map(|(oid, shape)| Some((oid.parse().ok()?, shape))).collect()
}

/// How one table's rows of a batch are read.
#[derive(Debug, Clone)]
pub(super) struct Layouts {
    /// As the table is behind the batch.
    now: QueueTable,
    /// As its rows may be, in this order; none: they cannot be told apart.
    ways: Vec<QueueTable>,
}

impl Layouts {
    /// Of a table that does not change.
    pub(super) fn one(table: QueueTable) -> Self {
        Layouts { ways: vec![table.clone()], now: table }
    }

    /// Of the batch between two ticks.
    pub(super) fn between(table: (Oid, &TableName), before: &Shape, now: &Shape) -> Self {
        let of = |shape: &Shape| QueueTable::of_shape(table.0, table.1, shape);
        if before.columns == now.columns {
            return Layouts::one(of(now));
        }
        let ways = match changed(before, now) {
            Changed::Names => vec![of(before)],
            Changed::Number => vec![of(before), of(now)],
            Changed::Unclear => Vec::new(),
        };
        Layouts { now: of(now), ways }
    }

    /// The type of a column, as SQL writes it.
    pub(super) fn type_of(&self, column: &str) -> Option<&str> {
        std::iter::once(&self.now).chain(&self.ways).find_map(|way| way.type_of(column))
    }

    /// The change that a row tells of.
    pub(super) fn change(&self, row: &QueueRow<'_>) -> Result<Change, QueueError> {
        if row.op == b'T' {
            return self.now.change(row);
        }
        for way in &self.ways {
            match way.change(row) {
                Err(QueueError::Reshaped { .. }) => {}
                read => return read,
            }
        }
        Err(QueueError::Mixed { table: self.now.name().clone() })
    }
}

/// What became of the columns between two ticks.
enum Changed {
    /// They were renamed: the text of a row stays the same.
    Names,
    /// Some were added, or some dropped, so that the number of fields tells rows of before and after apart.
    Number,
    /// Else.
    Unclear,
}

fn changed(before: &Shape, now: &Shape) -> Changed {
    let kept = before.columns.iter().filter_map(|c| Some((c, now.column(c.number)?)));
    let (mut both, mut alike) = (0, true);
    for (old, new) in kept {
        both += 1;
        alike &= old.is_like(new);
    }
    let (gone, added) = (before.columns.len() - both, now.columns.len() - both);
    // One that came and went in between would look like one that stayed.
    let came = usize::try_from(i32::from(now.last) - i32::from(before.last)).unwrap_or(usize::MAX);
    match (alike && came == added, gone, added) {
        (true, 0, 0) => Changed::Names,
        (true, 0, 1..) | (true, 1.., 0) => Changed::Number,
        _ => Changed::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: QueueRow<'static> = QueueRow { seq: 1, op: b'I', old: None, new: None };

    fn shape(last: i16, columns: &[(i16, &str, Oid)]) -> Shape {
        let column = |&(number, name, type_oid): &(i16, &str, Oid)| ShapeColumn {
            number,
            name: name.to_owned(),
            type_oid,
            type_modifier: -1,
            type_sql: "text".to_owned(),
            generated: false,
        };
        Shape { columns: columns.iter().map(column).collect(), last, triggers: String::new() }
    }

    /// The columns under which the row `text` is read.
    fn names(before: &Shape, now: &Shape, text: &'static str) -> Option<Vec<String>> {
        let name = TableName::new("public", "t");
        let layouts = Layouts::between((7, &name), before, now);
        match layouts.change(&QueueRow { new: Some(text.as_bytes()), ..ROW }) {
            Ok(Change::Insert { relation, .. }) => {
                Some(relation.columns.iter().map(|c| c.name.clone()).collect())
            }
            Err(QueueError::Mixed { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    fn list(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn rows_of_before_and_after_an_added_or_dropped_column_are_told_apart() {
        let (one, two) = (shape(1, &[(1, "a", 25)]), shape(2, &[(1, "a", 25), (2, "b", 25)]));
        assert_eq!(names(&one, &two, "(x)"), list(&["a"]));
        assert_eq!(names(&one, &two, "(x,y)"), list(&["a", "b"]));
        let dropped = shape(2, &[(1, "a", 25)]);
        assert_eq!(names(&two, &dropped, "(x,y)"), list(&["a", "b"]));
        assert_eq!(names(&two, &dropped, "(x)"), list(&["a"]));
        let three = shape(3, &[(1, "a", 25), (2, "b", 25), (3, "c", 25)]);
        assert_eq!(names(&one, &three, "(x,y)"), None, "between two statements");
    }

    #[test]
    fn what_the_number_of_fields_does_not_tell_is_not_guessed() {
        let one = shape(1, &[(1, "a", 25)]);
        assert_eq!(names(&one, &shape(1, &[(1, "a", 23)]), "(1)"), None, "another type");
        assert_eq!(names(&one, &shape(2, &[(2, "a", 25)]), "(1)"), None, "dropped and added");
        let came_and_went = shape(3, &[(1, "a", 25), (3, "c", 25)]);
        assert_eq!(names(&one, &came_and_went, "(x,y)"), None);
        assert_eq!(names(&one, &shape(1, &[(1, "b", 25)]), "(1)"), list(&["a"]), "renamed");
    }

    #[test]
    fn a_truncate_needs_no_columns() {
        let name = TableName::new("public", "t");
        let (before, now) = (shape(1, &[(1, "a", 25)]), shape(1, &[(1, "a", 23)]));
        let layouts = Layouts::between((7, &name), &before, &now);
        let read = layouts.change(&QueueRow { op: b'T', ..ROW });
        assert!(matches!(read, Ok(Change::Truncate { .. })), "{read:?}");
    }

    #[test]
    fn a_tick_of_another_format_tells_nothing() {
        assert!(shapes("7 1 a 23 -1; x").is_empty());
        let text = r#"{"7": {"columns": [{"number": 1, "name": "a", "type": 23, "modifier": -1, "sql": "integer", "generated": false}], "last": 1, "triggers": "x"}}"#;
        assert_eq!(shapes(text)[&7].columns[0].name, "a");
    }
}
