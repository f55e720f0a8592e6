//! Reading messages that hold no row.

use bytes::Bytes;

use super::message::{
    Begin, Commit, LogicalMessage, Message, Origin, Prepared, RollbackPrepared, StreamAbort, TypeName,
};
use crate::decode::cursor::{Cursor, Problem};
use crate::model::{Relation, RelationColumn, ReplicaIdentity, TableName};

/// The prefix of messages inside a stream block.
#[inline]
pub(super) fn xid_prefix(cursor: &mut Cursor<'_>, in_stream: bool) -> Result<Option<u32>, Problem> {
    if in_stream { cursor.u32("transaction id").map(Some) } else { Ok(None) }
}

/// A flags byte of which no bit is defined yet.
pub(super) fn no_flags(cursor: &mut Cursor<'_>) -> Result<(), Problem> {
    match cursor.u8("flags")? {
        0 => Ok(()),
        value => Err(Problem::Unknown { what: "flags", value }),
    }
}

/// A byte that is 0 or 1.
fn boolean(cursor: &mut Cursor<'_>, what: &'static str) -> Result<bool, Problem> {
    match cursor.u8(what)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Problem::Unknown { what, value }),
    }
}

/// A schema name; `pgoutput` writes an empty one for `pg_catalog`.
fn schema(cursor: &mut Cursor<'_>) -> Result<String, Problem> {
    let schema = cursor.text("schema name")?;
    Ok(if schema.is_empty() { "pg_catalog" } else { schema }.to_owned())
}

pub(super) fn begin(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    Ok(Message::Begin(Begin {
        final_lsn: cursor.lsn("final position")?,
        commit_time: cursor.timestamp("commit time")?,
        xid: cursor.u32("transaction id")?,
    }))
}

pub(super) fn commit(cursor: &mut Cursor<'_>) -> Result<Commit, Problem> {
    Ok(Commit {
        commit_lsn: cursor.lsn("commit position")?,
        end_lsn: cursor.lsn("end position")?,
        commit_time: cursor.timestamp("commit time")?,
    })
}

pub(super) fn origin(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    Ok(Message::Origin(Origin {
        origin_lsn: cursor.lsn("origin's commit position")?,
        name: cursor.text("origin name")?.to_owned(),
    }))
}

pub(super) fn relation(cursor: &mut Cursor<'_>, in_stream: bool) -> Result<Message, Problem> {
    let xid = xid_prefix(cursor, in_stream)?;
    let oid = cursor.oid("relation oid")?;
    let name = TableName { schema: schema(cursor)?, table: cursor.text("relation name")?.to_owned() };
    let letter = cursor.u8("replica identity")?;
    let identity = ReplicaIdentity::from_letter(letter)
        .ok_or(Problem::Unknown { what: "replica identity", value: letter })?;
    let count = usize::from(cursor.u16("number of columns")?);
    // A column takes at least its flags, the name's end, type and modifier.
    let mut columns = Vec::with_capacity(cursor.count(count, 10, "number of columns")?);
    for _ in 0..count {
        columns.push(RelationColumn {
            in_identity: boolean(cursor, "column flags")?,
            name: cursor.text("column name")?.to_owned(),
            type_oid: cursor.oid("column type")?,
            type_modifier: cursor.i32("column type modifier")?,
        });
    }
    Ok(Message::Relation { xid, relation: Relation { oid, name, identity, columns } })
}

pub(super) fn type_name(cursor: &mut Cursor<'_>, in_stream: bool) -> Result<Message, Problem> {
    Ok(Message::Type(TypeName {
        xid: xid_prefix(cursor, in_stream)?,
        oid: cursor.oid("type oid")?,
        schema: schema(cursor)?,
        name: cursor.text("type name")?.to_owned(),
    }))
}

