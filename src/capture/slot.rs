//! The reader of a slot: frames in, batches out, positions back. A task of its own, so that the server gets its signs
//! of life however long the applier takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::capture::assemble::{AssembleError, AssembleOptions, Assembler};
use crate::capture::reading::{FrameDecoder, Reading};
use crate::capture::trigger::QueueError;
use crate::decode::DecodeError;
use crate::model::{Lsn, RetryAdvice, TxnBatch};
use crate::pg::PgError;
use crate::pg::replication::{Frame, Positions, ReplicationStream};

/// What goes wrong while changes are read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The source's connection or server.
    #[error("source: {0}")]
    Source(#[from] PgError),
    /// A message that is not the plugin's.
    #[error("source: the slot's output cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// Messages that do not follow one another.
    #[error("source: {0}")]
    Assemble(#[from] AssembleError),
    /// A queue that triggers fill.
    #[error("source: {0}")]
    Queue(#[from] QueueError),
    /// The plugin would send some numbers as null.
    #[error(
        "source: this version of wal2json sends NaN and infinity as null, which {} can hold; install wal2json 2.6, \
         set plugin = \"pgoutput\", or accept it with allow_lossy_numbers = true",
        .columns.join(", ")
    )]
    LossyNumbers {
        /// The columns that can hold them, with their tables.
        columns: Vec<String>,
    },
}

impl CaptureError {
    /// What its owner should do.
    pub fn advice(&self) -> RetryAdvice {
        match self {
            CaptureError::Source(error) => error.advice(),
            CaptureError::Queue(_) | CaptureError::Decode(_) | CaptureError::LossyNumbers { .. } => {
                RetryAdvice::Stop
            }
            CaptureError::Assemble(error) => error.advice(),
        }
    }
}

/// What the applier's side tells the reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Durable on the target: may be confirmed.
    pub durable: Lsn,
    /// Visible on the target.
    pub applied: Lsn,
}

/// How a slot is read.
#[derive(Debug, Clone)]
pub struct SlotOptions {
    /// Where the stream starts: the checkpoint.
    pub from: Lsn,
    /// Changes a batch holds at most.
    pub batch_changes: usize,
    /// Bytes of row data a batch holds at most.
    pub batch_bytes: usize,
    /// Status updates go out at least so often.
    pub status_every: Duration,
    /// A server that is silent for so long is taken for dead.
    pub silence_limit: Duration,
}

/// Reads one slot until told to stop.
#[derive(Debug)]
pub struct SlotReader {
    stream: ReplicationStream,
    options: SlotOptions,
    decoder: FrameDecoder,
    assembler: Assembler,
    received: Lsn,
    shown: Arc<AtomicU64>,
    written: watch::Receiver<Written>,
    told: Positions,
    /// The server waits for a confirmation (it shuts down, or doubts that we live).
    urgent: bool,
    /// When reading last rested: the socket was not looked at until then.
    rested: Instant,
}

impl SlotReader {
    /// A reader over a stream that `reading` just started at `options.from`.
    pub fn new(
        stream: ReplicationStream,
        reading: &Reading,
        options: SlotOptions,
        written: watch::Receiver<Written>,
    ) -> Self {
        let assembler = Assembler::new(AssembleOptions {
            skip_before: options.from,
            max_changes: options.batch_changes,
            max_bytes: options.batch_bytes,
        });
        SlotReader {
            stream,
            received: options.from,
            shown: Arc::new(AtomicU64::new(options.from.0)),
            options,
            decoder: reading.decoder(),
            assembler,
            written,
            told: Positions::default(),
            urgent: false,
            rested: Instant::now(),
        }
    }

    /// What was received so far, as a number to look at while the reader runs.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.shown.clone()
    }

    /// Runs until `stop` turns true (the last positions are then confirmed and the stream is ended, in order unless a
    /// transaction is half read), or an error. Batches go to `out`; when it is full, reading rests and signs of life go on.
    pub async fn run(
        mut self,
        out: mpsc::Sender<TxnBatch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        let mut tick = interval(self.options.status_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.assembler.is_full() {
                match self.stream.try_next()? {
                    Some(frame) => {
                        self.take_in(frame).await?;
                        continue;
                    }
                    None => self.offer(&out),
                }
            }
            let full = self.assembler.is_full();
            let pending = self.assembler.pending() || self.urgent;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                _ = tick.tick() => self.sign_of_life().await?,
                changed = self.written.changed() => {
                    if changed.is_err() {
                        // The applier is gone; its own error tells why.
                        return Ok(());
                    }
                    self.tell_if_news().await?;
                }
                permit = out.reserve(), if pending => match permit {
                    Ok(permit) => permit.send(self.batch()),
                    Err(_) => return Ok(()),
                },
                frame = self.stream.next(), if !full => self.take_in(frame?).await?,
            }
        }
        self.tell(false).await?;
        if self.assembler.in_transaction() {
            // The server would send all the rest of it before it ends the stream; closing the connection is quicker.
            return Ok(());
        }
        self.stream.finish().await?;
        Ok(())
    }

    async fn take_in(&mut self, frame: Frame) -> Result<(), CaptureError> {
        match frame {
            Frame::XLogData { start, data, .. } => {
                self.receive(start);
                let assembler = &mut self.assembler;
                self.decoder.decode::<CaptureError>(data, |message| Ok(assembler.push(message)?))?;
            }
            Frame::Keepalive { end, reply_requested } => {
                self.receive(end);
                self.assembler.keepalive(end);
                if reply_requested {
                    self.urgent = true;
                    self.tell(false).await?;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, position: Lsn) {
        if position > self.received {
            self.received = position;
            self.shown.store(position.0, Ordering::Relaxed);
        }
    }

    /// Sends what is pending if there is room, without waiting.
    fn offer(&mut self, out: &mpsc::Sender<TxnBatch>) {
        if (self.assembler.pending() || self.urgent)
            && let Ok(permit) = out.try_reserve()
        {
            permit.send(self.batch());
        }
    }

    fn batch(&mut self) -> TxnBatch {
        if self.assembler.is_full() {
            self.rested = Instant::now();
        }
        let mut batch = self.assembler.take();
        batch.urgent = std::mem::take(&mut self.urgent);
        batch
    }

    async fn tell_if_news(&mut self) -> Result<(), CaptureError> {
        if self.written.borrow().durable > self.told.flushed {
            self.tell(false).await?;
        }
        Ok(())
    }

    /// A status update; asks for an answer when the server has been silent for half of the limit.
    async fn sign_of_life(&mut self) -> Result<(), CaptureError> {
        // While reading rests the socket is not looked at, and silence says nothing.
        if self.assembler.is_full() {
            return self.tell(false).await;
        }
        let silent = self.stream.last_received().max(self.rested).elapsed();
        if silent > self.options.silence_limit {
            return Err(PgError::Timeout {
                during: format!(
                    "waiting for a sign of life of the source on slot \"{}\"",
                    self.stream.slot()
                ),
                limit: self.options.silence_limit,
            }
            .into());
        }
        self.tell(silent > self.options.silence_limit / 2).await
    }

    async fn tell(&mut self, ask: bool) -> Result<(), CaptureError> {
        let written = *self.written.borrow_and_update();
        let positions = Positions {
            received: self.received.max(written.applied),
            flushed: written.durable,
            applied: written.applied,
        };
        self.stream.send_status(positions, ask).await?;
        self.told = positions;
        Ok(())
    }
}

/// Waits until `stop` turns true, or until nobody can turn it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Both outcomes mean the same; the guard must not live across an await.
    let _ = stop.wait_for(|stop| *stop).await.map(|_| ());
}
