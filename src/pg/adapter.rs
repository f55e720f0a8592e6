//! Our stream as tokio-postgres takes it: already secured, with its channel binding, and with an eye on the
//! server's first message.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::pg::handshake::Established;
use crate::pg::socket::Transport;

/// The two things tokio-postgres wants.
pub(crate) fn prepare(established: Established) -> (Guarded, Bind) {
    let guard = if established.transport.is_private() { Guard::Done } else { Guard::First(Vec::new()) };
    (Guarded { transport: established.transport, guard }, Bind(established.binding))
}

/// The server wants the password in clear where others could read it.
#[derive(Debug, thiserror::Error)]
#[error("clear text password refused")]
pub(crate) struct CleartextRefused;

enum Guard {
    /// The server's first message is still to come; what has been read of it.
    First(Vec<u8>),
    Done,
}

/// The stream under tokio-postgres, which would send a password in clear to any server that asks: without TLS
/// the server's first message is looked at before tokio-postgres sees it whole.
pub(crate) struct Guarded {
    transport: Transport,
    guard: Guard,
}

impl Guarded {
    fn check(&mut self, news: &[u8]) -> io::Result<()> {
        /// AuthenticationCleartextPassword: 'R', length 8, code 3.
        const CLEARTEXT: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
        let Guard::First(seen) = &mut self.guard else { return Ok(()) };
        let wanted = CLEARTEXT.len().saturating_sub(seen.len());
        seen.extend_from_slice(news.get(..wanted).unwrap_or(news));
        if seen.len() == CLEARTEXT.len() {
            if *seen == CLEARTEXT {
                return Err(io::Error::other(CleartextRefused));
            }
            self.guard = Guard::Done;
        }
        Ok(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.transport).poll_read(cx, buf);
        if matches!(self.guard, Guard::First(_)) && matches!(result, Poll::Ready(Ok(()))) {
            self.check(buf.filled().get(before..).unwrap_or_default())?;
        }
        result
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Tells tokio-postgres that a stream is already secured, and its channel binding.
pub(crate) struct Bind(Option<Vec<u8>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsConnect<S> for Bind {
    type Stream = Bound<S>;
    type Error = Infallible;
    type Future = Ready<Result<Bound<S>, Infallible>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(Bound { stream, binding: self.0 }))
    }
}

pub(crate) struct Bound<S> {
    stream: S,
    binding: Option<Vec<u8>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Bound<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.binding {
            Some(binding) => ChannelBinding::tls_server_end_point(binding.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
