//! The messages of PostgreSQL's `pgoutput` plugin (documentation, "Logical Replication Message Formats";
//! `proto-notes/pgoutput.md` lists every field).

use bytes::Bytes;

use crate::model::{Lsn, Oid, OldTuple, PgTimestamp, Relation, Tuple};

/// One message. Names follow the documentation. `xid` is the prefix that messages inside a stream block carry:
/// the (sub)transaction that made the change; `None` outside of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins; all that follows up to [`Message::Commit`] belongs to it.
    Begin(Begin),
    /// The transaction that began last has been sent whole.
    Commit(Commit),
    /// The transaction came to this server from another one.
    Origin(Origin),
    /// Describes a table, before its first change and again after its description may have changed.
    Relation {
        /// Stream block prefix.
        xid: Option<u32>,
        /// The description.
        relation: Relation,
    },
    /// Names a type that is not built in, before the relation that uses it.
    Type(TypeName),
    /// A new row.
    Insert {
        /// Stream block prefix.
        xid: Option<u32>,
        /// The table.
        relation: Oid,
        /// The row.
        new: Tuple,
    },
    /// A changed row.
    Update {
        /// Stream block prefix.
        xid: Option<u32>,
        /// The table.
        relation: Oid,
        /// The row before: its key when the key changed, or all of it with REPLICA IDENTITY FULL.
        old: Option<OldTuple>,
        /// The row after.
        new: Tuple,
    },
    /// A removed row.
    Delete {
        /// Stream block prefix.
        xid: Option<u32>,
        /// The table.
        relation: Oid,
        /// What identifies the row.
        old: OldTuple,
    },
    /// Tables emptied by one statement.
    Truncate {
        /// Stream block prefix.
        xid: Option<u32>,
        /// The tables.
        relations: Vec<Oid>,
        /// CASCADE was given.
        cascade: bool,
        /// RESTART IDENTITY was given.
        restart_identity: bool,
    },
    /// Something written with `pg_logical_emit_message`.
    Logical(LogicalMessage),
    /// A stream block begins (protocol 2): changes of a transaction that has not ended yet.
    StreamStart {
        /// Top-level transaction.
        xid: u32,
        /// The first block of this transaction.
        first_segment: bool,
    },
    /// The stream block ends.
    StreamStop,
    /// A streamed transaction committed.
    StreamCommit {
        /// Top-level transaction.
        xid: u32,
        /// Positions and time.
        commit: Commit,
    },
    /// A streamed transaction or subtransaction rolled back.
    StreamAbort(StreamAbort),
    /// A prepared transaction begins (protocol 3); its changes follow, up to [`Message::Prepare`].
    BeginPrepare(Prepared),
    /// PREPARE TRANSACTION.
    Prepare(Prepared),
    /// COMMIT PREPARED.
    CommitPrepared {
        /// Positions and time.
        commit: Commit,
        /// The transaction.
        xid: u32,
        /// Its global identifier.
        gid: String,
    },
    /// ROLLBACK PREPARED.
    RollbackPrepared(RollbackPrepared),
    /// PREPARE TRANSACTION of a streamed transaction.
    StreamPrepare(Prepared),
}

/// Start of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record starts (the documentation's "final LSN"); equals [`Commit::commit_lsn`].
    pub final_lsn: Lsn,
    /// When it committed on the source.
    pub commit_time: PgTimestamp,
    /// Top-level transaction.
    pub xid: u32,
}

/// End of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the commit record ends: the position to store and confirm.
    pub end_lsn: Lsn,
    /// When it committed on the source.
    pub commit_time: PgTimestamp,
}

/// Where a transaction came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its commit position on the server it came from.
    pub origin_lsn: Lsn,
    /// Name of the replication origin.
    pub name: String,
}

/// Name of a type that is not built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    /// Stream block prefix.
    pub xid: Option<u32>,
    /// `pg_type.oid` on the source.
    pub oid: Oid,
    /// Its schema (`pg_catalog` where the wire has an empty text).
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// What `pg_logical_emit_message` wrote. `Debug` shows the content's length only.
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// Stream block prefix.
    pub xid: Option<u32>,
    /// Part of the transaction around it; otherwise sent at once, even if that transaction rolls back.
    pub transactional: bool,
    /// Where the message lies in the WAL (end of its record).
    pub lsn: Lsn,
    /// Says for whom it is.
    pub prefix: String,
    /// What was written, over the received frame.
    pub content: Bytes,
}

impl std::fmt::Debug for LogicalMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("xid", &self.xid)
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_len", &self.content.len())
            .finish()
    }
}

/// A streamed transaction or subtransaction rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamAbort {
    /// Top-level transaction.
    pub xid: u32,
    /// What rolled back; equals `xid` when all of it did.
    pub subxid: u32,
    /// Position and time of the abort; sent only with protocol 4 and `streaming = parallel`.
    pub abort: Option<(Lsn, PgTimestamp)>,
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Where the prepare record starts.
    pub prepare_lsn: Lsn,
    /// Where the prepare record ends.
    pub end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: PgTimestamp,
    /// The transaction.
    pub xid: u32,
    /// Its global identifier.
    pub gid: String,
}

/// A prepared transaction was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackPrepared {
    /// Where the prepare record ends.
    pub prepare_end_lsn: Lsn,
    /// Where the rollback record ends.
    pub rollback_end_lsn: Lsn,
    /// When it was prepared.
    pub prepare_time: PgTimestamp,
    /// When it was rolled back.
    pub rollback_time: PgTimestamp,
    /// The transaction.
    pub xid: u32,
    /// Its global identifier.
    pub gid: String,
}

impl Message {
    /// What the documentation calls it.
    pub fn kind(&self) -> &'static str {
        let tag = match self {
            Message::Begin(_) => b'B',
            Message::Commit(_) => b'C',
            Message::Origin(_) => b'O',
            Message::Relation { .. } => b'R',
            Message::Type(_) => b'Y',
            Message::Insert { .. } => b'I',
            Message::Update { .. } => b'U',
            Message::Delete { .. } => b'D',
            Message::Truncate { .. } => b'T',
            Message::Logical(_) => b'M',
            Message::StreamStart { .. } => b'S',
            Message::StreamStop => b'E',
            Message::StreamCommit { .. } => b'c',
            Message::StreamAbort(_) => b'A',
            Message::BeginPrepare(_) => b'b',
            Message::Prepare(_) => b'P',
            Message::CommitPrepared { .. } => b'K',
            Message::RollbackPrepared(_) => b'r',
            Message::StreamPrepare(_) => b'p',
        };
        kind_of(tag)
    }
}

/// The documentation's name for a message that starts with `tag`.
pub(super) fn kind_of(tag: u8) -> &'static str {
    match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        _ => "unknown",
    }
}
