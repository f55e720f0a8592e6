//! How a slot is read: what its output plugin is asked for, and how its frames become messages.

use bytes::Bytes;

use crate::capture::assemble::MESSAGE_PREFIX;
use crate::capture::slot::CaptureError;
use crate::decode::DecodeError;
use crate::decode::pgoutput::{self, Message};
use crate::decode::wal2json::{self, KnownTable};
use crate::model::{Lsn, TableName, quote_ident};
use crate::pg::ConnectOptions;
use crate::pg::PgError;
use crate::pg::replication::{ReplicationClient, ReplicationStream};

/// An output plugin that we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plugin {
    /// PostgreSQL's own.
    #[default]
    Pgoutput,
    /// Format version 2 of wal2json.
    Wal2json,
}

impl Plugin {
    /// As CREATE_REPLICATION_SLOT and `pg_replication_slots` name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Plugin::Pgoutput => "pgoutput",
            Plugin::Wal2json => "wal2json",
        }
    }

    /// By that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Plugin::Pgoutput, Plugin::Wal2json].into_iter().find(|plugin| plugin.as_str() == name)
    }
}

/// What becomes of NaN and the infinities, which wal2json before 2.6 sends as null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// No column of the stream can hold them.
    NotUsed,
    /// They must arrive: the plugin is asked for it, and the stream refused where it cannot. Holds the columns.
    Whole(Vec<String>),
    /// As `Whole`, but where the plugin cannot, they become null (`allow_lossy_numbers`).
    MayBeLost,
}

/// How one slot is read.
#[derive(Debug, Clone)]
pub enum Reading {
    /// With pgoutput.
    Pgoutput {
        /// What is published.
        publications: Vec<String>,
        /// Transactions that hold nothing but a logical message are sent too (PostgreSQL 14).
        messages: bool,
    },
    /// With wal2json, which sends every transaction.
    Wal2json {
        /// The tables, as the catalogs have them now.
        tables: Vec<KnownTable>,
        /// What becomes of numbers that are none.
        numbers: Numbers,
    },
}

/// pgoutput's protocol version we ask for: whole transactions, nothing in progress, nothing prepared
/// (`proto-notes/decisions/0005-whole-transactions.md`).
const PROTOCOL_VERSION: u8 = 1;

/// invalid_parameter_value: an option the plugin does not know.
const UNKNOWN_OPTION: &str = "22023";

impl Reading {
    /// The options of START_REPLICATION. pgoutput's names of publications are SQL identifiers inside one string.
    pub fn options(&self, whole_numbers: bool) -> Vec<(String, String)> {
        match self {
            Reading::Pgoutput { publications, messages } => {
                let names: Vec<_> = publications.iter().map(|p| quote_ident(p)).collect();
                vec![
                    ("proto_version".into(), PROTOCOL_VERSION.to_string()),
                    ("publication_names".into(), names.join(",")),
                    ("messages".into(), messages.to_string()),
                ]
            }
            Reading::Wal2json { tables, .. } => {
                let names: Vec<&TableName> = tables.iter().map(|t| &t.relation.name).collect();
                wal2json::plugin_options(names, MESSAGE_PREFIX, whole_numbers)
            }
        }
    }

    /// Starts to read `slot` at `from`. `connect` opens another session where the first attempt shows that the plugin does
    /// not know an option.
    pub async fn start(
        &self,
        replication: ReplicationClient,
        connect: &ConnectOptions,
        slot: &str,
        from: Lsn,
    ) -> Result<ReplicationStream, CaptureError> {
        let numbers = match self {
            Reading::Pgoutput { .. } => &Numbers::NotUsed,
            Reading::Wal2json { numbers, .. } => numbers,
        };
        let whole = *numbers != Numbers::NotUsed;
        let error = match replication.start_replication(slot, from, &self.options(whole)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if !whole || !is_unknown_option(&error) {
            return Err(error.into());
        }
        if let Numbers::Whole(columns) = numbers {
            return Err(CaptureError::LossyNumbers { columns: columns.clone() });
        }
        let replication = ReplicationClient::connect(connect).await?;
        Ok(replication.start_replication(slot, from, &self.options(false)).await?)
    }

    /// The decoder of what [`Self::start`] gives.
    pub(crate) fn decoder(&self) -> FrameDecoder {
        match self {
            Reading::Pgoutput { .. } => FrameDecoder::Pgoutput(pgoutput::Decoder::new(PROTOCOL_VERSION)),
            Reading::Wal2json { tables, .. } => FrameDecoder::Wal2json {
                decoder: wal2json::Decoder::new(tables.clone()),
                messages: Vec::new(),
            },
        }
    }
}

/// The plugin refused [`wal2json::NUMBERS_AS_STRINGS`].
pub(crate) fn is_unknown_option(error: &PgError) -> bool {
    error.sqlstate() == Some(UNKNOWN_OPTION)
}

/// Frames to messages.
#[derive(Debug)]
pub(crate) enum FrameDecoder {
    Pgoutput(pgoutput::Decoder),
    Wal2json {
        decoder: wal2json::Decoder,
        /// Kept for its memory.
        messages: Vec<Message>,
    },
}

impl FrameDecoder {
    /// Hands the messages of one frame to `push`, in order.
    pub(crate) fn decode<E: From<DecodeError>>(
        &mut self,
        frame: Bytes,
        mut push: impl FnMut(Message) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            FrameDecoder::Pgoutput(decoder) => push(decoder.decode(frame)?),
            FrameDecoder::Wal2json { decoder, messages } => {
                messages.clear();
                decoder.decode(&frame, messages)?;
                messages.drain(..).try_for_each(push)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_identifiers_inside_one_string() {
        let reading = Reading::Pgoutput { publications: vec!["a".into(), "B\"c".into()], messages: true };
        let options = reading.options(false);
        assert_eq!(options[1], ("publication_names".to_owned(), "a,\"B\"\"c\"".to_owned()));
        assert_eq!(options[2].1, "true");
    }

    #[test]
    fn plugins_are_known_by_name() {
        assert_eq!(Plugin::from_name("wal2json"), Some(Plugin::Wal2json));
        assert_eq!(Plugin::from_name("test_decoding"), None);
    }
}
