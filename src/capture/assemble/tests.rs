use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::decode::pgoutput::{Decoder, StreamAbort};
use crate::model::{OldTuple, PgTimestamp, RelationColumn, ReplicaIdentity, RetryAdvice, TableName, Value};

fn options(max_changes: usize, max_bytes: usize) -> AssembleOptions {
    AssembleOptions { skip_before: Lsn::INVALID, max_changes, max_bytes }
}

fn unlimited() -> Assembler {
    Assembler::new(options(usize::MAX, usize::MAX))
}

fn relation(oid: Oid, columns: usize) -> Relation {
    let column = |index| RelationColumn {
        name: format!("c{index}"),
        type_oid: 25,
        type_modifier: -1,
        in_identity: index == 0,
    };
    Relation {
        oid,
        name: TableName { schema: "s".into(), table: format!("t{oid}") },
        identity: ReplicaIdentity::Default,
        columns: (0..columns).map(column).collect(),
    }
}

fn described(oid: Oid, columns: usize) -> Message {
    Message::Relation { xid: None, relation: relation(oid, columns) }
}

fn begin(xid: u32, commit_lsn: u64) -> Message {
    Message::Begin(Begin { final_lsn: Lsn(commit_lsn), commit_time: PgTimestamp(i64::from(xid)), xid })
}

fn commit(commit_lsn: u64, end_lsn: u64) -> Message {
    let commit_time = PgTimestamp(0);
    Message::Commit(Commit { commit_lsn: Lsn(commit_lsn), end_lsn: Lsn(end_lsn), commit_time })
}

fn row(text: &str, columns: usize) -> Tuple {
    std::iter::once(Value::Text(text.as_bytes()))
        .chain(std::iter::repeat(Value::Null))
        .take(columns)
        .collect()
}

fn insert(oid: Oid, text: &str) -> Message {
    Message::Insert { xid: None, relation: oid, new: row(text, 1) }
}

fn own(prefix: &str, transactional: bool) -> Message {
    Message::Logical(LogicalMessage {
        xid: None,
        transactional,
        lsn: Lsn(1),
        prefix: prefix.into(),
        content: "nonce".into(),
    })
}

fn feed(assembler: &mut Assembler, messages: impl IntoIterator<Item = Message>) {
    messages.into_iter().for_each(|message| assembler.push(message).unwrap());
}

/// Xid, range of changes and end of each span.
fn spans(batch: &TxnBatch) -> Vec<(u32, Range<usize>, Option<u64>)> {
    batch.txns.iter().map(|t| (t.txn.xid, t.changes.clone(), t.end_lsn.map(|l| l.0))).collect()
}

#[test]
fn transactions_become_spans_in_order() {
    let mut assembler = unlimited();
    feed(&mut assembler, [begin(7, 100), described(1, 1), insert(1, "a"), insert(1, "bc"), commit(100, 110)]);
    feed(&mut assembler, [begin(5, 110), insert(1, "d"), commit(110, 120)]);
    let batch = assembler.take();
    assert_eq!(spans(&batch), [(7, 0..2, Some(110)), (5, 2..3, Some(120))]);
    assert_eq!((batch.changes.len(), batch.bytes, batch.caught_up_to), (3, 4, Lsn(120)));
    assert_eq!(batch.txns[0].txn.commit_time, PgTimestamp(7));
    assert!(!batch.is_open() && !assembler.pending());
}

#[test]
fn a_batch_taken_inside_a_transaction_goes_on_in_the_next() {
    let mut assembler = unlimited();
    feed(&mut assembler, [begin(7, 100)]);
    let before_any_change = assembler.take();
    assert!(before_any_change.is_empty() && !before_any_change.is_open());
    feed(&mut assembler, [described(1, 1), insert(1, "a")]);
    assert!(assembler.in_transaction());
    let first = assembler.take();
    let nothing_new = assembler.take();
    assembler.keepalive(Lsn(5_000));
    assert!(!assembler.pending());
    feed(&mut assembler, [insert(1, "b"), commit(100, 110)]);
    let last = assembler.take();
    assert_eq!(spans(&first), [(7, 0..1, None)]);
    assert_eq!(spans(&nothing_new), [(7, 0..0, None)]);
    assert_eq!(spans(&last), [(7, 0..1, Some(110))]);
    assert_eq!(first.txns[0].txn, last.txns[0].txn);
    assert_eq!([first.caught_up_to, nothing_new.caught_up_to, last.caught_up_to], [Lsn(0), Lsn(0), Lsn(110)]);
}

