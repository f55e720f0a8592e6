//! Cancelling a replication session's command.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::pg::error::PgError;
use crate::pg::handshake::{self, Leg};
use crate::pg::options::ConnectOptions;
use crate::pg::tls::TlsSetup;

/// Cancels a replication session's command from anywhere; cheap to clone.
#[derive(Clone)]
pub struct ReplicationCanceller {
    options: Arc<ConnectOptions>,
    setup: Option<TlsSetup>,
    backend_pid: i32,
    secret_key: Bytes,
}

impl fmt::Debug for ReplicationCanceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicationCanceller")
            .field("target", &self.options.target())
            .field("backend_pid", &self.backend_pid)
            .finish_non_exhaustive()
    }
}

impl ReplicationCanceller {
    pub(crate) fn new(
        options: &ConnectOptions,
        setup: Option<TlsSetup>,
        backend_pid: i32,
        secret_key: Bytes,
    ) -> Self {
        ReplicationCanceller { options: Arc::new(options.clone()), setup, backend_pid, secret_key }
    }

    pub(crate) fn target(&self) -> String {
        self.options.target()
    }

    /// The session it belongs to is encrypted, and so is the request.
    pub(crate) fn is_tls(&self) -> bool {
        self.setup.is_some()
    }

    /// Asks the server to cancel the running command, over a connection of its own; returns when the server has
    /// taken the request.
    pub async fn cancel(&self) -> Result<(), PgError> {
        const DURING: &str = "cancelling a replication command";
        const CODE: i32 = 80_877_102;
        let limit = self.options.connect_timeout;
        let deadline = Instant::now() + limit;
        let leg = if self.is_tls() { Leg::Tls } else { Leg::Plain };
        let mut stream = handshake::open(&self.options, leg, self.setup.as_ref(), deadline).await?.transport;
        let mut request = BytesMut::new();
        request.put_u32(u32::try_from(12 + self.secret_key.len()).unwrap_or(u32::MAX));
        request.put_i32(CODE);
        request.put_i32(self.backend_pid);
        request.put_slice(&self.secret_key);
        let work = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            // The server closes the connection when it has acted on the request; how it does so is no matter.
            let _closed = stream.read(&mut [0; 16]).await;
            Ok(())
        };
        timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| PgError::io(DURING, error))
    }
}
