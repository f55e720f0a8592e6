//! Row images as the source sent them.

use std::fmt;

use bytes::Bytes;

/// One column of a row image, borrowed from its [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// An out-of-line (TOAST) value that the statement did not touch and the source therefore did not send.
    /// It is neither NULL nor a value: it must be absent from every statement.
    Unchanged,
    /// The type's text form, as the source's output function wrote it.
    Text(&'a [u8]),
    /// The type's binary form, as the source's send function wrote it.
    Binary(&'a [u8]),
}

/// Values are never shown: a row's content must not reach a log.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("Null"),
            Value::Unchanged => f.write_str("Unchanged"),
            Value::Text(v) => write!(f, "Text({} bytes)", v.len()),
            Value::Binary(v) => write!(f, "Binary({} bytes)", v.len()),
        }
    }
}

/// Where a column's bytes lie in the tuple's buffer; the two top bits of `tagged_len` say which [`Value`] it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    tagged_len: u32,
}

const TAG_SHIFT: u32 = 30;
const LEN_MASK: u32 = (1 << TAG_SHIFT) - 1;
const TAG_TEXT: u32 = 0;
const TAG_BINARY: u32 = 1;
const TAG_NULL: u32 = 2;
const TAG_UNCHANGED: u32 = 3;

/// A row image: one shared buffer and where each column lies in it, 8 bytes a column.
///
/// Decoders keep the received frame as the buffer, so a value is never copied on its way through.
#[derive(Clone)]
pub struct Tuple {
    data: Bytes,
    spans: Box<[Span]>,
}

impl Tuple {
    /// Number of columns.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True for a row of a table without columns.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The value of column `index` (from 0); `None` past the last one.
    pub fn get(&self, index: usize) -> Option<Value<'_>> {
        let span = self.spans.get(index)?;
        let bytes = || {
            let start = span.start as usize;
            // In bounds by construction (`TupleBuilder`); an empty slice rather than a panic if that were broken.
            self.data.get(start..start + (span.tagged_len & LEN_MASK) as usize).unwrap_or_default()
        };
        Some(match span.tagged_len >> TAG_SHIFT {
            TAG_TEXT => Value::Text(bytes()),
            TAG_BINARY => Value::Binary(bytes()),
            TAG_NULL => Value::Null,
            _ => Value::Unchanged,
        })
    }

    /// All values in column order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        (0..self.len()).map(|i| self.get(i).unwrap_or(Value::Null))
    }

    /// True when some column was not sent ([`Value::Unchanged`]).
    pub fn has_unchanged(&self) -> bool {
        self.spans.iter().any(|s| s.tagged_len >> TAG_SHIFT == TAG_UNCHANGED)
    }

    /// Bytes of column data this tuple refers to (memory accounting, not exact).
    pub fn data_len(&self) -> usize {
        self.spans
            .iter()
            .filter(|s| s.tagged_len >> TAG_SHIFT <= TAG_BINARY)
            .map(|s| (s.tagged_len & LEN_MASK) as usize)
            .sum()
    }

    /// This image with every unchanged column taken from `older`, the image of the same row before it.
    /// A column unchanged in both stays unchanged.
    pub fn filled_from(&self, older: &Tuple) -> Tuple {
        if !self.has_unchanged() {
            return self.clone();
        }
        let mut builder = OwnedTupleBuilder::with_capacity(self.len());
        for (index, value) in self.values().enumerate() {
            builder.push(match value {
                Value::Unchanged => older.get(index).unwrap_or(Value::Unchanged),
                value => value,
            });
        }
        builder.finish()
    }
}

impl PartialEq for Tuple {
    fn eq(&self, other: &Self) -> bool {
        self.values().eq(other.values())
    }
}

impl Eq for Tuple {}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

/// A column's bytes lie outside the buffer, or are longer than PostgreSQL's 1 GB limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a column's bytes lie outside its row image")]
pub struct SpanError;

/// Builds a [`Tuple`] over a buffer that is already there (a received frame): zero copy.
#[derive(Debug)]
pub struct TupleBuilder {
    data: Bytes,
    spans: Vec<Span>,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.tagged_len & LEN_MASK)
    }
}

impl TupleBuilder {
    /// Starts a row image whose values lie in `data`.
    pub fn over(data: Bytes, columns: usize) -> Self {
        TupleBuilder { data, spans: Vec::with_capacity(columns) }
    }

