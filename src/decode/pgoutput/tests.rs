//! Frames built by hand from the documentation, one for every message and every way to be wrong.

use bytes::Bytes;

use super::encode::encode;
use super::*;
use crate::decode::Problem;
use crate::model::{
    Lsn, OldTuple, PgTimestamp, Relation, RelationColumn, ReplicaIdentity, RetryAdvice, TableName, Tuple,
    Value,
};

/// Bytes from hexadecimal text with blanks; `'text'` stands for itself.
fn frame(text: &str) -> Bytes {
    let mut out = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<_> = part.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        out.extend(digits.chunks(2).map(pair));
    }
    out.into()
}

const LSN_1: &str = "00000001 0000000A";
const LSN_2: &str = "00000001 0000000B";
const TIME: &str = "FFFFFFFF FFFFFFFE";
const FIRST: Lsn = Lsn(0x1_0000_000A);
const SECOND: Lsn = Lsn(0x1_0000_000B);
const WHEN: PgTimestamp = PgTimestamp(-2);

fn tuple(values: &[Value<'_>]) -> Tuple {
    values.iter().copied().collect()
}

fn commit() -> Commit {
    Commit { commit_lsn: FIRST, end_lsn: SECOND, commit_time: WHEN }
}

fn prepared() -> Prepared {
    Prepared { prepare_lsn: FIRST, end_lsn: SECOND, prepare_time: WHEN, xid: 7, gid: "g".into() }
}

fn relation(schema: &str) -> Relation {
    let column = |name: &str, in_identity| RelationColumn {
        name: name.into(),
        type_oid: 23,
        type_modifier: -1,
        in_identity,
    };
    Relation {
        oid: 16_384,
        name: TableName { schema: schema.into(), table: "Ä b".into() },
        identity: ReplicaIdentity::Index,
        columns: vec![column("a", true), column("", false)],
    }
}

/// Messages that come outside of a stream block, with the first version that has them.
fn outside() -> Vec<(u8, String, Message)> {
    let rollback = RollbackPrepared {
        prepare_end_lsn: FIRST,
        rollback_end_lsn: SECOND,
        prepare_time: WHEN,
        rollback_time: PgTimestamp(5),
        xid: 7,
        gid: "g".into(),
    };
    let abort = StreamAbort { xid: 7, subxid: 8, abort: None };
    vec![
        (
            1,
            format!("'B' {LSN_1} {TIME} 00000007"),
            Message::Begin(Begin { final_lsn: FIRST, commit_time: WHEN, xid: 7 }),
        ),
        (1, format!("'C' 00 {LSN_1} {LSN_2} {TIME}"), Message::Commit(commit())),
        (
            1,
            format!("'O' {LSN_1} 'here' 00"),
            Message::Origin(Origin { origin_lsn: FIRST, name: "here".into() }),
        ),
        (2, "'S' 00000007 01".into(), Message::StreamStart { xid: 7, first_segment: true }),
        (
            2,
            format!("'c' 00000007 00 {LSN_1} {LSN_2} {TIME}"),
            Message::StreamCommit { xid: 7, commit: commit() },
        ),
        (2, "'A' 00000007 00000008".into(), Message::StreamAbort(abort)),
        (
            4,
            format!("'A' 00000007 00000008 {LSN_1} {TIME}"),
            Message::StreamAbort(StreamAbort { abort: Some((FIRST, WHEN)), ..abort }),
        ),
        (3, format!("'b' {LSN_1} {LSN_2} {TIME} 00000007 'g' 00"), Message::BeginPrepare(prepared())),
        (3, format!("'P' 00 {LSN_1} {LSN_2} {TIME} 00000007 'g' 00"), Message::Prepare(prepared())),
        (3, format!("'p' 00 {LSN_1} {LSN_2} {TIME} 00000007 'g' 00"), Message::StreamPrepare(prepared())),
        (
            3,
            format!("'K' 00 {LSN_1} {LSN_2} {TIME} 00000007 'g' 00"),
            Message::CommitPrepared { commit: commit(), xid: 7, gid: "g".into() },
        ),
        (
            3,
            format!("'r' 00 {LSN_1} {LSN_2} {TIME} 0000000000000005 00000007 'g' 00"),
            Message::RollbackPrepared(rollback),
        ),
    ]
}

/// Messages that come inside and outside of a stream block; `X` marks where the transaction id goes.
fn changes(xid: Option<u32>) -> Vec<(String, Message)> {
    let row =
        || tuple(&[Value::Text(b"1"), Value::Null, Value::Unchanged, Value::Binary(b"\0"), Value::Text(b"")]);
    let key = || tuple(&[Value::Text(b"0")]);
    let row_hex = "0005 't' 00000001 '1' 'n' 'u' 'b' 00000001 00 't' 00000000";
    let type_name = |schema: &str| TypeName { xid, oid: 9, schema: schema.into(), name: "mood".into() };
    let message = LogicalMessage {
        xid,
        transactional: true,
        lsn: FIRST,
        prefix: "repcloud".into(),
        content: Bytes::from_static(b"\0\xFF"),
    };
    let columns = "'i' 0002 01 'a' 00 00000017 FFFFFFFF 00 00 00000017 FFFFFFFF";
    vec![
        ("'R' X 00004000 's' 00 'Ä b' 00 COLUMNS", Message::Relation { xid, relation: relation("s") }),
        ("'R' X 00004000 00 'Ä b' 00 COLUMNS", Message::Relation { xid, relation: relation("pg_catalog") }),
        ("'Y' X 00000009 's' 00 'mood' 00", Message::Type(type_name("s"))),
        ("'Y' X 00000009 00 'mood' 00", Message::Type(type_name("pg_catalog"))),
        ("'I' X 00000005 'N' ROW", Message::Insert { xid, relation: 5, new: row() }),
        ("'I' X 00000005 'N' 0000", Message::Insert { xid, relation: 5, new: tuple(&[]) }),
        ("'U' X 00000005 'N' ROW", Message::Update { xid, relation: 5, old: None, new: row() }),
        (
            "'U' X 00000005 'K' 0001 't' 00000001 '0' 'N' ROW",
            Message::Update { xid, relation: 5, old: Some(OldTuple::Key(key())), new: row() },
        ),
        (
            "'U' X 00000005 'O' ROW 'N' ROW",
            Message::Update { xid, relation: 5, old: Some(OldTuple::Full(row())), new: row() },
        ),
        (
            "'D' X 00000005 'K' 0001 't' 00000001 '0'",
            Message::Delete { xid, relation: 5, old: OldTuple::Key(key()) },
        ),
        ("'D' X 00000005 'O' ROW", Message::Delete { xid, relation: 5, old: OldTuple::Full(row()) }),
        (
            "'T' X 00000002 03 00000005 00000006",
            Message::Truncate { xid, relations: vec![5, 6], cascade: true, restart_identity: true },
        ),
        (
            "'T' X 00000001 02 00000005",
            Message::Truncate { xid, relations: vec![5], cascade: false, restart_identity: true },
        ),
        ("'M' X 01 00000001 0000000A 'repcloud' 00 00000002 00FF", Message::Logical(message)),
    ]
    .into_iter()
    .map(|(hex, message)| {
        let xid = xid.map_or(String::new(), |xid| format!("{xid:08X}"));
        (hex.replace('X', &xid).replace("ROW", row_hex).replace("COLUMNS", columns), message)
    })
    .collect()
}

fn in_stream(version: u8) -> Decoder {
    let mut decoder = Decoder::new(version);
    decoder.decode(frame("'S' 00000007 00")).unwrap();
    decoder
}

#[test]
fn every_message_is_read_from_bytes_built_by_hand() {
    for (version, hex, message) in outside() {
        assert_eq!(Decoder::new(version).decode(frame(&hex)).unwrap(), message, "{hex}");
        assert_eq!(encode(&message), frame(&hex), "{hex}");
    }
    for (hex, message) in changes(None) {
        assert_eq!(Decoder::new(1).decode(frame(&hex)).unwrap(), message, "{hex}");
        assert_eq!(encode(&message), frame(&hex), "{hex}");
    }
    for (hex, message) in changes(Some(0xAB)) {
        assert_eq!(in_stream(2).decode(frame(&hex)).unwrap(), message, "{hex}");
        assert_eq!(encode(&message), frame(&hex), "{hex}");
    }
}

#[test]
fn values_lie_in_the_received_frame() {
    let frame = frame("'U' 00000005 'K' 0001 't' 00000001 '0' 'N' 0001 't' 00000003 'abc'");
    let (start, end) = (frame.as_ptr() as usize, frame.as_ptr() as usize + frame.len());
    let Ok(Message::Update { old: Some(old), new, .. }) = Decoder::new(1).decode(frame.clone()) else {
        unreachable!("no update")
    };
    for tuple in [old.tuple(), &new] {
        let Some(Value::Text(bytes)) = tuple.get(0) else { unreachable!("no text") };
        assert!((start..end).contains(&(bytes.as_ptr() as usize)));
    }
}

#[test]
fn the_stream_block_is_the_only_state() {
    let mut decoder = Decoder::new(2);
    assert!(!decoder.in_stream());
    decoder.decode(frame("'S' 00000007 01")).unwrap();
    assert!(decoder.in_stream());
    // What cannot be read changes nothing.
    decoder.decode(frame("'E' 00")).unwrap_err();
    assert!(decoder.in_stream());
    assert_eq!(decoder.decode(frame("'E'")).unwrap(), Message::StreamStop);
    assert!(!decoder.in_stream());
    decoder.decode(frame("'S' 00000007 02")).unwrap_err();
    assert!(!decoder.in_stream());
}

#[test]
fn a_message_of_a_later_version_is_refused() {
    for (version, hex, message) in outside() {
        let short_abort = matches!(message, Message::StreamAbort(StreamAbort { abort: None, .. }));
        if version == 1 || short_abort {
            continue;
        }
        let problem = Decoder::new(version - 1).decode(frame(&hex)).unwrap_err().problem;
        match message {
            Message::StreamAbort(StreamAbort { abort: Some(_), .. }) => {
                assert_eq!(problem, Problem::Trailing(16));
            }
            _ => assert_eq!(problem, Problem::Version { needs: version }, "{hex}"),
        }
    }
}

/// PostgreSQL 18 announces a rollback that nobody has to hear of.
#[test]
fn a_stream_abort_may_come_without_a_stream() {
    let message = Message::StreamAbort(StreamAbort { xid: 7, subxid: 8, abort: None });
    assert_eq!(Decoder::new(1).decode(frame("'A' 00000007 00000008")).unwrap(), message);
}

#[test]
fn a_message_in_the_wrong_place_is_refused() {
    for (_, hex, message) in outside() {
        let result = in_stream(4).decode(frame(&hex));
        match message {
            Message::Origin(_) => assert_eq!(result, Ok(message)),
            _ => assert_eq!(result.unwrap_err().problem, Problem::InsideStream, "{hex}"),
        }
    }
    let error = Decoder::new(2).decode(frame("'E'")).unwrap_err();
    assert_eq!(error.problem, Problem::OutsideStream);
}

#[test]
fn damage_is_named_with_its_place() {
    use Problem::*;
    let unknown = |what, value| Unknown { what, value };
    for (hex, offset, problem) in [
        ("", 0, Empty),
        ("'?'", 0, unknown("message type", b'?')),
        ("'C' 01", 2, unknown("flags", 1)),
        ("'I' 00000005", 5, Truncated("row marker")),
        ("'I' 00000005 'K'", 6, unknown("row marker", b'K')),
        ("'U' 00000005 'K' 0000 'K' 0000", 9, unknown("row marker", b'K')),
        ("'D' 00000005 'N' 0000", 6, unknown("row marker", b'N')),
        ("'I' 00000005 'N' FFFF", 6, TooLarge("number of columns")),
        ("'I' 00000005 'N' 0002 'n'", 6, TooLarge("number of columns")),
        ("'I' 00000005 'N' 0001 'x'", 8, unknown("column kind", b'x')),
        ("'I' 00000005 'N' 0001 't' 00", 8, Truncated("column length")),
        ("'I' 00000005 'N' 0001 't' 00000002 '1'", 8, TooLarge("column length")),
        ("'I' 00000005 'N' 0001 't' FFFFFFFF", 8, TooLarge("column length")),
        ("'I' 00000005 'N' 0001 'n' 'n'", 9, Trailing(1)),
        ("'T' FFFFFFFF 00", 6, TooLarge("number of relations")),
        ("'T' 00000000 04", 6, unknown("truncate options", 4)),
        ("'R' 00000005 'a' FF 00", 5, NotUtf8("schema name")),
        ("'R' 00000005 'a'", 5, Truncated("schema name")),
        ("'R' 00000005 'a' 00 'b' 00 'x'", 10, unknown("replica identity", b'x')),
        ("'R' 00000005 'a' 00 'b' 00 'd' FFFF 00", 12, TooLarge("number of columns")),
        ("'R' 00000005 00 00 'd' 0001 02 00 0000000000000000", 11, unknown("column flags", 2)),
        ("'M' 02 0000000000000000 00 00000000", 2, unknown("message flags", 2)),
        ("'M' 00 0000000000000000 00 7FFFFFFF 'x'", 11, TooLarge("content length")),
        ("'M' 00 0000000000000000 00 00000001 'xy'", 16, Trailing(1)),
    ] {
        let error = Decoder::new(1).decode(frame(hex)).unwrap_err();
        assert_eq!((error.offset, error.problem), (offset, problem), "{hex}");
        assert_eq!(error.advice(), RetryAdvice::Stop);
    }
}

#[test]
fn an_error_says_what_and_where() {
    let error = Decoder::new(1).decode(frame("'I' 00000005 'N' 0001 'x'")).unwrap_err().to_string();
    assert!(
        error.starts_with("replication message Insert cannot be read at byte 8: unknown column kind 0x78"),
        "{error}"
    );
    let error = Decoder::new(1).decode(frame("'S' 00000005 01")).unwrap_err().to_string();
    assert!(error.contains("Stream Start") && error.contains("version 2"), "{error}");
}
