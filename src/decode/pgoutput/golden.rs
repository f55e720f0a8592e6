//! What real servers sent (`tests/golden/pgoutput/`, recorded by `record.sh` there).

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::encode::encode;
use super::{Decoder, Message};
use crate::model::{Oid, OldTuple, Relation, ReplicaIdentity, Tuple, Value};

/// Every recording, with the protocol version it was made with.
pub(super) const RECORDINGS: [(u8, &str); 4] = [
    (1, include_str!("../../../tests/golden/pgoutput/pg15-v1.hex")),
    (2, include_str!("../../../tests/golden/pgoutput/pg15-v2-streaming.hex")),
    (3, include_str!("../../../tests/golden/pgoutput/pg15-v3-two-phase.hex")),
    (4, include_str!("../../../tests/golden/pgoutput/pg18-v4-parallel.hex")),
];

/// The frames of a recording.
pub(super) fn frames(recording: &str) -> Vec<Bytes> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let lines = recording.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn messages(version: u8) -> Vec<Message> {
    let (_, recording) = RECORDINGS[usize::from(version) - 1];
    let mut decoder = Decoder::new(version);
    frames(recording).into_iter().map(|frame| decoder.decode(frame).unwrap()).collect()
}

#[test]
fn every_recorded_frame_is_read_and_written_back_to_the_same_bytes() {
    for (version, recording) in RECORDINGS {
        let mut decoder = Decoder::new(version);
        for frame in frames(recording) {
            let message = decoder.decode(frame.clone()).unwrap();
            assert_eq!(encode(&message), frame, "{message:?}");
        }
    }
}

#[test]
fn every_recorded_frame_is_refused_when_it_is_cut_or_lengthened_anywhere() {
    for (version, recording) in RECORDINGS {
        let mut decoder = Decoder::new(version);
        for frame in frames(recording) {
            for end in 0..frame.len() {
                // The one ambiguity of the protocol: a Stream Abort with and without position and time.
                let short_abort = frame[0] == b'A' && end == 9;
                assert_eq!(decoder.clone().decode(frame.slice(..end)).is_ok(), short_abort, "{frame:?}");
            }
            let longer = [&frame[..], b"\0"].concat();
            assert!(decoder.clone().decode(longer.into()).is_err(), "{frame:?}");
            decoder.decode(frame).unwrap();
        }
    }
}

/// The first protocol's whole history, as text without oids and positions, against a text that was read
/// line by line beside `history.sql`.
#[test]
fn the_recorded_history_means_what_was_done() {
    let mut relations = HashMap::new();
    let mut text = String::new();
    for message in messages(1) {
        writeln!(text, "{}", render(&message, &mut relations)).unwrap();
    }
    assert_eq!(text, include_str!("../../../tests/golden/pgoutput/pg15-v1.txt"));
}

#[test]
fn positions_agree_with_each_other() {
    let mut begun = None;
    let mut end = crate::model::Lsn::INVALID;
    let mut transactions = 0;
    for message in messages(1) {
        match message {
            Message::Begin(begin) => {
                assert!(begin.final_lsn >= end, "commit order");
                assert!(begin.commit_time.0 >= 757_382_400_000_000, "since 2024-01-01");
                begun = Some(begin);
            }
            Message::Commit(commit) => {
                let begin = begun.take().unwrap();
                assert_eq!((commit.commit_lsn, commit.commit_time), (begin.final_lsn, begin.commit_time));
                assert!(commit.end_lsn > commit.commit_lsn);
                end = commit.end_lsn;
                transactions += 1;
            }
            _ => {}
        }
    }
    assert_eq!(transactions, 20);
}

/// Inside a stream block every change names its (sub)transaction; those rolled back are named by an abort.
#[test]
fn streamed_changes_carry_their_transaction() {
    for version in [2, 4] {
        let (mut top, mut changes, mut stopped, mut aborted) = (None, HashMap::new(), 0, Vec::new());
        for message in messages(version) {
            match message {
                Message::StreamStart { xid, first_segment } => {
                    assert_eq!(first_segment, top != Some(xid));
                    top = Some(xid);
                }
                Message::StreamStop => stopped += 1,
                Message::Insert { xid: Some(xid), .. } => *changes.entry(xid).or_insert(0) += 1,
                Message::StreamAbort(abort) => {
                    assert_eq!(abort.abort.is_some(), version == 4);
                    assert!(changes.contains_key(&abort.subxid) && Some(abort.xid) == top);
                    aborted.push(abort.subxid);
                }
                _ => {}
            }
        }
        assert!(stopped >= 2 && !aborted.is_empty(), "{stopped} {aborted:?}");
        assert_eq!(
            changes.remove(&aborted[0]),
            Some(497 - 420),
            "the subtransaction's part of the first block"
        );
    }
}

