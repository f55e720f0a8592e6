//! Columns of a message, and the row image they make.

use bytes::Bytes;
use smallvec::SmallVec;

use super::json::{Json, Scalar, unescape};
use super::shape::{Places, Sent};
use crate::decode::cursor::Problem;
use crate::model::tuple::{OwnedTupleBuilder, TupleBuilder};
use crate::model::{Oid, Tuple, Value};

/// `bytea`: wal2json writes it as hexadecimal digits without their `\x`.
const BYTEA: Oid = 17;

const WHAT: &str = "a column";

/// Columns with where their values are in the frame.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) sent: SmallVec<[Sent<'a>; 16]>,
    pub(super) values: SmallVec<[Scalar; 16]>,
}

/// `[{"name":…,"typeoid":…,"value":…,"position":…},…]`.
pub(super) fn columns<'a>(json: &mut Json<'a>) -> Result<Columns<'a>, Problem> {
    let mut columns = Columns::default();
    json.expect(b'[')?;
    let mut more = json.any(b']')?;
    while more {
        column(json, &mut columns)?;
        more = json.more(b']')?;
    }
    Ok(columns)
}

fn column<'a>(json: &mut Json<'a>, columns: &mut Columns<'a>) -> Result<(), Problem> {
    let (mut name, mut type_oid, mut value, mut attnum) = (None, None, None, None);
    json.expect(b'{')?;
    let mut more = json.any(b'}')?;
    while more {
        match json.key()? {
            b"name" => name = Some(json.text_of("a column's name")?),
            b"typeoid" => {
                // Printed as a signed number by some versions.
                let number = json.number("a column's type")?;
                let signed = i32::try_from(number).map(i32::cast_unsigned);
                type_oid = signed.or_else(|_| Oid::try_from(number)).ok();
            }
            b"value" => value = Some(json.scalar()?),
            b"position" => attnum = i16::try_from(json.number("a column's position")?).ok(),
            _ => json.skip()?,
        }
        more = json.more(b'}')?;
    }
    let (Some(name), Some(type_oid), Some(value)) = (name, type_oid, value) else {
        return Err(Problem::Truncated(WHAT));
    };
    columns.sent.push(Sent { name, type_oid, attnum });
    columns.values.push(value);
    Ok(())
}

impl Columns<'_> {
    /// The value of the sent column `index` can only be told by new bytes.
    fn needs_bytes(&self, index: usize) -> bool {
        match self.values.get(index) {
            Some(Scalar::Text(text)) => {
                text.escaped || self.sent.get(index).is_some_and(|s| s.type_oid == BYTEA)
            }
            _ => false,
        }
    }

    /// The row image: what is not sent is `left_out`. Values stay places in `frame` where no byte of them changes.
    pub(super) fn tuple(
        &self,
        frame: &Bytes,
        places: &Places,
        left_out: Value<'_>,
    ) -> Result<Tuple, Problem> {
        let some = |place: &Option<u16>| place.map(usize::from);
        if places.iter().filter_map(some).any(|index| self.needs_bytes(index)) {
            return self.owned(frame, places, left_out);
        }
        let mut builder = TupleBuilder::over(frame.clone(), places.len());
        for place in places {
            let added = match some(place).and_then(|index| self.values.get(index)) {
                None if left_out == Value::Unchanged => {
                    builder.unchanged();
                    Ok(())
                }
                None | Some(Scalar::Null) => {
                    builder.null();
                    Ok(())
                }
                Some(Scalar::Bool { start }) => builder.text(*start, 1),
                Some(Scalar::Number { start, end }) => builder.text(*start, end - start),
                Some(Scalar::Text(text)) => builder.text(text.start, text.end - text.start),
            };
            added.map_err(|_| Problem::TooLarge(WHAT))?;
        }
        Ok(builder.finish())
    }

    fn owned(&self, frame: &[u8], places: &Places, left_out: Value<'_>) -> Result<Tuple, Problem> {
        let mut builder = OwnedTupleBuilder::with_capacity(places.len());
        let slice = |start: usize, end: usize| frame.get(start..end).ok_or(Problem::TooLarge(WHAT));
        for place in places {
            let Some(index) = place.map(usize::from) else {
                builder.push(left_out);
                continue;
            };
            match self.values.get(index) {
                None | Some(Scalar::Null) => builder.push(Value::Null),
                Some(Scalar::Bool { start }) => builder.push(Value::Text(slice(*start, start + 1)?)),
                Some(Scalar::Number { start, end }) => builder.push(Value::Text(slice(*start, *end)?)),
                Some(Scalar::Text(text)) => {
                    let raw = slice(text.start, text.end)?;
                    if self.sent.get(index).is_some_and(|s| s.type_oid == BYTEA) {
                        builder.push(Value::Text(&[b"\\x", raw].concat()));
                    } else if text.escaped {
                        builder.push(Value::Text(&unescape(raw, WHAT)?));
                    } else {
                        builder.push(Value::Text(raw));
                    }
                }
            }
        }
        Ok(builder.finish())
    }

    /// The frame's bytes of a sent value, to compare two values that were written by the same hand.
    pub(super) fn written<'f>(&self, frame: &'f [u8], index: usize) -> Option<&'f [u8]> {
        match self.values.get(index)? {
            Scalar::Null => Some(b"null"),
            Scalar::Bool { start } => frame.get(*start..start + 1),
            Scalar::Number { start, end } => frame.get(*start..*end),
            Scalar::Text(text) => frame.get(text.start..text.end),
        }
    }
}