/// The end of a transaction whose changes went before must arrive, however empty.
#[test]
fn the_end_of_a_continued_transaction_is_never_folded() {
    let mut assembler = unlimited();
    feed(&mut assembler, [begin(7, 100), described(1, 1), insert(1, "a")]);
    assembler.take();
    feed(
        &mut assembler,
        [commit(100, 110), begin(8, 110), commit(110, 120), begin(9, 120), commit(120, 130)],
    );
    assert_eq!(spans(&assembler.take()), [(7, 0..0, Some(110)), (9, 0..0, Some(130))]);
}

#[test]
fn empty_transactions_in_a_row_hold_one_span_and_advance_the_position() {
    let mut assembler = unlimited();
    for n in 1..=10_000 {
        feed(
            &mut assembler,
            [begin(n, u64::from(n) * 10), commit(u64::from(n) * 10, u64::from(n) * 10 + 10)],
        );
    }
    feed(&mut assembler, [begin(20_000, 200_000), described(1, 1), insert(1, "a"), commit(200_000, 200_010)]);
    feed(&mut assembler, [begin(20_001, 200_010), commit(200_010, 200_020)]);
    let batch = assembler.take();
    let expected =
        [(10_000, 0..0, Some(100_010)), (20_000, 0..1, Some(200_010)), (20_001, 1..1, Some(200_020))];
    assert_eq!(spans(&batch), expected);
    assert_eq!(batch.caught_up_to, Lsn(200_020));
}

#[test]
fn what_the_checkpoint_covers_is_dropped_but_its_descriptions_are_kept() {
    let mut assembler = Assembler::new(AssembleOptions { skip_before: Lsn(110), ..options(10, 10) });
    feed(&mut assembler, [begin(7, 100), described(1, 1), insert(1, "a"), own("repcloud", true)]);
    // A table that is not described is no error in what is dropped: its row is not looked at.
    feed(&mut assembler, [insert(2, "?")]);
    assert!(assembler.in_transaction() && !assembler.pending());
    assert!(assembler.take().is_empty());
    feed(&mut assembler, [commit(100, 110)]);
    assert!(!assembler.pending() && assembler.take_own_messages().is_empty());
    // Starts exactly where the checkpoint ends: new.
    feed(&mut assembler, [begin(8, 110), insert(1, "b"), commit(110, 120)]);
    let batch = assembler.take();
    assert_eq!(spans(&batch), [(8, 0..1, Some(120))]);
    assert_eq!(batch.caught_up_to, Lsn(120));
}

#[test]
fn keepalives_advance_only_between_transactions_and_only_forward() {
    let mut assembler = Assembler::new(AssembleOptions { skip_before: Lsn(50), ..options(10, 10) });
    assert_eq!(assembler.take().caught_up_to, Lsn(50));
    assembler.keepalive(Lsn(40));
    assert!(!assembler.pending());
    assembler.keepalive(Lsn(60));
    assert!(assembler.pending());
    let batch = assembler.take();
    assert!(batch.is_empty() && !assembler.pending());
    assert_eq!(batch.caught_up_to, Lsn(60));
    feed(&mut assembler, [begin(7, 60)]);
    assembler.keepalive(Lsn(70));
    assert_eq!(assembler.take().caught_up_to, Lsn(60));
}

#[test]
fn an_equal_description_is_no_change() {
    let mut assembler = unlimited();
    feed(&mut assembler, [begin(7, 100), described(1, 1), insert(1, "a"), described(1, 1), insert(1, "b")]);
    feed(&mut assembler, [described(1, 2)]);
    let wide = Message::Insert { xid: None, relation: 1, new: row("c", 2) };
    feed(&mut assembler, [wide]);
    let batch = assembler.take();
    let tables: Vec<_> = batch
        .changes
        .iter()
        .map(|change| match change {
            Change::Insert { relation, .. } => Arc::clone(relation),
            other => unreachable!("{other:?}"),
        })
        .collect();
    assert!(Arc::ptr_eq(&tables[0], &tables[1]));
    assert_eq!((tables[1].columns.len(), tables[2].columns.len()), (1, 2));
    assert!(Arc::ptr_eq(&tables[2], assembler.relation(1).unwrap()));
}

