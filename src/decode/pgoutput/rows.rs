//! Reading row changes: the hot path. One allocation a row image (where its columns lie), no value copied.

use bytes::Bytes;

use super::message::Message;
use super::read::xid_prefix;
use crate::decode::cursor::{Cursor, Problem};
use crate::model::tuple::TupleBuilder;
use crate::model::{Oid, OldTuple, Tuple};

pub(super) fn insert(frame: Bytes, at: &mut usize, in_stream: bool) -> Result<Message, Problem> {
    let (xid, relation) = head(&frame, at, in_stream)?;
    match marker(&frame, at)? {
        b'N' => {}
        value => return Err(Problem::Unknown { what: "row marker", value }),
    }
    Ok(Message::Insert { xid, relation, new: last_tuple(frame, at)? })
}

pub(super) fn update(frame: Bytes, at: &mut usize, in_stream: bool) -> Result<Message, Problem> {
    let (xid, relation) = head(&frame, at, in_stream)?;
    let first = marker(&frame, at)?;
    let old = match first {
        b'N' => None,
        b'K' => Some(OldTuple::Key(tuple(frame.clone(), at)?)),
        b'O' => Some(OldTuple::Full(tuple(frame.clone(), at)?)),
        value => return Err(Problem::Unknown { what: "row marker", value }),
    };
    if old.is_some() {
        match marker(&frame, at)? {
            b'N' => {}
            value => return Err(Problem::Unknown { what: "row marker", value }),
        }
    }
    Ok(Message::Update { xid, relation, old, new: last_tuple(frame, at)? })
}

pub(super) fn delete(frame: Bytes, at: &mut usize, in_stream: bool) -> Result<Message, Problem> {
    let (xid, relation) = head(&frame, at, in_stream)?;
    let old = match marker(&frame, at)? {
        b'K' => OldTuple::Key(last_tuple(frame, at)?),
        b'O' => OldTuple::Full(last_tuple(frame, at)?),
        value => return Err(Problem::Unknown { what: "row marker", value }),
    };
    Ok(Message::Delete { xid, relation, old })
}

#[inline]
fn head(frame: &[u8], at: &mut usize, in_stream: bool) -> Result<(Option<u32>, Oid), Problem> {
    let mut cursor = Cursor::new(frame, *at);
    let xid = xid_prefix(&mut cursor, in_stream)?;
    let relation = cursor.oid("relation oid")?;
    *at = cursor.position();
    Ok((xid, relation))
}

#[inline]
fn marker(frame: &[u8], at: &mut usize) -> Result<u8, Problem> {
    let mut cursor = Cursor::new(frame, *at);
    let marker = cursor.u8("row marker")?;
    *at = cursor.position();
    Ok(marker)
}

/// The row image that ends the message.
#[inline]
fn last_tuple(frame: Bytes, at: &mut usize) -> Result<Tuple, Problem> {
    let length = frame.len();
    let tuple = tuple(frame, at)?;
    match length - *at {
        0 => Ok(tuple),
        left => Err(Problem::Trailing(left)),
    }
}

/// A row image at `at` of `frame`, which becomes its buffer.
#[inline]
fn tuple(frame: Bytes, at: &mut usize) -> Result<Tuple, Problem> {
    let mut cursor = Cursor::new(&frame, *at);
    let count = usize::from(cursor.u16("number of columns")?);
    // A column takes at least its kind's letter.
    let count = cursor.count(count, 1, "number of columns")?;
    *at = cursor.position();
    let mut builder = TupleBuilder::over(frame, count);
    for _ in 0..count {
        let mut cursor = Cursor::new(builder.data(), *at);
        let kind = cursor.u8("column kind")?;
        match kind {
            b't' | b'b' => {
                let length = cursor.length("column length")?;
                let start = cursor.position();
                // The length was checked against the frame; only PostgreSQL's own 1 GB limit can fail here.
                let added =
                    if kind == b't' { builder.text(start, length) } else { builder.binary(start, length) };
                added.map_err(|_| Problem::TooLarge("column length"))?;
                *at = start + length;
            }
            b'n' => {
                builder.null();
                *at += 1;
            }
            b'u' => {
                builder.unchanged();
                *at += 1;
            }
            value => return Err(Problem::Unknown { what: "column kind", value }),
        }
    }
    Ok(builder.finish())
}
