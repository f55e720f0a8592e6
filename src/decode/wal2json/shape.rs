//! What a table looks like while its changes are read.
//!
//! wal2json names a row's columns but never says which columns a table has: a column that an update leaves out is a large
//! value it did not touch, or a column that is gone, or one that was not there yet. So the decoder is told the tables of
//! its stream as the catalogs have them, follows what inserts show, and believes a left-out column to be untouched only
//! where its type can be stored outside the row.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{Oid, Relation, RelationColumn};

/// A table of the stream as the source's catalogs have it when the stream is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTable {
    /// Its columns in order, without those that are computed.
    pub relation: Relation,
    /// Of each column of `relation`: what a stream of wal2json needs besides.
    pub details: Vec<ColumnDetail>,
    /// Computed columns, which wal2json sends and pgoutput does not: they are left out.
    pub generated: Vec<String>,
    /// Only its inserts are wanted.
    pub insert_only: bool,
}

/// See [`KnownTable::details`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDetail {
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// A large value may lie outside the row (`attlen = -1`), so an update may leave the column out.
    pub may_be_left_out: bool,
}

/// One column as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) type_oid: Oid,
    /// `None` in an old row: wal2json says it of new rows alone.
    pub(super) attnum: Option<i16>,
}

/// A table and the columns its last change showed.
#[derive(Debug)]
pub(super) struct Shape {
    known: KnownTable,
    pub(super) relation: Arc<Relation>,
    details: Vec<ColumnDetail>,
    /// The assembler has been given `relation`.
    pub(super) told: bool,
}

/// For each column of the shape: which of the sent columns it is; `None`: not sent.
pub(super) type Places = smallvec::SmallVec<[Option<u16>; 16]>;

impl Shape {
    pub(super) fn new(known: KnownTable) -> Self {
        let relation = Arc::new(known.relation.clone());
        Shape { details: known.details.clone(), relation, known, told: false }
    }

    pub(super) fn insert_only(&self) -> bool {
        self.known.insert_only
    }

    fn is_generated(&self, name: &str) -> bool {
        self.known.generated.iter().any(|g| g == name)
    }

