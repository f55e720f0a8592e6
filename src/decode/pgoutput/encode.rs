//! The other direction, for tests only: a message as the server would write it.

use bytes::{BufMut, Bytes};

use super::{Commit, Message, Prepared};
use crate::model::{OldTuple, ReplicaIdentity, Tuple, Value};

/// The frame of `message`. `pg_catalog` is written empty, as the server does.
pub(super) fn encode(message: &Message) -> Bytes {
    let mut out = Vec::new();
    match message {
        Message::Insert { xid, relation, new } => {
            start(&mut out, b'I', *xid);
            out.put_u32(*relation);
            row(&mut out, b'N', new);
        }
        Message::Update { xid, relation, old, new } => {
            start(&mut out, b'U', *xid);
            out.put_u32(*relation);
            if let Some(old) = old {
                old_row(&mut out, old);
            }
            row(&mut out, b'N', new);
        }
        Message::Delete { xid, relation, old } => {
            start(&mut out, b'D', *xid);
            out.put_u32(*relation);
            old_row(&mut out, old);
        }
        Message::Truncate { xid, relations, cascade, restart_identity } => {
            start(&mut out, b'T', *xid);
            out.put_u32(relations.len() as u32);
            out.put_u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            relations.iter().for_each(|&oid| out.put_u32(oid));
        }
        Message::Relation { xid, relation } => {
            start(&mut out, b'R', *xid);
            out.put_u32(relation.oid);
            schema(&mut out, &relation.name.schema);
            text(&mut out, &relation.name.table);
            out.put_u8(match relation.identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            });
            out.put_u16(relation.columns.len() as u16);
            for column in &relation.columns {
                out.put_u8(u8::from(column.in_identity));
                text(&mut out, &column.name);
                out.put_u32(column.type_oid);
                out.put_i32(column.type_modifier);
            }
        }
        Message::Type(name) => {
            start(&mut out, b'Y', name.xid);
            out.put_u32(name.oid);
            schema(&mut out, &name.schema);
            text(&mut out, &name.name);
        }
        Message::Logical(message) => {
            start(&mut out, b'M', message.xid);
            out.put_u8(u8::from(message.transactional));
            out.put_u64(message.lsn.0);
            text(&mut out, &message.prefix);
            out.put_u32(message.content.len() as u32);
            out.put_slice(&message.content);
        }
        other => boundary(&mut out, other),
    }
    out.into()
}

/// Messages that begin and end transactions.
fn boundary(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Begin(begin) => {
            out.put_u8(b'B');
            out.put_u64(begin.final_lsn.0);
            out.put_i64(begin.commit_time.0);
            out.put_u32(begin.xid);
        }
        Message::Commit(positions) => {
            out.put_slice(b"C\0");
            commit(out, positions);
        }
        Message::Origin(origin) => {
            out.put_u8(b'O');
            out.put_u64(origin.origin_lsn.0);
            text(out, &origin.name);
        }
        Message::StreamStart { xid, first_segment } => {
            start(out, b'S', Some(*xid));
            out.put_u8(u8::from(*first_segment));
        }
        Message::StreamStop => out.put_u8(b'E'),
        Message::StreamCommit { xid, commit: positions } => {
            start(out, b'c', Some(*xid));
            out.put_u8(0);
            commit(out, positions);
        }
        Message::StreamAbort(abort) => {
            start(out, b'A', Some(abort.xid));
            out.put_u32(abort.subxid);
            if let Some((lsn, time)) = abort.abort {
                out.put_u64(lsn.0);
                out.put_i64(time.0);
            }
        }
        Message::BeginPrepare(transaction) => {
            out.put_u8(b'b');
            prepared(out, transaction);
        }
        Message::Prepare(transaction) => {
            out.put_slice(b"P\0");
            prepared(out, transaction);
        }
        Message::StreamPrepare(transaction) => {
            out.put_slice(b"p\0");
            prepared(out, transaction);
        }
        Message::CommitPrepared { commit: positions, xid, gid } => {
            out.put_slice(b"K\0");
            commit(out, positions);
            out.put_u32(*xid);
            text(out, gid);
        }
        Message::RollbackPrepared(rollback) => {
            out.put_slice(b"r\0");
            out.put_u64(rollback.prepare_end_lsn.0);
            out.put_u64(rollback.rollback_end_lsn.0);
            out.put_i64(rollback.prepare_time.0);
            out.put_i64(rollback.rollback_time.0);
            out.put_u32(rollback.xid);
            text(out, &rollback.gid);
        }
        other => unreachable!("{} is no boundary", other.kind()),
    }
}

fn start(out: &mut Vec<u8>, tag: u8, xid: Option<u32>) {
    out.put_u8(tag);
    if let Some(xid) = xid {
        out.put_u32(xid);
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn schema(out: &mut Vec<u8>, schema: &str) {
    text(out, if schema == "pg_catalog" { "" } else { schema });
}

fn commit(out: &mut Vec<u8>, commit: &Commit) {
    out.put_u64(commit.commit_lsn.0);
    out.put_u64(commit.end_lsn.0);
    out.put_i64(commit.commit_time.0);
}

fn prepared(out: &mut Vec<u8>, prepared: &Prepared) {
    out.put_u64(prepared.prepare_lsn.0);
    out.put_u64(prepared.end_lsn.0);
    out.put_i64(prepared.prepare_time.0);
    out.put_u32(prepared.xid);
    text(out, &prepared.gid);
}

fn old_row(out: &mut Vec<u8>, old: &OldTuple) {
    match old {
        OldTuple::Key(tuple) => row(out, b'K', tuple),
        OldTuple::Full(tuple) => row(out, b'O', tuple),
    }
}

fn row(out: &mut Vec<u8>, marker: u8, tuple: &Tuple) {
    out.put_u8(marker);
    out.put_u16(tuple.len() as u16);
    for value in tuple.values() {
        let (kind, bytes) = match value {
            Value::Null => {
                out.put_u8(b'n');
                continue;
            }
            Value::Unchanged => {
                out.put_u8(b'u');
                continue;
            }
            Value::Text(bytes) => (b't', bytes),
            Value::Binary(bytes) => (b'b', bytes),
        };
        out.put_u8(kind);
        out.put_u32(bytes.len() as u32);
        out.put_slice(bytes);
    }
}
