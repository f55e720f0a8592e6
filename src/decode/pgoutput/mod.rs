//! A decoder for `pgoutput`, PostgreSQL's own output plugin: every message of protocol versions 1 to 4, zero copy.

mod message;
mod read;
mod rows;

#[cfg(test)]
mod encode;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod mutate;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use message::{
    Begin, Commit, LogicalMessage, Message, Origin, Prepared, RollbackPrepared, StreamAbort, TypeName,
};

use crate::decode::cursor::{Cursor, DecodeError, Problem};

/// Decodes the frames of one stream, in the order they came.
///
/// Its only state is whether a stream block is open: messages inside one carry the transaction id of their
/// (sub)transaction. A frame that cannot be read leaves the state as it was.
#[derive(Debug, Clone)]
pub struct Decoder {
    version: u8,
    in_stream: bool,
}

impl Decoder {
    /// A decoder for a stream started with `proto_version` (1 to 4; the plugin refuses others).
    pub fn new(proto_version: u8) -> Self {
        Decoder { version: proto_version, in_stream: false }
    }

    /// True between Stream Start and Stream Stop.
    pub fn in_stream(&self) -> bool {
        self.in_stream
    }

    /// Reads one message: the payload of one `XLogData`, without its header. Row images and message contents
    /// keep `frame` as their buffer; nothing of them is copied.
    pub fn decode(&mut self, frame: Bytes) -> Result<Message, DecodeError> {
        let Some(&tag) = frame.first() else {
            return Err(DecodeError { tag: None, message: "unknown", offset: 0, problem: Problem::Empty });
        };
        let mut at = 0;
        self.checked(tag).and_then(|()| self.message(tag, frame, &mut at)).map_err(|problem| DecodeError {
            tag: Some(tag),
            message: message::kind_of(tag),
            offset: at,
            problem,
        })
    }

    /// Whether a message that starts with `tag` may come now.
    fn checked(&self, tag: u8) -> Result<(), Problem> {
        let needs = match tag {
            // PostgreSQL 18 sends Stream Abort whatever was asked for (`proto-notes/pgoutput.md`).
            b'I' | b'U' | b'D' | b'B' | b'C' | b'O' | b'R' | b'Y' | b'T' | b'M' | b'A' => 1,
            b'S' | b'E' | b'c' => 2,
            b'b' | b'P' | b'K' | b'r' | b'p' => 3,
            _ => return Err(Problem::Unknown { what: "message type", value: tag }),
        };
        if needs > self.version {
            return Err(Problem::Version { needs });
        }
        match tag {
            b'I' | b'U' | b'D' | b'O' | b'R' | b'Y' | b'T' | b'M' => Ok(()),
            b'E' if !self.in_stream => Err(Problem::OutsideStream),
            b'E' => Ok(()),
            _ if self.in_stream => Err(Problem::InsideStream),
            _ => Ok(()),
        }
    }

    /// Reads the message; `at` tells how far it came, for the error.
    fn message(&mut self, tag: u8, frame: Bytes, at: &mut usize) -> Result<Message, Problem> {
        *at = 1;
        match tag {
            b'I' => return rows::insert(frame, at, self.in_stream),
            b'U' => return rows::update(frame, at, self.in_stream),
            b'D' => return rows::delete(frame, at, self.in_stream),
            b'M' => return read::logical(frame, at, self.in_stream),
            _ => {}
        }
        let mut cursor = Cursor::new(&frame, 1);
        let result = self.plain(tag, &mut cursor);
        *at = cursor.position();
        let message = result?;
        cursor.end()?;
        match message {
            Message::StreamStart { .. } => self.in_stream = true,
            Message::StreamStop => self.in_stream = false,
            _ => {}
        }
        Ok(message)
    }

    /// Messages without row images.
    fn plain(&self, tag: u8, cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
        let in_stream = self.in_stream;
        Ok(match tag {
            b'B' => read::begin(cursor)?,
            b'C' => {
                read::no_flags(cursor)?;
                Message::Commit(read::commit(cursor)?)
            }
            b'O' => read::origin(cursor)?,
            b'R' => read::relation(cursor, in_stream)?,
            b'Y' => read::type_name(cursor, in_stream)?,
            b'T' => read::truncate(cursor, in_stream)?,
            b'S' => read::stream_start(cursor)?,
            b'E' => Message::StreamStop,
            b'c' => read::stream_commit(cursor)?,
            b'A' => read::stream_abort(cursor, self.version)?,
            b'b' => Message::BeginPrepare(read::prepared(cursor)?),
            b'P' => {
                read::no_flags(cursor)?;
                Message::Prepare(read::prepared(cursor)?)
            }
            b'p' => {
                read::no_flags(cursor)?;
                Message::StreamPrepare(read::prepared(cursor)?)
            }
            b'K' => read::commit_prepared(cursor)?,
            b'r' => read::rollback_prepared(cursor)?,
            _ => return Err(Problem::Unknown { what: "message type", value: tag }),
        })
    }
}
