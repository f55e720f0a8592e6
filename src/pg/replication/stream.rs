//! The stream of a logical slot: frames in, positions out.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes};
use postgres_protocol::message::frontend;
use tokio::time::{Instant, timeout};

use crate::model::Lsn;
use crate::pg::error::PgError;
use crate::pg::failure::Report;
use crate::pg::replication::client::{ReplicationClient, unexpected};

/// How long the server may take to accept a status update.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// How long the server may take to end the stream.
const FINISH_LIMIT: Duration = Duration::from_secs(30);
/// Seconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH: u64 = 946_684_800;

/// One frame of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message of the output plugin.
    XLogData {
        /// The position the message is about; 0/0 for some messages (pgoutput's Relation).
        start: Lsn,
        /// For logical slots the same as `start`.
        end: Lsn,
        /// The plugin's bytes: a slice of the read buffer. It keeps the whole buffer alive (256 KiB, or the
        /// message's length if that is more), so what is kept for long is copied.
        data: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// How far the server has sent: when nothing is in flight, everything up to here concerns us no more.
        end: Lsn,
        /// The server wants a status update now, or it ends the connection after `wal_sender_timeout`.
        reply_requested: bool,
    },
}

/// What a status update tells. Each position: everything before it has been ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// … received (`write_lsn` of `pg_stat_replication`).
    pub received: Lsn,
    /// … stored durably: what the server may forget (`flush_lsn`, and the slot's `confirmed_flush_lsn`).
    pub flushed: Lsn,
    /// … made visible on the target (`replay_lsn`).
    pub applied: Lsn,
}

/// The stream of a logical slot.
///
/// Nothing happens behind the caller's back: no status update is sent but by [`Self::send_status`], and
/// keepalives are frames to be answered. Dropping it closes the connection; the slot becomes free when the server
/// notices. [`Self::finish`] frees it in order.
pub struct ReplicationStream {
    client: ReplicationClient,
    slot: String,
    during: String,
}