#[test]
fn every_kind_of_change_is_passed_on() {
    let mut assembler = unlimited();
    feed(&mut assembler, [begin(7, 100), described(1, 1), described(2, 1)]);
    let old = Some(OldTuple::Full(row("a", 1)));
    feed(
        &mut assembler,
        [
            Message::Update { xid: None, relation: 1, old: old.clone(), new: row("b", 1) },
            Message::Delete { xid: None, relation: 2, old: OldTuple::Key(row("k", 1)) },
            Message::Truncate { xid: None, relations: vec![2, 1], cascade: true, restart_identity: false },
            Message::Origin(crate::decode::pgoutput::Origin { origin_lsn: Lsn(1), name: "o".into() }),
            commit(100, 110),
        ],
    );
    let (one, two) = (Arc::new(relation(1, 1)), Arc::new(relation(2, 1)));
    assert_eq!(
        assembler.take().changes,
        [
            Change::Update { relation: Arc::clone(&one), old, new: row("b", 1) },
            Change::Delete { relation: Arc::clone(&two), old: OldTuple::Key(row("k", 1)) },
            Change::Truncate { relations: vec![two, one], cascade: true, restart_identity: false },
        ]
    );
}

#[test]
fn our_messages_are_surfaced_with_their_transaction_and_others_dropped() {
    let mut assembler = unlimited();
    feed(&mut assembler, [own("repcloud", false), begin(7, 100), own("other", true), own("repcloud", true)]);
    feed(&mut assembler, [commit(100, 110)]);
    let messages = assembler.take_own_messages();
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].txn.xid, &messages[0].message.content[..]), (7, &b"nonce"[..]));
    assert!(assembler.take_own_messages().is_empty());
}

#[test]
fn limits_are_reached_by_count_and_by_bytes() {
    for (max_changes, max_bytes, full_after) in [(2, 100, 2), (100, 3, 2), (100, 2, 1), (1, 1, 1)] {
        let mut assembler = Assembler::new(options(max_changes, max_bytes));
        feed(&mut assembler, [begin(7, 100), described(1, 1)]);
        let mut changes = 0;
        while !assembler.is_full() {
            feed(&mut assembler, [insert(1, "ab")]);
            changes += 1;
        }
        assert_eq!((changes, assembler.pending_changes()), (full_after, full_after));
        assembler.take();
        assert!(!assembler.is_full());
    }
}

#[test]
fn contradictions_are_named() {
    let described = || described(1, 1);
    let wide =
        Message::Update { xid: None, relation: 1, old: Some(OldTuple::Full(row("", 2))), new: row("", 1) };
    let gone =
        Message::Truncate { xid: None, relations: vec![1, 9], cascade: false, restart_identity: false };
    let cases: Vec<(Vec<Message>, &str)> = vec![
        (vec![insert(1, "a")], "a Insert message came outside of a transaction"),
        (vec![commit(1, 2)], "a Commit message came outside"),
        (vec![own("repcloud", true)], "a Message message came outside"),
        (vec![begin(7, 100), insert(1, "a")], "a Insert message is for table oid 1"),
        (vec![begin(7, 100), described(), gone], "a Truncate message is for table oid 9"),
        (vec![begin(7, 100), described(), wide], "a row of s.t1 came with 2 columns"),
        (vec![begin(7, 100), begin(8, 200)], "transaction 8 began before transaction 7 had ended"),
        (vec![begin(7, 100), commit(101, 110)], "transaction 7 was announced to commit at 0/64"),
        (vec![begin(7, 100), commit(100, 100)], "ended with commit 0/64 and end 0/64"),
        (vec![begin(7, 100), commit(100, 110), begin(8, 109)], "before 0/6E which was already complete"),
        (vec![Message::StreamStop], "a Stream Stop message came although"),
        (vec![Message::StreamStart { xid: 1, first_segment: true }], "a Stream Start message came although"),
    ];
    for (mut messages, expected) in cases {
        let mut assembler = unlimited();
        let last = messages.pop().unwrap();
        feed(&mut assembler, messages);
        let error = assembler.push(last).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.advice(), RetryAdvice::Stop);
    }
    let mut assembler = Assembler::new(AssembleOptions { skip_before: Lsn(105), ..options(10, 10) });
    feed(&mut assembler, [begin(7, 100)]);
    let error = assembler.push(commit(100, 110)).unwrap_err();
    assert!(matches!(error, AssembleError::CheckpointInside { xid: 7, .. }), "{error}");
    let mut assembler = unlimited();
    assembler.keepalive(Lsn(200));
    let error = assembler.push(begin(7, 100)).unwrap_err();
    assert_eq!(error, AssembleError::OutOfOrder { xid: 7, commit_lsn: Lsn(100), after: Lsn(200) });
}

