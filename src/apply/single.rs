//! One change as statements of its own: row-by-row replay, and what cannot be reduced. Pure.

use std::borrow::Cow;

use crate::apply::encode::{BinaryValueError, TextArray};
use crate::apply::plan::{PlanError, Step};
use crate::apply::route::{Binding, Delivery, Route, RouteId};
use crate::apply::row::{Row, complete_new};
use crate::model::{Change, OldTuple, PgTimestamp, Tuple, Value};
use crate::sql::shape::Shape;

/// Seconds from the Unix epoch to 2000-01-01, PostgreSQL's.
const PG_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// A stamp as PostgreSQL reads it whatever DateStyle is.
pub(crate) fn stamp_text(at: PgTimestamp) -> String {
    let unix = at.0.saturating_add(PG_EPOCH_UNIX_MICROS);
    // Commit times lie in jiff's range (years -9999 to 9999); an impossible one becomes the epoch rather than a panic.
    jiff::Timestamp::from_microsecond(unix).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// `count` times the same stamp.
pub(crate) fn stamp_array(at: PgTimestamp, count: usize) -> Result<TextArray, BinaryValueError> {
    let text = stamp_text(at);
    TextArray::of((0..count).map(|_| Value::Text(text.as_bytes())))
}

/// The steps of `change` for one route.
pub(crate) fn steps(
    id: RouteId,
    route: &Route,
    binding: &Binding,
    change: &Change,
    at: PgTimestamp,
) -> Result<Vec<Step>, PlanError> {
    let row = |tuple: &'_ Tuple| -> Row<'_> { Row::new(Cow::Owned(tuple.clone()), binding) };
    let single = Single { id, route, at };
    match change {
        Change::Insert { new, .. } => single.insert(&row(new)),
        Change::Delete { old, .. } if route.shape.key.is_empty() => match old {
            OldTuple::Full(old) => single.whole(&row(old), None),
            OldTuple::Key(_) => Err(PlanError::NoIdentity(route.source.clone())),
        },
        Change::Delete { old, .. } => single.delete(&row(old.tuple())),
        Change::Update { relation, old, new } => {
            let new = Row::new(complete_new(relation, old.as_ref(), new), binding);
            match old {
                Some(OldTuple::Full(old)) if route.shape.key.is_empty() => {
                    single.whole(&row(old), Some(&new))
                }
                _ if route.shape.key.is_empty() => Err(PlanError::NoIdentity(route.source.clone())),
                Some(old) => single.update(&row(old.tuple()), &new),
                None => single.update(&new, &new),
            }
        }
        Change::Truncate { .. } => Ok(Vec::new()),
    }
}

/// How a row that is missing or in the way is made what the source row is.
pub(crate) struct Overwrite {
    /// Rows of the old and the new key go, where they are.
    pub(crate) clear: Vec<Step>,
    /// The row as the source has it.
    pub(crate) insert: Vec<Step>,
}

/// See [`Overwrite`]; `None` where nothing remains to be done (a deleted row that is not there) or the whole row is not
/// known (an untouched TOAST value was not sent).
pub(crate) fn overwrite(
    id: RouteId,
    route: &Route,
    binding: &Binding,
    change: &Change,
    at: PgTimestamp,
) -> Result<Option<Overwrite>, PlanError> {
    let single = Single { id, route, at };
    let (old, new) = match change {
        Change::Insert { new, .. } => (None, Cow::Borrowed(new)),
        Change::Update { relation, old, new } => (old.as_ref(), complete_new(relation, old.as_ref(), new)),
        Change::Delete { .. } | Change::Truncate { .. } => return Ok(None),
    };
    let new = Row::new(new, binding);
    if !new.is_complete() || route.shape.key.is_empty() {
        return Ok(None);
    }
    let mut clear = single.delete(&new)?;
    if let Some(old) = old {
        let old = Row::new(Cow::Borrowed(old.tuple()), binding);
        if !old.same_key(&new, &route.shape.key) {
            clear.extend(single.delete(&old)?);
        }
    }
    Ok(Some(Overwrite { clear, insert: single.insert(&new)? }))
}

struct Single<'r> {
    id: RouteId,
    route: &'r Route,
    at: PgTimestamp,
}

impl Single<'_> {
    fn step(&self, shape: Shape, params: Vec<TextArray>) -> Step {
        Step::Rows { route: self.id, shape, rows: 1, params }
    }

    fn arrays(row: &Row<'_>, columns: &[u16]) -> Result<Vec<TextArray>, BinaryValueError> {
        columns.iter().map(|&c| TextArray::of(std::iter::once(row.value(c)))).collect()
    }

    /// The stamp parameter where the table has one.
    fn stamp(&self, params: &mut Vec<TextArray>, stamped: bool) -> Result<(), BinaryValueError> {
        if self.route.delivery == Delivery::LogDel {
            params.push(match stamped {
                true => stamp_array(self.at, 1)?,
                false => TextArray::of(std::iter::once(Value::Null))?,
            });
        }
        Ok(())
    }

    fn insert(&self, row: &Row<'_>) -> Result<Vec<Step>, PlanError> {
        let columns = row.columns_with_value(&[]);
        let mut params = Self::arrays(row, &columns)?;
        self.stamp(&mut params, false)?;
        Ok(vec![self.step(Shape::Insert(columns), params)])
    }

    fn delete(&self, old: &Row<'_>) -> Result<Vec<Step>, PlanError> {
        let mut params = Self::arrays(old, &self.route.shape.key)?;
        self.stamp(&mut params, true)?;
        Ok(vec![self.step(Shape::Delete, params)])
    }

    fn update(&self, old: &Row<'_>, new: &Row<'_>) -> Result<Vec<Step>, PlanError> {
        let key = &self.route.shape.key;
        let same_key = old.same_key(new, key);
        let mut params = Self::arrays(old, key)?;
        if same_key {
            let columns = new.columns_with_value(key);
            params.extend(Self::arrays(new, &columns)?);
            self.stamp(&mut params, false)?;
            return Ok(vec![self.step(Shape::Update(columns), params)]);
        }
        let columns = new.columns_with_value(&[]);
        if self.route.delivery == Delivery::LogDel {
            // The old row is stamped first: it may hold a value of a unique index on live rows that the new one needs.
            let mut steps = self.delete(old)?;
            params.extend(Self::arrays(new, &columns)?);
            steps.push(self.step(Shape::InsertFromOld(columns), params));
            return Ok(steps);
        }
        if self.route.identity_always_key {
            let values = Self::arrays(new, &columns)?;
            let new = columns.into_iter().zip(values).collect();
            return Ok(vec![Step::ReadAndReplace { route: self.id, key: params, new }]);
        }
        params.extend(Self::arrays(new, &columns)?);
        Ok(vec![self.step(Shape::UpdateKey(columns), params)])
    }

    /// A row of a table without a key; deleted when there is no new one.
    fn whole(&self, old: &Row<'_>, new: Option<&Row<'_>>) -> Result<Vec<Step>, PlanError> {
        let all: Vec<u16> = (0..self.route.shape.columns.len() as u16).collect();
        let mut params = Self::arrays(old, &all)?;
        let Some(new) = new else {
            return Ok(vec![self.step(Shape::DeleteWhole, params)]);
        };
        let columns = new.columns_with_value(&[]);
        params.extend(Self::arrays(new, &columns)?);
        Ok(vec![self.step(Shape::UpdateWhole(columns), params)])
    }
}
