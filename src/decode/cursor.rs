//! A bounded reader over one received frame, and what can be wrong with the frame.
//!
//! Every read checks what is left, so neither a damaged nor a hostile frame can make a decoder panic, and a count
//! is believed only as far as the frame's own length supports it.

use std::fmt;

use crate::model::{Lsn, Oid, PgTimestamp, RetryAdvice};

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The frame has no byte at all.
    #[error("the frame is empty")]
    Empty,
    /// The frame ends inside a field.
    #[error("the frame ends within {0}")]
    Truncated(&'static str),
    /// Bytes are left after the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
    /// A count or length promises more than the frame holds.
    #[error("{0} does not fit in the frame")]
    TooLarge(&'static str),
    /// Text that must be UTF-8 (`client_encoding` is pinned to it) is not.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// A flag, letter or marker that the protocol does not define.
    #[error("unknown {what} {value:#04x}")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// The byte that came.
        value: u8,
    },
    /// A message of a later protocol version than the one the stream was started with.
    #[error(
        "the message belongs to protocol version {needs}, but the stream was started with an earlier one"
    )]
    Version {
        /// The first version that has this message.
        needs: u8,
    },
    /// A message that cannot come inside a stream block.
    #[error("the message came inside a stream block")]
    InsideStream,
    /// A stream block ended that had not begun.
    #[error("the message came outside of a stream block")]
    OutsideStream,
}

/// A frame that is not a message of the protocol. Holds no row value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// The message's first byte; `None` for an empty frame.
    pub tag: Option<u8>,
    /// What the message is called, "unknown" when the first byte says nothing.
    pub message: &'static str,
    /// Byte of the frame where reading stopped, from 0.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

impl DecodeError {
    /// Always [`RetryAdvice::Stop`]: the source sends the same bytes again.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "replication message {} cannot be read at byte {}: {}; the server and this program disagree about \
             the protocol: check the server's version and whatever stands between (a proxy)",
            self.message, self.offset, self.problem
        )
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for DecodeError {}

/// Reads big-endian fields one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at` of `frame`.
    pub fn new(frame: &'a [u8], at: usize) -> Self {
        Cursor { frame, at }
    }

    /// Byte of the frame that is read next.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.frame.len().saturating_sub(self.at)
    }

    /// The next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(len).ok_or(Problem::TooLarge(what))?;
        let bytes = self.frame.get(self.at..end).ok_or(Problem::Truncated(what))?;
        self.at = end;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Problem> {
        let rest = self.frame.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = rest.ok_or(Problem::Truncated(what))?;
        self.at += N;
        Ok(*bytes)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Problem> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Two bytes, unsigned.
    #[inline]
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Problem> {
        self.array(what).map(u16::from_be_bytes)
    }

    /// Four bytes, unsigned.
    #[inline]
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Problem> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Four bytes, signed.
    #[inline]
    pub fn i32(&mut self, what: &'static str) -> Result<i32, Problem> {
        self.array(what).map(i32::from_be_bytes)
    }

    /// An object identifier.
    #[inline]
    pub fn oid(&mut self, what: &'static str) -> Result<Oid, Problem> {
        self.u32(what)
    }

    /// A WAL position.
    #[inline]
    pub fn lsn(&mut self, what: &'static str) -> Result<Lsn, Problem> {
        self.array(what).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    /// A point in time, microseconds since 2000-01-01 UTC.
    #[inline]
    pub fn timestamp(&mut self, what: &'static str) -> Result<PgTimestamp, Problem> {
        self.array(what).map(|bytes| PgTimestamp(i64::from_be_bytes(bytes)))
    }

    /// A count of things that take at least `each` bytes, of which the frame must hold as many.
    #[inline]
    pub fn count(&self, count: usize, each: usize, what: &'static str) -> Result<usize, Problem> {
        match count.checked_mul(each) {
            Some(bytes) if bytes <= self.remaining() => Ok(count),
            _ => Err(Problem::TooLarge(what)),
        }
    }

    /// A length of bytes that follow: four bytes, not negative, and no longer than what is left.
    #[inline]
    pub fn length(&mut self, what: &'static str) -> Result<usize, Problem> {
        let start = self.at;
        let length = self.u32(what)? as usize;
        if length > self.remaining() {
            self.at = start;
            return Err(Problem::TooLarge(what));
        }
        Ok(length)
    }

    /// Text up to a zero byte.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Problem> {
        let rest = self.frame.get(self.at..).unwrap_or_default();
        let end = memchr::memchr(0, rest).ok_or(Problem::Truncated(what))?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| Problem::NotUtf8(what))?;
        self.at += end + 1;
        Ok(text)
    }

    /// Nothing may be left.
    #[inline]
    pub fn end(&self) -> Result<(), Problem> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(Problem::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order_and_big_endian() {
        let mut cursor = Cursor::new(&[9, 1, 2, 0, 0, 0, 3, b'a', 0xC3, 0xA4, 0, 7], 1);
        assert_eq!(cursor.u16("x"), Ok(0x0102));
        assert_eq!(cursor.u32("x"), Ok(3));
        assert_eq!(cursor.text("x"), Ok("aä"));
        assert_eq!(cursor.end(), Err(Problem::Trailing(1)));
        assert_eq!(cursor.u8("x"), Ok(7));
        assert_eq!(cursor.end(), Ok(()));
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let mut cursor = Cursor::new(&[0xFF; 5], 0);
        assert_eq!(cursor.lsn("position"), Err(Problem::Truncated("position")));
        assert_eq!(cursor.text("name"), Err(Problem::Truncated("name")));
        assert_eq!(cursor.length("length"), Err(Problem::TooLarge("length")));
        assert_eq!(cursor.position(), 0);
        assert_eq!(cursor.count(usize::MAX, 2, "count"), Err(Problem::TooLarge("count")));
        assert_eq!(cursor.count(5, 1, "count"), Ok(5));
        assert_eq!(cursor.bytes(usize::MAX, "bytes"), Err(Problem::Truncated("bytes")));
        assert_eq!(Cursor::new(&[1], 7).u8("past the end"), Err(Problem::Truncated("past the end")));
        assert_eq!(Cursor::new(&[0xFF, 0], 0).text("name"), Err(Problem::NotUtf8("name")));
    }
}