#[test]
fn a_rollback_that_the_server_announces_changes_nothing() {
    let abort = StreamAbort { xid: 9, subxid: 9, abort: None };
    let mut assembler = unlimited();
    feed(&mut assembler, [described(1, 1), begin(7, 100), insert(1, "a"), commit(100, 110)]);
    feed(&mut assembler, [Message::StreamAbort(abort), begin(8, 120), insert(1, "b"), commit(120, 130)]);
    assert_eq!(spans(&assembler.take()), [(7, 0..1, Some(110)), (8, 1..2, Some(130))]);
}

/// Pushes a recorded stream; the transactions that arrived, and the error that ended it.
fn recorded(version: u8, recording: &str) -> (TxnBatch, Option<AssembleError>) {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let mut decoder = Decoder::new(version);
    let mut assembler = unlimited();
    let mut error = None;
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        let frame: Vec<u8> = line.as_bytes().chunks(2).map(byte).collect();
        error = assembler.push(decoder.decode(frame.into()).unwrap()).err();
        if error.is_some() {
            break;
        }
    }
    (assembler.take(), error)
}

#[test]
fn a_recorded_stream_is_assembled_and_one_with_other_options_refused() {
    let (batch, error) = recorded(1, include_str!("../../../tests/golden/pgoutput/pg15-v1.hex"));
    assert_eq!((error, batch.txns.len(), batch.changes.len()), (None, 20, 28));
    assert!(batch.txns.is_sorted_by(|a, b| a.end_lsn.is_some_and(|end| end <= b.txn.commit_lsn)));
    let streamed = include_str!("../../../tests/golden/pgoutput/pg15-v2-streaming.hex");
    assert_eq!(recorded(2, streamed).1, Some(AssembleError::NotAskedFor("Stream Start")));
    let prepared = include_str!("../../../tests/golden/pgoutput/pg15-v3-two-phase.hex");
    assert_eq!(recorded(3, prepared).1, Some(AssembleError::NotAskedFor("Begin Prepare")));
}

/// What happens between two transactions' ends in a generated history.
#[derive(Debug, Clone)]
struct Step {
    /// WAL between the end before and this commit record.
    gap: u64,
    /// Table of each change; a description comes before the first one of a table, and before each third.
    changes: Vec<Oid>,
    keepalive: bool,
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let step = (prop_oneof![Just(0u64), 0..50u64], vec(1..4u32, 0..8), any::<bool>())
        .prop_map(|(gap, changes, keepalive)| Step { gap, changes, keepalive });
    vec(step, 0..20)
}

/// A transaction as it should arrive: xid, rows, end.
type Expected = (u32, Vec<String>, u64);

