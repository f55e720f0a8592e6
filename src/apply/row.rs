//! A source row seen through a binding: target column → value. Pure.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use crate::apply::route::Binding;
use crate::model::{OldTuple, Relation, Tuple, Value};

/// A row image and the binding that says where the target's columns are found in it.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    tuple: Cow<'a, Tuple>,
    binding: &'a Binding,
}

impl<'a> Row<'a> {
    /// A row over a borrowed or a merged image.
    pub fn new(tuple: Cow<'a, Tuple>, binding: &'a Binding) -> Self {
        Row { tuple, binding }
    }

    /// The value of a target column; `Unchanged` for one that the source does not send.
    pub fn value(&self, column: u16) -> Value<'_> {
        self.binding.source_index(column).and_then(|i| self.tuple.get(i)).unwrap_or(Value::Unchanged)
    }

    /// The target columns that hold a value (or NULL), without those of `except`.
    pub fn columns_with_value(&self, except: &[u16]) -> Vec<u16> {
        let present = self.binding.present.iter().copied().filter(|c| !except.contains(c));
        if self.tuple.has_unchanged() {
            present.filter(|&c| self.value(c) != Value::Unchanged).collect()
        } else {
            present.collect()
        }
    }

    /// True when every column the source sends holds a value.
    pub fn is_complete(&self) -> bool {
        !self.tuple.has_unchanged() || self.binding.present.iter().all(|&c| self.value(c) != Value::Unchanged)
    }

    /// True when the source sends every column that the target gets from it. One that it sends no more is kept on the
    /// target, so the row must be changed in place there.
    pub fn covers(&self, target_columns: usize) -> bool {
        self.binding.present.len() == target_columns
    }

    /// This row with the columns it does not hold taken from `older`. Only for rows of one description.
    pub fn over(self, older: &Row<'_>) -> Row<'a> {
        if self.tuple.has_unchanged() {
            let merged = self.tuple.filled_from(&older.tuple);
            Row { tuple: Cow::Owned(merged), binding: self.binding }
        } else {
            self
        }
    }

    /// True when both rows' columns lie at the same places, so that one can fill the other.
    pub fn same_layout(&self, other: &Row<'_>) -> bool {
        std::ptr::eq(self.binding, other.binding) || self.binding == other.binding
    }

    /// True when the key's bytes are equal.
    pub fn same_key(&self, other: &Row<'_>, key: &[u16]) -> bool {
        key.iter().all(|&c| self.value(c) == other.value(c))
    }

    /// Hash of the key's bytes.
    pub fn key_hash(&self, key: &[u16], state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        for &column in key {
            match self.value(column) {
                Value::Text(bytes) | Value::Binary(bytes) => {
                    hasher.write_usize(bytes.len());
                    hasher.write(bytes);
                }
                Value::Null | Value::Unchanged => hasher.write_usize(usize::MAX),
            }
        }
        hasher.finish()
    }
}

/// The new image of an update with every column that the old image can supply filled in: all of them with
/// REPLICA IDENTITY FULL (untouched TOAST values arrive as unchanged even then), the identity's otherwise.
pub fn complete_new<'a>(relation: &Relation, old: Option<&'a OldTuple>, new: &'a Tuple) -> Cow<'a, Tuple> {
    if !new.has_unchanged() {
        return Cow::Borrowed(new);
    }
    match old {
        None => Cow::Borrowed(new),
        Some(OldTuple::Full(old)) => Cow::Owned(new.filled_from(old)),
        Some(OldTuple::Key(old)) => Cow::Owned(
            new.values()
                .enumerate()
                .map(|(i, value)| match value {
                    Value::Unchanged if relation.columns.get(i).is_some_and(|c| c.in_identity) => {
                        old.get(i).unwrap_or(Value::Unchanged)
                    }
                    value => value,
                })
                .collect(),
        ),
    }
}
