//! Rows → the bytes of statement parameters and of COPY data. Pure.

use bytes::{BufMut, Bytes, BytesMut};

use crate::apply::row::Row;
use crate::model::Value;

/// `text`'s oid, the element type of every parameter.
const TEXT_OID: u32 = 25;

/// A value arrived in binary form, which text parameters cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value arrived in binary form although text was asked for")]
pub struct BinaryValueError;

/// One parameter: a `text[]` in PostgreSQL's binary array format (array_recv), ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextArray(Bytes);

impl TextArray {
    /// An array of one element per value; `Unchanged` must have been sorted out before and becomes NULL only where
    /// the statement does not read it.
    pub fn of<'v>(values: impl ExactSizeIterator<Item = Value<'v>>) -> Result<Self, BinaryValueError> {
        let count = values.len();
        let mut out = BytesMut::with_capacity(20 + count * 16);
        out.put_i32(i32::from(count > 0)); // dimensions; array_recv wants 0 for an empty array
        out.put_i32(1); // may hold NULLs
        out.put_u32(TEXT_OID);
        if count > 0 {
            out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
            out.put_i32(1); // lower bound
        }
        for value in values {
            match value {
                Value::Text(bytes) => {
                    // Below 1 GB by the protocol.
                    out.put_i32(bytes.len() as i32);
                    out.put_slice(bytes);
                }
                Value::Null | Value::Unchanged => out.put_i32(-1),
                Value::Binary(_) => return Err(BinaryValueError),
            }
        }
        Ok(TextArray(out.freeze()))
    }

    /// Column `column` of `rows`.
    pub fn column(rows: &[&Row<'_>], column: u16) -> Result<Self, BinaryValueError> {
        TextArray::of(rows.iter().map(|row| row.value(column)))
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The elements, for tests that execute plans in memory.
    #[cfg(test)]
    pub(crate) fn elements(&self) -> Vec<Option<String>> {
        let mut rest = self.0.get(20..).unwrap_or_default();
        let mut out = Vec::new();
        while rest.len() >= 4 {
            let len = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            rest = &rest[4..];
            out.push((len >= 0).then(|| {
                let (value, tail) = rest.split_at(len as usize);
                rest = tail;
                String::from_utf8_lossy(value).into_owned()
            }));
        }
        out
    }

    /// Never: even an array without elements has a header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The rows as data of `COPY … FROM STDIN` in text format.
pub fn copy_text(rows: &[&Row<'_>], columns: &[u16]) -> Result<Bytes, BinaryValueError> {
    let mut out = Vec::with_capacity(rows.len() * columns.len() * 12);
    for row in rows {
        for (i, &column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b'\t');
            }
            match row.value(column) {
                Value::Text(bytes) => escape_into(&mut out, bytes),
                Value::Null | Value::Unchanged => out.extend_from_slice(b"\\N"),
                Value::Binary(_) => return Err(BinaryValueError),
            }
        }
        out.push(b'\n');
    }
    Ok(out.into())
}

/// COPY's text format escapes the delimiter, line ends and the backslash (documentation of COPY, "File Formats").
fn escape_into(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        let special = bytes.iter().position(|b| matches!(b, b'\\' | b'\t' | b'\n' | b'\r'));
        let Some(at) = special else {
            out.extend_from_slice(bytes);
            return;
        };
        out.extend_from_slice(&bytes[..at]);
        out.push(b'\\');
        out.push(match bytes[at] {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            other => other,
        });
        bytes = &bytes[at + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_text_escapes_what_would_end_a_value_or_a_row() {
        let mut out = Vec::new();
        escape_into(&mut out, b"a\tb\\c\nd\re\\N");
        assert_eq!(out, b"a\\tb\\\\c\\nd\\re\\\\N");
    }

    #[test]
    fn arrays_carry_null_and_empty_apart() {
        let array = TextArray::of([Value::Text(b""), Value::Null, Value::Text(b"x")].into_iter()).unwrap();
        let tail = &array.0[20..];
        assert_eq!(tail, b"\0\0\0\0\xff\xff\xff\xff\0\0\0\x01x");
        assert_eq!(TextArray::of([].into_iter()).unwrap().0.len(), 12);
        assert!(TextArray::of([Value::Binary(b"x")].into_iter()).is_err());
    }
}