impl fmt::Debug for ReplicationStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationStream")
            .field("slot", &self.slot)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl ReplicationStream {
    pub(crate) fn new(client: ReplicationClient, slot: String) -> Self {
        let during = format!("reading slot {slot}");
        ReplicationStream { client, slot, during }
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// The server's version, as [`ReplicationClient::server_version`].
    pub fn server_version(&self) -> u32 {
        self.client.server_version()
    }

    /// The walsender's process id.
    pub fn backend_pid(&self) -> i32 {
        self.client.backend_pid()
    }

    /// When the last byte came from the server.
    pub fn last_received(&self) -> Instant {
        self.client.last_received()
    }

    /// Waits for the next frame.
    ///
    /// Cancel-safe: dropped in a `select!`, it loses nothing. It has no limit of its own, since an idle server
    /// may be silent (with `wal_sender_timeout = 0`, for ever): the caller asks for a sign of life by
    /// [`Self::send_status`] and judges by [`Self::last_received`].
    pub async fn next(&mut self) -> Result<Frame, PgError> {
        loop {
            let message = self.client.wire().message(&self.during).await?;
            if let Some(frame) = self.read(message)? {
                return Ok(frame);
            }
        }
    }

    /// The next frame if it has already arrived, without waiting.
    ///
    /// `None` means that no input waits, as far as the runtime has noticed: a good moment to close a batch.
    pub fn try_next(&mut self) -> Result<Option<Frame>, PgError> {
        loop {
            match self.client.wire().buffered()? {
                Some(message) => {
                    if let Some(frame) = self.read(message)? {
                        return Ok(Some(frame));
                    }
                }
                None if self.client.wire().read_now(&self.during)? => {}
                None => return Ok(None),
            }
        }
    }

    fn read(&self, (kind, body): (u8, Bytes)) -> Result<Option<Frame>, PgError> {
        match kind {
            b'd' => read_frame(body, &self.during).map(Some),
            b'E' => Err(Report::parse(&body).into_error()),
            // CopyDone or CommandComplete unasked: the server shuts down and has sent all it has.
            b'c' | b'C' => Err(PgError::closed(&self.during)),
            b'N' | b'S' => Ok(None),
            kind => Err(unexpected(kind, &self.during)),
        }
    }

    /// Sends a standby status update; with `reply_requested` the server answers with a keepalive.
    ///
    /// May be called at any time, also while frames are unread. While the server does not take it, what the
    /// server sends is read into memory (at most 16 MiB), for at most 30 seconds. Cancel-safe: what was not sent
    /// goes out with the next call of anything.
    pub async fn send_status(&mut self, positions: Positions, reply_requested: bool) -> Result<(), PgError> {
        let output = self.client.wire().output();
        output.put_u8(b'd');
        output.put_u32(4 + 34);
        output.put_u8(b'r');
        output.put_u64(positions.received.0);
        output.put_u64(positions.flushed.0);
        output.put_u64(positions.applied.0);
        output.put_i64(postgres_micros(SystemTime::now()));
        output.put_u8(u8::from(reply_requested));
        self.client.wire().flush("sending a status update", SEND_LIMIT).await
    }

    /// Ends the stream: what is still under way is read and thrown away, the slot is released, and the session can
    /// take commands again. Send the last status before. The server may first want to send the rest of a
    /// transaction that it is in; after 30 seconds it is given up ([`PgError::Timeout`]) and the connection closed.
    pub async fn finish(mut self) -> Result<ReplicationClient, PgError> {
        let during = format!("ending the stream of slot {}", self.slot);
        let work = async {
            frontend::copy_done(self.client.wire().output());
            self.client.wire().flush(&during, FINISH_LIMIT).await?;
            loop {
                match self.client.wire().message(&during).await? {
                    (b'Z', _) => return Ok(()),
                    (b'E', body) => return Err(Report::parse(&body).into_error()),
                    (b'd' | b'c' | b'C' | b'N' | b'S' | b'T' | b'D', _) => {}
                    (kind, _) => return Err(unexpected(kind, &during)),
                }
            }
        };
        timeout(FINISH_LIMIT, work).await.unwrap_or_else(|_| Err(PgError::timeout(&during, FINISH_LIMIT)))?;
        Ok(self.client.finished())
    }
}

/// The content of a CopyData message of the server.
fn read_frame(mut body: Bytes, during: &str) -> Result<Frame, PgError> {
    const XLOG_DATA: usize = 1 + 8 + 8 + 8;
    const KEEPALIVE: usize = 1 + 8 + 8 + 1;
    match body.first() {
        Some(b'w') if body.len() >= XLOG_DATA => {
            body.advance(1);
            let (start, end) = (Lsn(body.get_u64()), Lsn(body.get_u64()));
            body.advance(8); // When it was sent, by the server's clock.
            Ok(Frame::XLogData { start, end, data: body })
        }
        Some(b'k') if body.len() >= KEEPALIVE => {
            body.advance(1);
            let end = Lsn(body.get_u64());
            body.advance(8);
            Ok(Frame::Keepalive { end, reply_requested: body.get_u8() != 0 })
        }
        first => Err(PgError::protocol(
            during,
            format!(
                "a replication message of type {:?} and length {}",
                first.map(|b| char::from(*b)),
                body.len()
            ),
        )),
    }
}

/// Microseconds since 2000-01-01 UTC.
fn postgres_micros(now: SystemTime) -> i64 {
    let epoch = UNIX_EPOCH + Duration::from_secs(POSTGRES_EPOCH);
    now.duration_since(epoch).ok().and_then(|d| i64::try_from(d.as_micros()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let mut body = vec![b'w'];
        body.extend_from_slice(&1u64.to_be_bytes());
        body.extend_from_slice(&2u64.to_be_bytes());
        body.extend_from_slice(&3u64.to_be_bytes());
        body.extend_from_slice(b"data");
        let data = Bytes::from_static(b"data");
        assert_eq!(
            read_frame(body.clone().into(), "a test").unwrap(),
            Frame::XLogData { start: Lsn(1), end: Lsn(2), data }
        );
        let mut alive = vec![b'k'];
        alive.extend_from_slice(&9u64.to_be_bytes());
        alive.extend_from_slice(&3u64.to_be_bytes());
        alive.push(1);
        assert_eq!(
            read_frame(alive.clone().into(), "a test").unwrap(),
            Frame::Keepalive { end: Lsn(9), reply_requested: true }
        );
        for cut in 0..25 {
            assert!(read_frame(Bytes::copy_from_slice(&body[..cut]), "a test").is_err());
        }
        for cut in 0..18 {
            assert!(read_frame(Bytes::copy_from_slice(&alive[..cut]), "a test").is_err());
        }
        assert!(read_frame(Bytes::from_static(b"x"), "a test").is_err());
    }

    #[test]
    fn time_begins_in_2000() {
        assert_eq!(postgres_micros(UNIX_EPOCH + Duration::from_secs(POSTGRES_EPOCH + 1)), 1_000_000);
        assert_eq!(postgres_micros(UNIX_EPOCH), 0);
    }
}