    /// Where a new row's columns belong. The shape changes when they tell that it is another; `complete` rows (inserts)
    /// hold every column.
    pub(super) fn place_new(&mut self, sent: &[Sent<'_>], complete: bool) -> Places {
        if let Some(places) = self.places(sent, complete) {
            return places;
        }
        self.learn(sent, complete);
        // Now every sent column has its place.
        self.places(sent, false).unwrap_or_default()
    }

    /// Where the columns belong, if they are of this shape. Both are in the order of their numbers.
    fn places(&self, sent: &[Sent<'_>], complete: bool) -> Option<Places> {
        let mut places = Places::with_capacity(self.details.len());
        let mut next = 0;
        for (column, detail) in self.relation.columns.iter().zip(&self.details) {
            while sent.get(next).is_some_and(|s| self.is_generated(&s.name)) {
                next += 1;
            }
            let fits = |s: &Sent<'_>| {
                s.name == column.name
                    && s.type_oid == column.type_oid
                    && s.attnum.is_none_or(|n| n == detail.attnum)
            };
            if sent.get(next).is_some_and(fits) {
                places.push(u16::try_from(next).ok());
                next += 1;
            } else if !complete && detail.may_be_left_out {
                places.push(None);
            } else {
                return None;
            }
        }
        let rest = sent.get(next..).unwrap_or_default();
        rest.iter().all(|s| self.is_generated(&s.name)).then_some(places)
    }

    /// Takes over the columns that a new row shows.
    fn learn(&mut self, sent: &[Sent<'_>], complete: bool) {
        let mut columns: Vec<(RelationColumn, ColumnDetail)> = Vec::with_capacity(sent.len());
        for s in sent.iter().filter(|s| !self.is_generated(&s.name)) {
            columns.push(self.column(s));
        }
        if !complete {
            for (column, detail) in self.relation.columns.iter().zip(&self.details) {
                let replaced = |(c, d): &(RelationColumn, ColumnDetail)| {
                    c.name == column.name || d.attnum == detail.attnum
                };
                if detail.may_be_left_out && !columns.iter().any(replaced) {
                    columns.push((column.clone(), *detail));
                }
            }
            columns.sort_by_key(|(_, detail)| detail.attnum);
        }
        let (columns, details) = columns.into_iter().unzip();
        self.details = details;
        self.describe(columns);
    }

    /// A sent column, with what the catalogs say of the column of this number, or of this name.
    fn column(&self, sent: &Sent<'_>) -> (RelationColumn, ColumnDetail) {
        let known = || self.known.relation.columns.iter().zip(&self.known.details);
        let found = known()
            .find(|(_, detail)| sent.attnum == Some(detail.attnum))
            .or_else(|| known().find(|(column, _)| sent.name == column.name));
        // The stream does not tell modifiers: where the type is the catalogs', so is the modifier.
        let same_type = found.filter(|(column, _)| column.type_oid == sent.type_oid);
        let column = RelationColumn {
            name: sent.name.clone().into_owned(),
            type_oid: sent.type_oid,
            type_modifier: same_type.map_or(-1, |(column, _)| column.type_modifier),
            in_identity: found.is_some_and(|(column, _)| column.in_identity),
        };
        let attnum = sent.attnum.or(found.map(|(_, detail)| detail.attnum)).unwrap_or(i16::MAX);
        let may_be_left_out = same_type.is_none_or(|(_, detail)| detail.may_be_left_out);
        (column, ColumnDetail { attnum, may_be_left_out })
    }

    fn describe(&mut self, columns: Vec<RelationColumn>) {
        self.relation = Arc::new(Relation { columns, ..(*self.relation).clone() });
        self.told = false;
    }

    /// Where an old row's columns belong: found by name. Key columns that bear a name from before a renaming are taken for
    /// the key columns whose names are missing, where number and types agree; whatever else is unknown becomes a column of
    /// the shape, so that the applier sees that the table has changed.
    pub(super) fn place_old(&mut self, sent: &[Sent<'_>]) -> Places {
        let wanted: Vec<&Sent<'_>> = sent.iter().filter(|s| !self.is_generated(&s.name)).collect();
        let unknown: Vec<&Sent<'_>> =
            wanted.iter().copied().filter(|s| self.relation.column_index(&s.name).is_none()).collect();
        if !unknown.is_empty() {
            self.learn_old(&wanted, &unknown);
        }
        let place = |c: &RelationColumn| {
            sent.iter().position(|s| s.name == c.name).and_then(|i| u16::try_from(i).ok())
        };
        self.relation.columns.iter().map(place).collect()
    }

    fn learn_old(&mut self, wanted: &[&Sent<'_>], unknown: &[&Sent<'_>]) {
        let mut columns = self.relation.columns.clone();
        let missing: Vec<usize> = columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.in_identity && !wanted.iter().any(|s| s.name == c.name))
            .map(|(index, _)| index)
            .collect();
        let same_types = missing.len() == unknown.len()
            && missing.iter().zip(unknown).all(|(&i, s)| columns[i].type_oid == s.type_oid);
        for (index, s) in unknown.iter().enumerate() {
            match missing.get(index) {
                Some(&place) if same_types => columns[place].name = s.name.clone().into_owned(),
                _ => {
                    let (column, detail) = self.column(s);
                    columns.push(column);
                    self.details.push(detail);
                }
            }
        }
        self.describe(columns);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{ReplicaIdentity, TableName};

    /// `id` int, `t` text, `n` int.
    pub(in crate::decode::wal2json) fn known() -> KnownTable {
        let column = |name: &str, type_oid, in_identity| RelationColumn {
            name: name.into(),
            type_oid,
            type_modifier: -1,
            in_identity,
        };
        let detail = |attnum, may_be_left_out| ColumnDetail { attnum, may_be_left_out };
        KnownTable {
            relation: Relation {
                oid: 7,
                name: TableName::new("public", "t"),
                identity: ReplicaIdentity::Default,
                columns: vec![column("id", 23, true), column("t", 25, false), column("n", 23, false)],
            },
            details: vec![detail(1, false), detail(2, true), detail(4, false)],
            generated: vec!["g".into()],
            insert_only: false,
        }
    }

    fn sent(list: &[(&'static str, Oid, i16)]) -> Vec<Sent<'static>> {
        list.iter()
            .map(|&(name, type_oid, attnum)| Sent { name: name.into(), type_oid, attnum: Some(attnum) })
            .collect()
    }

    fn names(shape: &Shape) -> Vec<&str> {
        shape.relation.columns.iter().map(|c| c.name.as_str()).collect()
    }

    #[test]
    fn a_left_out_large_value_is_untouched_and_computed_columns_are_left_out() {
        let mut shape = Shape::new(known());
        let row = sent(&[("id", 23, 1), ("g", 23, 3), ("n", 23, 4)]);
        assert_eq!(shape.place_new(&row, false).as_slice(), [Some(0), None, Some(2)]);
        assert_eq!(names(&shape), ["id", "t", "n"]);
    }

    #[test]
    fn an_insert_shows_every_column_there_is() {
        let mut shape = Shape::new(known());
        assert_eq!(
            shape.place_new(&sent(&[("id", 23, 1), ("n", 23, 4)]), true).as_slice(),
            [Some(0), Some(1)]
        );
        assert_eq!(names(&shape), ["id", "n"]);
        let row = sent(&[("id", 23, 1), ("t", 25, 2), ("n", 23, 4), ("new", 20, 5)]);
        shape.place_new(&row, true);
        assert_eq!(names(&shape), ["id", "t", "n", "new"]);
    }

    #[test]
    fn a_left_out_number_is_a_column_that_is_gone() {
        let mut shape = Shape::new(known());
        shape.place_new(&sent(&[("id", 23, 1), ("t", 25, 2)]), false);
        assert_eq!(names(&shape), ["id", "t"]);
        assert!(!shape.told);
    }

    #[test]
    fn a_renamed_column_keeps_its_number_and_takes_the_place_of_the_other_name() {
        let mut shape = Shape::new(known());
        let places = shape.place_new(&sent(&[("id", 23, 1), ("before", 25, 2), ("n", 23, 4)]), false);
        assert_eq!(
            (names(&shape), places.as_slice()),
            (vec!["id", "before", "n"], &[Some(0), Some(1), Some(2)][..])
        );
        shape.place_new(&sent(&[("id", 23, 1), ("t", 25, 2), ("n", 23, 4)]), false);
        assert_eq!(names(&shape), ["id", "t", "n"]);
    }

    #[test]
    fn an_old_row_under_a_former_key_name_is_the_key_all_the_same() {
        let mut shape = Shape::new(known());
        let row = [Sent { name: "former".into(), type_oid: 23, attnum: None }];
        assert_eq!(shape.place_old(&row).as_slice(), [Some(0), None, None]);
        assert_eq!(names(&shape), ["former", "t", "n"]);
        let strange = [Sent { name: "strange".into(), type_oid: 25, attnum: None }];
        shape.place_old(&strange);
        assert_eq!(names(&shape), ["former", "t", "n", "strange"]);
    }

    #[test]
    fn another_type_is_another_shape_with_the_modifier_unknown() {
        let mut shape = Shape::new(known());
        shape.place_new(&sent(&[("id", 20, 1), ("t", 25, 2), ("n", 23, 4)]), false);
        let id = &shape.relation.columns[0];
        assert_eq!((id.type_oid, id.type_modifier, id.in_identity), (20, -1, true));
    }
}