/// Feeds the history, taking a batch when one is full and after every message that `cuts` says.
fn replay(history: &[Step], options: AssembleOptions, cuts: &[bool]) -> (Vec<TxnBatch>, Vec<Expected>, Lsn) {
    let mut assembler = Assembler::new(options);
    let mut cuts = cuts.iter().cycle();
    let (mut batches, mut expected, mut end) = (Vec::new(), Vec::new(), 0);
    let mut seen: Vec<Oid> = Vec::new();
    for (xid, step) in (1u32..).zip(history) {
        let commit_lsn = end + step.gap;
        end = commit_lsn + 5;
        let mut messages = vec![begin(xid, commit_lsn)];
        let mut rows = Vec::new();
        for (index, &oid) in step.changes.iter().enumerate() {
            if index % 3 == 2 || !seen.contains(&oid) {
                seen.push(oid);
                messages.push(described(oid, 1));
            }
            rows.push(format!("{oid}:{xid}.{index}"));
            messages.push(insert(oid, &format!("{xid}.{index}")));
        }
        messages.push(commit(commit_lsn, end));
        if commit_lsn >= options.skip_before.0 && !rows.is_empty() {
            expected.push((xid, rows, end));
        }
        for message in messages {
            assembler.push(message).unwrap();
            if *cuts.next().unwrap() || assembler.is_full() {
                batches.push(assembler.take());
            }
        }
        if step.keepalive {
            end += 3;
            assembler.keepalive(Lsn(end));
        }
    }
    batches.push(assembler.take());
    (batches, expected, Lsn(end).max(options.skip_before))
}

/// Puts batches together again, checking the rules of [`TxnBatch`] on the way.
fn joined(batches: &[TxnBatch]) -> Vec<Expected> {
    let mut all: Vec<Expected> = Vec::new();
    let mut open: Option<(TxnId, Vec<String>)> = None;
    let mut caught_up_to = Lsn::INVALID;
    for batch in batches {
        assert!(batch.caught_up_to >= caught_up_to);
        caught_up_to = batch.caught_up_to;
        assert_eq!(batch.bytes, batch.changes.iter().map(Change::data_len).sum::<usize>());
        assert!(open.is_none() || !batch.txns.is_empty(), "an open transaction has a span in every batch");
        let mut next = 0;
        for (index, span) in batch.txns.iter().enumerate() {
            assert_eq!(span.changes.start, next, "without gaps");
            next = span.changes.end;
            assert!(span.end_lsn.is_some() || index + 1 == batch.txns.len(), "only the last may be open");
            let (txn, mut rows) = open.take().unwrap_or((span.txn, Vec::new()));
            assert_eq!(txn, span.txn, "goes on as the first of the next batch");
            rows.extend(batch.changes[span.changes.clone()].iter().map(text));
            match span.end_lsn {
                None => {
                    assert!(batch.is_open() && !rows.is_empty());
                    open = Some((txn, rows));
                }
                Some(end) if !rows.is_empty() => all.push((txn.xid, rows, end.0)),
                Some(end) => assert!(end > txn.commit_lsn),
            }
        }
        assert_eq!(next, batch.changes.len(), "every change belongs to a transaction");
    }
    assert!(open.is_none());
    all
}

fn text(change: &Change) -> String {
    let Change::Insert { relation, new } = change else { unreachable!("{change:?}") };
    let Some(Value::Text(text)) = new.get(0) else { unreachable!("{new:?}") };
    format!("{}:{}", relation.oid, String::from_utf8_lossy(text))
}

proptest! {
    #[test]
    fn however_a_history_is_cut_the_same_arrives(
        history in history(),
        skipped in 0..20usize,
        max_changes in 1..20usize,
        max_bytes in 1..40usize,
        cuts in vec(any::<bool>(), 1..30),
    ) {
        // A checkpoint is the end of a transaction.
        let skip_before = history.iter().take(skipped).map(|step| step.gap + 5 + 3 * u64::from(step.keepalive)).sum();
        let whole = AssembleOptions { skip_before: Lsn(skip_before), ..options(usize::MAX, usize::MAX) };
        let (batches, expected, end) = replay(&history, whole, &[false]);
        prop_assert_eq!(batches.len(), 1);
        prop_assert_eq!(joined(&batches), expected.clone());
        prop_assert_eq!(batches[0].caught_up_to, end);

        let cut = AssembleOptions { max_changes, max_bytes, ..whole };
        let (batches, again, end) = replay(&history, cut, &cuts);
        prop_assert_eq!(&again, &expected);
        prop_assert_eq!(joined(&batches), expected);
        prop_assert_eq!(batches.last().map(|batch| batch.caught_up_to), Some(end));
    }
}