#[test]
fn prepared_transactions_are_read() {
    for version in [3, 4] {
        let mut seen = Vec::new();
        for message in messages(version) {
            match &message {
                Message::BeginPrepare(p) | Message::Prepare(p) | Message::StreamPrepare(p) => {
                    assert!(p.end_lsn > p.prepare_lsn && p.xid > 0);
                    seen.push((message.kind(), p.gid.clone()));
                }
                Message::CommitPrepared { gid, commit, .. } => {
                    assert!(commit.end_lsn > commit.commit_lsn);
                    seen.push((message.kind(), gid.clone()));
                }
                Message::RollbackPrepared(rollback) => {
                    assert!(rollback.rollback_end_lsn > rollback.prepare_end_lsn);
                    assert!(rollback.rollback_time >= rollback.prepare_time);
                    seen.push((message.kind(), rollback.gid.clone()));
                }
                _ => {}
            }
        }
        let expected = [
            ("Begin Prepare", "first 'gid'"),
            ("Prepare", "first 'gid'"),
            ("Commit Prepared", "first 'gid'"),
            ("Begin Prepare", "second"),
            ("Prepare", "second"),
            ("Rollback Prepared", "second"),
            ("Stream Prepare", "third"),
            ("Commit Prepared", "third"),
        ];
        assert_eq!(seen, expected.map(|(kind, gid)| (kind, gid.to_owned())));
    }
}

fn render(message: &Message, relations: &mut HashMap<Oid, Relation>) -> String {
    let name = |oid: &Oid| relations[oid].name.to_string();
    match message {
        Message::Begin(_) => "begin".into(),
        Message::Commit(_) => "commit".into(),
        Message::Origin(origin) => format!("origin {} {}", origin.name, origin.origin_lsn),
        Message::Relation { relation, .. } => {
            let columns: Vec<_> = relation.columns.iter().map(column).collect();
            let identity = match relation.identity {
                ReplicaIdentity::Default => "default",
                ReplicaIdentity::Nothing => "nothing",
                ReplicaIdentity::Full => "full",
                ReplicaIdentity::Index => "index",
            };
            let text = format!("relation {} {identity} ({})", relation.name, columns.join(", "));
            relations.insert(relation.oid, relation.clone());
            text
        }
        Message::Type(name) => format!("type {}.{}", name.schema, name.name),
        Message::Insert { relation, new, .. } => format!("insert {} {}", name(relation), row(new)),
        Message::Update { relation, old, new, .. } => {
            let old = old.as_ref().map_or(String::new(), |old| old_row(old) + " -> ");
            format!("update {} {old}{}", name(relation), row(new))
        }
        Message::Delete { relation, old, .. } => format!("delete {} {}", name(relation), old_row(old)),
        Message::Truncate { relations, cascade, restart_identity, .. } => {
            let names: Vec<_> = relations.iter().map(name).collect();
            format!("truncate {} cascade={cascade} restart_identity={restart_identity}", names.join(", "))
        }
        Message::Logical(message) => format!(
            "message transactional={} {}: {}",
            message.transactional,
            message.prefix,
            String::from_utf8_lossy(&message.content)
        ),
        other => other.kind().into(),
    }
}

fn column(column: &crate::model::RelationColumn) -> String {
    let key = if column.in_identity { "*" } else { "" };
    // Oids of types made by users differ from run to run.
    let oid = if column.type_oid < 10_000 { column.type_oid.to_string() } else { "user".into() };
    format!("{key}{}:{oid}/{}", column.name, column.type_modifier)
}

fn old_row(old: &OldTuple) -> String {
    match old {
        OldTuple::Key(tuple) => format!("key{}", row(tuple)),
        OldTuple::Full(tuple) => format!("full{}", row(tuple)),
    }
}

fn row(tuple: &Tuple) -> String {
    let value = |value| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Binary(bytes) => format!("binary {bytes:?}"),
        Value::Text(bytes) if bytes.len() > 100 => format!("<{} bytes>", bytes.len()),
        Value::Text(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
    };
    format!("[{}]", tuple.values().map(value).collect::<Vec<_>>().join(", "))
}
