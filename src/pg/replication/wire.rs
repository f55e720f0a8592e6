//! Messages in and out: framing of the backend's messages, one read buffer, one write buffer.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::pg::error::PgError;

/// Read at most so much at once, and allocate so much at once.
const READ_BUFFER: usize = 256 * 1024;
/// Allocate anew when less room than this is left.
const MIN_ROOM: usize = 32 * 1024;
/// Read so far ahead, at most, while waiting for the server to take what we send.
const STALL_BUFFER: usize = 16 * 1024 * 1024;
/// Unsent output beyond this means that nobody takes it.
const MAX_OUTPUT: usize = 64 * 1024;
/// No message of a server is longer: a text of PostgreSQL is below 1 GiB, plus a message's own header.
pub(crate) const MAX_MESSAGE: usize = (1 << 30) + 64 * 1024;
/// Before authentication nothing long is to be expected, and nobody is to be believed.
pub(crate) const MAX_MESSAGE_AT_LOGIN: usize = 64 * 1024;

/// One message of the backend: its type and its body.
///
/// The body is a slice of the read buffer, not a copy: it keeps up to 256 KiB (or its own length, if longer) of
/// memory alive. Who stores a small body for long copies it first.
pub(crate) type Message = (u8, Bytes);

/// A connection as messages.
pub(crate) struct Wire<S> {
    io: S,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    max_message: usize,
    last_received: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(io: S) -> Self {
        Wire {
            io,
            input: BytesMut::with_capacity(READ_BUFFER),
            output: BytesMut::with_capacity(1024),
            unflushed: false,
            max_message: MAX_MESSAGE_AT_LOGIN,
            last_received: Instant::now(),
        }
    }

    pub(crate) fn allow_long_messages(&mut self) {
        self.max_message = MAX_MESSAGE;
    }

    /// When the last byte came.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    /// What is to be sent; nothing goes out before `flush`.
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        self.unflushed = true;
        &mut self.output
    }

    /// The next message if it is in the buffer whole.
    pub(crate) fn buffered(&mut self) -> Result<Option<Message>, PgError> {
        let Some(length) = self.message_length()? else { return Ok(None) };
        if self.input.len() < length {
            return Ok(None);
        }
        let mut message = self.input.split_to(length).freeze();
        let kind = message.get_u8();
        message.advance(4);
        Ok(Some((kind, message)))
    }

    /// The whole length of the message at the buffer's beginning, once its header is there.
    fn message_length(&self) -> Result<Option<usize>, PgError> {
        let [kind, a, b, c, d, ..] = self.input[..] else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < 4 || length > self.max_message {
            return Err(PgError::protocol(
                "reading from the server",
                format!("a message of type {:?} and length {length}", char::from(kind)),
            ));
        }
        Ok(Some(length + 1))
    }

    /// Waits for the next message. May be dropped and called again: nothing is lost.
    pub(crate) async fn message(&mut self, during: &str) -> Result<Message, PgError> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            poll_fn(|cx| {
                // What a dropped `flush` has left goes out on the way.
                if self.unflushed
                    && let Poll::Ready(Err(error)) = self.poll_output(cx)
                {
                    return Poll::Ready(Err(PgError::io(during, error)));
                }
                self.poll_input(cx, during)
            })
            .await?;
        }
    }

    /// Reads what the socket holds right now, without waiting; says whether anything came.
    pub(crate) fn read_now(&mut self, during: &str) -> Result<bool, PgError> {
        match self.poll_input(&mut Context::from_waker(Waker::noop()), during) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Reads once into the buffer.
    fn poll_input(&mut self, cx: &mut Context<'_>, during: &str) -> Poll<Result<(), PgError>> {
        if self.input.capacity() - self.input.len() < MIN_ROOM {
            // A long message's buffer doubles as its bytes really come, whatever its header claims.
            self.input.reserve(READ_BUFFER.max(self.input.len()));
        }
        let read = pin!(self.io.read_buf(&mut self.input));
        Poll::Ready(match ready!(read.poll(cx)) {
            Ok(0) => Err(PgError::closed(during)),
            Ok(_) => {
                self.last_received = Instant::now();
                Ok(())
            }
            Err(error) => Err(PgError::io(during, error)),
        })
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.output.advance(written),
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what `output` holds. While the server does not take it, its own output is read into the buffer, so
    /// that two full sockets cannot wait for one another. May be dropped: the rest goes out with what follows.
    pub(crate) async fn flush(&mut self, during: &str, limit: Duration) -> Result<(), PgError> {
        if self.output.len() > MAX_OUTPUT {
            return Err(PgError::timeout(during, limit));
        }
        let work = poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = self.poll_output(cx) {
                    return Poll::Ready(result.map_err(|error| PgError::io(during, error)));
                }
                if self.input.len() >= STALL_BUFFER {
                    return Poll::Pending;
                }
                ready!(self.poll_input(cx, during))?;
            }
        });
        timeout(limit, work).await.unwrap_or_else(|_| Err(PgError::timeout(during, limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const LIMIT: Duration = Duration::from_secs(20);

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_are_cut() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours);
        wire.allow_long_messages();
        let long: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut sent = message(b'd', b"one");
        sent.extend(message(b'd', b""));
        sent.extend(message(b'd', &long));
        let writer = tokio::spawn(async move { theirs.write_all(&sent).await.map(|()| theirs) });
        assert_eq!(wire.message("a test").await.unwrap(), (b'd', Bytes::from_static(b"one")));
        assert_eq!(wire.message("a test").await.unwrap(), (b'd', Bytes::new()));
        assert_eq!(wire.message("a test").await.unwrap().1, long);
        drop(writer.await.unwrap().unwrap());
        assert!(matches!(wire.message("a test").await, Err(PgError::Closed { .. })));
    }

    #[tokio::test]
    async fn impossible_lengths_are_refused() {
        for length in [0u32, 3, 70_000, u32::MAX] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let mut wire = Wire::new(ours);
            theirs.write_all(b"R").await.unwrap();
            theirs.write_all(&length.to_be_bytes()).await.unwrap();
            assert!(matches!(wire.message("a test").await, Err(PgError::Protocol { .. })), "{length}");
        }
    }

    #[tokio::test]
    async fn sending_goes_on_while_the_server_only_sends() {
        // Both directions hold 64 bytes: the peer writes 100 000 bytes before it reads ours.
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours);
        wire.allow_long_messages();
        let sent = message(b'd', &[7; 100_000]);
        let peer = tokio::spawn(async move {
            theirs.write_all(&sent).await.unwrap();
            let mut got = vec![0; 1000];
            theirs.read_exact(&mut got).await.unwrap();
            got
        });
        wire.output().extend_from_slice(&[9; 1000]);
        wire.flush("a test", LIMIT).await.unwrap();
        assert_eq!(peer.await.unwrap(), vec![9; 1000]);
        assert_eq!(wire.message("a test").await.unwrap().1.len(), 100_000);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours);
        wire.output().extend_from_slice(&[9; 1000]);
        let error = wire.flush("a test", Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, PgError::Timeout { .. }));
    }
}