    /// The buffer the values lie in.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Adds a NULL.
    pub fn null(&mut self) {
        self.spans.push(Span { start: 0, tagged_len: TAG_NULL << TAG_SHIFT });
    }

    /// Adds a value that was not sent.
    pub fn unchanged(&mut self) {
        self.spans.push(Span { start: 0, tagged_len: TAG_UNCHANGED << TAG_SHIFT });
    }

    /// Adds a text value that lies at `start..start + len` of the buffer.
    pub fn text(&mut self, start: usize, len: usize) -> Result<(), SpanError> {
        self.bytes(TAG_TEXT, start, len)
    }

    /// Adds a binary value that lies at `start..start + len` of the buffer.
    pub fn binary(&mut self, start: usize, len: usize) -> Result<(), SpanError> {
        self.bytes(TAG_BINARY, start, len)
    }

    fn bytes(&mut self, tag: u32, start: usize, len: usize) -> Result<(), SpanError> {
        let end = start.checked_add(len).ok_or(SpanError)?;
        if end > self.data.len() || len > LEN_MASK as usize {
            return Err(SpanError);
        }
        let start = u32::try_from(start).map_err(|_| SpanError)?;
        self.spans.push(Span { start, tagged_len: tag << TAG_SHIFT | len as u32 });
        Ok(())
    }

    /// The finished row image.
    pub fn finish(self) -> Tuple {
        Tuple { data: self.data, spans: self.spans.into_boxed_slice() }
    }
}

/// Builds a [`Tuple`] with a buffer of its own, by copying values.
#[derive(Debug, Default)]
pub struct OwnedTupleBuilder {
    data: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedTupleBuilder {
    /// Starts a row image of `columns` columns.
    pub fn with_capacity(columns: usize) -> Self {
        OwnedTupleBuilder { data: Vec::new(), spans: Vec::with_capacity(columns) }
    }

    /// Adds a value. Row images stay far below 4 GB because PostgreSQL limits a row's wire form to 1 GB.
    pub fn push(&mut self, value: Value<'_>) {
        let start = self.data.len() as u32;
        let (tag, bytes): (u32, &[u8]) = match value {
            Value::Null => (TAG_NULL, &[]),
            Value::Unchanged => (TAG_UNCHANGED, &[]),
            Value::Text(bytes) => (TAG_TEXT, bytes),
            Value::Binary(bytes) => (TAG_BINARY, bytes),
        };
        self.data.extend_from_slice(bytes);
        self.spans.push(Span { start, tagged_len: tag << TAG_SHIFT | bytes.len() as u32 & LEN_MASK });
    }

    /// The finished row image.
    pub fn finish(self) -> Tuple {
        Tuple { data: self.data.into(), spans: self.spans.into_boxed_slice() }
    }
}

impl<'a> FromIterator<Value<'a>> for Tuple {
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(values: I) -> Self {
        let mut builder = OwnedTupleBuilder::default();
        values.into_iter().for_each(|v| builder.push(v));
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_put() {
        let values = [Value::Null, Value::Unchanged, Value::Text(b""), Value::Binary(b"\0x")];
        let tuple: Tuple = values.into_iter().collect();
        assert!(tuple.values().eq(values));
        assert_eq!(tuple.get(4), None);
    }

    #[test]
    fn unchanged_columns_are_filled_from_the_older_image_and_nothing_else_is() {
        let older: Tuple = [Value::Text(b"1"), Value::Text(b"toast"), Value::Unchanged].into_iter().collect();
        let newer: Tuple = [Value::Null, Value::Unchanged, Value::Unchanged].into_iter().collect();
        let expected: Tuple = [Value::Null, Value::Text(b"toast"), Value::Unchanged].into_iter().collect();
        assert_eq!(newer.filled_from(&older), expected);
    }

    #[test]
    fn a_span_outside_the_buffer_is_refused() {
        let mut builder = TupleBuilder::over(Bytes::from_static(b"abc"), 1);
        assert_eq!(builder.text(1, 2), Ok(()));
        assert_eq!(builder.text(2, 2), Err(SpanError));
        assert_eq!(builder.text(usize::MAX, 2), Err(SpanError));
    }

    #[test]
    fn debug_output_holds_no_value() {
        let tuple: Tuple = [Value::Text(b"secret")].into_iter().collect();
        assert!(!format!("{tuple:?}").contains("secret"));
    }
}
