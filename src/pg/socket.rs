//! Reaching a server: name resolution, TCP and Unix sockets, and the stream that both kinds of session use.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::pg::error::{ConnectFailure, PgError};
use crate::pg::failure::FailureClass;
use crate::pg::options::ConnectOptions;

/// A connected stream, secured or not.
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Nobody on the network can read what goes through.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self, Transport::Tcp(_))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Transport::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Connects to the server's socket, without a word of the protocol yet. Every address of the host is tried, each
/// with an equal share of the time that is left, so that one silent address does not eat it all.
pub(crate) async fn dial(options: &ConnectOptions, deadline: Instant) -> Result<Transport, PgError> {
    if options.is_unix() {
        let path = Path::new(&options.host).join(format!(".s.PGSQL.{}", options.port));
        let stream = limited(deadline, UnixStream::connect(&path)).await;
        return stream.map(Transport::Unix).map_err(|error| unreachable(options, &error));
    }
    let addresses: Vec<SocketAddr> = limited(deadline, lookup_host((options.host.as_str(), options.port)))
        .await
        .map_err(|error| unresolved(options, &error))?
        .collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match limited(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(stream) => {
                tune(&stream, options).map_err(|error| unreachable(options, &error))?;
                return Ok(Transport::Tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(options, &last))
}

async fn limited<T>(deadline: Instant, wait: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout_at(deadline, wait).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

fn tune(stream: &TcpStream, options: &ConnectOptions) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(idle) = options.keepalives {
        let idle = idle.max(Duration::from_secs(1));
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, idle)?;
        sockopt::set_tcp_keepintvl(stream, (idle / 3).max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
    }
    if let Some(limit) = options.tcp_user_timeout {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

fn failure(options: &ConnectOptions, reason: String, hint: Option<&str>) -> PgError {
    PgError::Connect(Box::new(ConnectFailure {
        target: options.target(),
        reason,
        hint: hint.map(str::to_owned),
        class: FailureClass::Transient,
        sqlstate: None,
        in_tls: false,
    }))
}

fn unreachable(options: &ConnectOptions, error: &io::Error) -> PgError {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("is the server running there, and does it listen there?"),
        io::ErrorKind::NotFound if options.is_unix() => {
            Some("no such socket: is the server running, and is this its unix_socket_directories?")
        }
        io::ErrorKind::TimedOut => Some("a firewall may drop the packets, or the address may be wrong"),
        _ => None,
    };
    failure(options, error.to_string(), hint)
}

fn unresolved(options: &ConnectOptions, error: &io::Error) -> PgError {
    failure(options, format!("the host name was not resolved: {error}"), Some("check the name"))
}
