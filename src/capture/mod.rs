//! Floor 3: changes out of the source.
//!
//! `assemble` turns decoded messages into batches and `publish` decides what is published and how (both pure);
//! `slot` reads a slot, in the way that `reading` says and `auto` chooses; `wal2json` tells that plugin's decoder the tables;
//! `trigger` reads a queue instead; `setup` is the only place that changes publications, queues and triggers.

pub mod assemble;
pub mod auto;
pub mod publish;
pub mod reading;
pub mod setup;
pub mod slot;
pub mod trigger;
pub mod wal2json;

pub use reading::{Plugin, Reading};
use tokio::sync::{mpsc, watch};

use crate::model::TxnBatch;

pub use slot::{CaptureError, SlotOptions, SlotReader, Written};
pub use trigger::{QueueReader, StreamReader};

/// Whatever changes are read from.
#[derive(Debug)]
pub enum Reader {
    /// A slot.
    Slot(Box<SlotReader>),
    /// A queue that triggers fill.
    Queue(Box<QueueReader>),
    /// The queues of a stream.
    Stream(Box<StreamReader>),
}

impl Reader {
    /// Hands batches to `out` until `stop` turns true, or an error.
    pub async fn run(
        self,
        out: mpsc::Sender<TxnBatch>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), CaptureError> {
        match self {
            Reader::Slot(reader) => reader.run(out, stop).await,
            Reader::Queue(reader) => reader.run(out, stop).await,
            Reader::Stream(reader) => reader.run(out, stop).await,
        }
    }
}

impl From<SlotReader> for Reader {
    fn from(reader: SlotReader) -> Self {
        Reader::Slot(Box::new(reader))
    }
}

impl From<QueueReader> for Reader {
    fn from(reader: QueueReader) -> Self {
        Reader::Queue(Box::new(reader))
    }
}

impl From<StreamReader> for Reader {
    fn from(reader: StreamReader) -> Self {
        Reader::Stream(Box::new(reader))
    }
}