pub(super) fn truncate(cursor: &mut Cursor<'_>, in_stream: bool) -> Result<Message, Problem> {
    const CASCADE: u8 = 1;
    const RESTART_IDENTITY: u8 = 2;
    let xid = xid_prefix(cursor, in_stream)?;
    let count = cursor.u32("number of relations")? as usize;
    let options = cursor.u8("truncate options")?;
    if options & !(CASCADE | RESTART_IDENTITY) != 0 {
        return Err(Problem::Unknown { what: "truncate options", value: options });
    }
    let mut relations = Vec::with_capacity(cursor.count(count, 4, "number of relations")?);
    for _ in 0..count {
        relations.push(cursor.oid("relation oid")?);
    }
    Ok(Message::Truncate {
        xid,
        relations,
        cascade: options & CASCADE != 0,
        restart_identity: options & RESTART_IDENTITY != 0,
    })
}

/// Content stays in the frame.
pub(super) fn logical(frame: Bytes, at: &mut usize, in_stream: bool) -> Result<Message, Problem> {
    let mut cursor = Cursor::new(&frame, *at);
    let result = logical_fields(&mut cursor, in_stream);
    *at = cursor.position();
    let (mut message, length) = result?;
    cursor.end()?;
    let end = cursor.position();
    message.content = frame.slice(end - length..end);
    Ok(Message::Logical(message))
}

fn logical_fields(cursor: &mut Cursor<'_>, in_stream: bool) -> Result<(LogicalMessage, usize), Problem> {
    let message = LogicalMessage {
        xid: xid_prefix(cursor, in_stream)?,
        transactional: boolean(cursor, "message flags")?,
        lsn: cursor.lsn("message position")?,
        prefix: cursor.text("message prefix")?.to_owned(),
        content: Bytes::new(),
    };
    let length = cursor.length("content length")?;
    cursor.bytes(length, "content")?;
    Ok((message, length))
}

pub(super) fn stream_start(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    Ok(Message::StreamStart {
        xid: cursor.u32("transaction id")?,
        first_segment: boolean(cursor, "first segment flag")?,
    })
}

pub(super) fn stream_commit(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    let xid = cursor.u32("transaction id")?;
    no_flags(cursor)?;
    Ok(Message::StreamCommit { xid, commit: commit(cursor)? })
}

/// Position and time follow only with `streaming = parallel`, which needs protocol 4; the frame's length tells.
pub(super) fn stream_abort(cursor: &mut Cursor<'_>, version: u8) -> Result<Message, Problem> {
    let xid = cursor.u32("transaction id")?;
    let subxid = cursor.u32("subtransaction id")?;
    let abort = if version >= 4 && cursor.remaining() > 0 {
        Some((cursor.lsn("abort position")?, cursor.timestamp("abort time")?))
    } else {
        None
    };
    Ok(Message::StreamAbort(StreamAbort { xid, subxid, abort }))
}

pub(super) fn prepared(cursor: &mut Cursor<'_>) -> Result<Prepared, Problem> {
    Ok(Prepared {
        prepare_lsn: cursor.lsn("prepare position")?,
        end_lsn: cursor.lsn("end position")?,
        prepare_time: cursor.timestamp("prepare time")?,
        xid: cursor.u32("transaction id")?,
        gid: cursor.text("global identifier")?.to_owned(),
    })
}

pub(super) fn commit_prepared(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    no_flags(cursor)?;
    Ok(Message::CommitPrepared {
        commit: commit(cursor)?,
        xid: cursor.u32("transaction id")?,
        gid: cursor.text("global identifier")?.to_owned(),
    })
}

pub(super) fn rollback_prepared(cursor: &mut Cursor<'_>) -> Result<Message, Problem> {
    no_flags(cursor)?;
    Ok(Message::RollbackPrepared(RollbackPrepared {
        prepare_end_lsn: cursor.lsn("prepare's end position")?,
        rollback_end_lsn: cursor.lsn("rollback's end position")?,
        prepare_time: cursor.timestamp("prepare time")?,
        rollback_time: cursor.timestamp("rollback time")?,
        xid: cursor.u32("transaction id")?,
        gid: cursor.text("global identifier")?.to_owned(),
    }))
}
