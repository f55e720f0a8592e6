//! Messages as wal2json 2.5 wrote them, and damaged ones.

use bytes::Bytes;
use proptest::prelude::*;

use super::shape::tests::known;
use super::*;
use crate::model::{Relation, Tuple};

fn text(value: &str) -> Value<'_> {
    Value::Text(value.as_bytes())
}

fn row(values: &[Value<'_>]) -> Tuple {
    values.iter().copied().collect()
}

fn decode(decoder: &mut Decoder, frame: &str) -> Vec<Message> {
    let mut out = Vec::new();
    decoder.decode(&Bytes::copy_from_slice(frame.as_bytes()), &mut out).unwrap();
    out
}

fn head(action: &str) -> String {
    format!(
        r#"{{"action":"{action}","xid":736,"timestamp":"2000-01-01 00:00:01+00","lsn":"0/1543120","schema":"public","table":"t""#
    )
}

const NEW: &str = r#","columns":[{"name":"id","typeoid":23,"value":1,"position":1},{"name":"t","typeoid":25,"value":"a\tb","position":2},{"name":"g","typeoid":23,"value":2,"position":3},{"name":"n","typeoid":23,"value":null,"position":4}]"#;
const WITHOUT_T: &str = r#","columns":[{"name":"id","typeoid":23,"value":1,"position":1},{"name":"g","typeoid":23,"value":2,"position":3},{"name":"n","typeoid":23,"value":5,"position":4}]"#;

#[test]
fn begin_and_commit_carry_pgoutput_s_positions() {
    let mut decoder = Decoder::new(vec![known()]);
    let begin = r#"{"action":"B","xid":736,"timestamp":"2000-01-01 00:00:01+00","lsn":"0/1543120","nextlsn":"0/1543150"}"#;
    let (lsn, time) = (Lsn(0x154_3120), PgTimestamp(1_000_000));
    assert_eq!(
        decode(&mut decoder, begin),
        [Message::Begin(Begin { final_lsn: lsn, commit_time: time, xid: 736 })]
    );
    assert_eq!(
        decode(&mut decoder, &begin.replace(r#""B""#, r#""C""#)),
        [Message::Commit(Commit { commit_lsn: lsn, end_lsn: Lsn(0x154_3150), commit_time: time })]
    );
}

#[test]
fn a_table_is_described_once_and_its_computed_column_left_out() {
    let mut decoder = Decoder::new(vec![known()]);
    let insert = head("I") + NEW + "}";
    let new = row(&[text("1"), text("a\tb"), Value::Null]);
    let Relation { oid, .. } = known().relation;
    let expected = Message::Insert { xid: None, relation: oid, new };
    let first = [Message::Relation { xid: None, relation: known().relation }, expected.clone()];
    assert_eq!(decode(&mut decoder, &insert), first);
    assert_eq!(decode(&mut decoder, &insert), [expected]);
}

#[test]
fn an_update_keeps_what_is_left_out_and_tells_the_old_key_only_when_it_changed() {
    let mut decoder = Decoder::new(vec![known()]);
    let update = |id: u32| {
        let identity = format!(r#","identity":[{{"name":"id","typeoid":23,"value":{id}}}]}}"#);
        head("U") + WITHOUT_T + &identity
    };
    let new = || row(&[text("1"), Value::Unchanged, text("5")]);
    let messages = decode(&mut decoder, &update(1));
    assert_eq!(messages[1], Message::Update { xid: None, relation: 7, old: None, new: new() });
    let old = Some(OldTuple::Key(row(&[text("9"), Value::Null, Value::Null])));
    assert_eq!(
        decode(&mut decoder, &update(9)),
        [Message::Update { xid: None, relation: 7, old, new: new() }]
    );
}

#[test]
fn a_full_old_row_is_told_always() {
    let mut table = known();
    table.relation.identity = ReplicaIdentity::Full;
    let mut decoder = Decoder::new(vec![table]);
    let identity = NEW.replace("columns", "identity");
    let same = decode(&mut decoder, &format!("{}{NEW}{identity}}}", head("U")));
    let image = row(&[text("1"), text("a\tb"), Value::Null]);
    let old = Some(OldTuple::Full(image.clone()));
    assert_eq!(same[1], Message::Update { xid: None, relation: 7, old, new: image.clone() });
    let gone = decode(&mut decoder, &format!("{}{identity}}}", head("D")));
    assert_eq!(gone, [Message::Delete { xid: None, relation: 7, old: OldTuple::Full(image) }]);
}

#[test]
fn every_family_of_values_is_postgres_s_text() {
    let mut table = known();
    let column = |name: &str, type_oid| crate::model::RelationColumn {
        name: name.into(),
        type_oid,
        type_modifier: -1,
        in_identity: false,
    };
    let values = [
        (16, "true", "t"),
        (16, "false", "f"),
        (17, r#""00ff""#, r"\x00ff"),
        (17, r#""""#, r"\x"),
        (1700, "1.50", "1.50"),
        (701, "1e+300", "1e+300"),
        (701, "-0", "-0"),
        (20, "9223372036854775807", "9223372036854775807"),
        (1231, r#""{NaN,1.0}""#, "{NaN,1.0}"),
        (16_393, r#""t""#, "t"),
        (16_395, r#""\\x01""#, r"\x01"),
        (3802, r#""{\"a\": \"\\u0001\"}""#, r#"{"a": "\u0001"}"#),
        (701, r#""Infinity""#, "Infinity"),
    ];
    table.relation.columns =
        values.iter().enumerate().map(|(i, (oid, ..))| column(&format!("c{i}"), *oid)).collect();
    table.details =
        (1..=values.len()).map(|n| ColumnDetail { attnum: n as i16, may_be_left_out: false }).collect();
    let columns: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(i, (oid, value, _))| {
            format!(r#"{{"name":"c{i}","typeoid":{oid},"value":{value},"position":{}}}"#, i + 1)
        })
        .collect();
    let frame = format!(r#"{},"columns":[{}]}}"#, head("I"), columns.join(","));
    let messages = decode(&mut Decoder::new(vec![table]), &frame);
    let Message::Insert { new, .. } = &messages[1] else { panic!("{messages:?}") };
    for (index, (_, _, meant)) in values.iter().enumerate() {
        assert_eq!(new.get(index), Some(text(meant)), "{index}");
    }
}

#[test]
fn tables_emptied_by_one_statement_come_as_one_message() {
    let mut other = known();
    (other.relation.oid, other.relation.name) = (8, TableName::new("public", "u"));
    let mut decoder = Decoder::new(vec![known(), other]);
    let (t, u) = (head("T") + "}", head("T").replace(r#""t""#, r#""u""#) + "}");
    let unknown = head("T").replace(r#""t""#, r#""x""#) + "}";
    let later = t.replace("0/1543120", "0/1543130");
    let mut out = Vec::new();
    for frame in [&unknown, &t, &u, &later] {
        out.extend(decode(&mut decoder, frame));
    }
    let commit = head("C").replace(r#","schema""#, r#","nextlsn":"0/1543150","schema""#) + "}";
    out.extend(decode(&mut decoder, &commit));
    let truncates: Vec<&Vec<Oid>> = out
        .iter()
        .filter_map(|m| if let Message::Truncate { relations, .. } = m { Some(relations) } else { None })
        .collect();
    assert_eq!(truncates, [&vec![7, 8], &vec![7]]);
    assert!(matches!(out.last(), Some(Message::Commit(_))));
}

#[test]
fn messages_come_with_their_content() {
    let frame = r#"{"action":"M","xid":null,"timestamp":null,"lsn":"0/10","transactional":false,"prefix":"repcloud","content":"a\"b"}"#;
    let messages = decode(&mut Decoder::new(Vec::new()), frame);
    let [Message::Logical(message)] = messages.as_slice() else { panic!("{messages:?}") };
    assert_eq!((message.transactional, message.lsn, &message.content[..]), (false, Lsn(16), &b"a\"b"[..]));
}

#[test]
fn of_some_tables_only_inserts_are_wanted_and_of_others_nothing() {
    let mut table = known();
    table.insert_only = true;
    let mut decoder = Decoder::new(vec![table]);
    assert_eq!(decode(&mut decoder, &(head("U") + NEW + "}")), []);
    assert_eq!(decode(&mut decoder, &(head("T") + "}")), []);
    assert_eq!(decode(&mut decoder, &(head("I").replace(r#""t""#, r#""x""#) + NEW + "}")), []);
    assert_eq!(decode(&mut decoder, &(head("I") + NEW + "}")).len(), 2);
}

#[test]
fn an_error_tells_no_value() {
    let frame = Bytes::from((head("I") + NEW + "}").replace("null", "secret"));
    let error = Decoder::new(vec![known()]).decode(&frame, &mut Vec::new()).unwrap_err().to_string();
    assert!(!error.contains("secret") && error.contains("replication message"), "{error}");
}

proptest! {
    /// Whatever comes, the decoder answers.
    #[test]
    fn damaged_frames_are_errors_or_messages(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
        let mut frame = (head("U") + NEW + &NEW.replace("columns", "identity") + "}").into_bytes();
        let place = at % frame.len();
        frame[place] = byte;
        frame.truncate(frame.len().saturating_sub(cut % 7));
        let mut decoder = Decoder::new(vec![known()]);
        let _ = decoder.decode(&Bytes::from(frame), &mut Vec::new());
    }

    #[test]
    fn random_bytes_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut decoder = Decoder::new(vec![known()]);
        prop_assert!(decoder.decode(&Bytes::from(bytes), &mut Vec::new()).is_err());
    }
}
