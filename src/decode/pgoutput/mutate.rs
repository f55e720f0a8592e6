//! Random messages, and damaged ones: whatever comes, the decoder answers and does not over-allocate.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::encode::encode;
use super::golden::{RECORDINGS, frames};
use super::{
    Begin, Commit, Decoder, LogicalMessage, Message, Origin, Prepared, RollbackPrepared, StreamAbort,
    TypeName,
};
use crate::model::{
    Lsn, OldTuple, PgTimestamp, Relation, RelationColumn, ReplicaIdentity, TableName, Tuple, Value,
};

fn tuple() -> impl Strategy<Value = Tuple> {
    let value = (0..4u8, vec(any::<u8>(), 0..20));
    vec(value, 0..12).prop_map(|values| {
        let value = |(kind, bytes): &'_ (u8, Vec<u8>)| match kind {
            0 => (0, Vec::new()),
            1 => (1, Vec::new()),
            kind => (*kind, bytes.clone()),
        };
        let values: Vec<_> = values.iter().map(value).collect();
        values
            .iter()
            .map(|(kind, bytes)| match kind {
                0 => Value::Null,
                1 => Value::Unchanged,
                2 => Value::Text(bytes),
                _ => Value::Binary(bytes),
            })
            .collect()
    })
}

fn old() -> impl Strategy<Value = OldTuple> {
    prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zÄ\"'. ]{1,12}"
}

fn lsn() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn)
}

fn time() -> impl Strategy<Value = PgTimestamp> {
    any::<i64>().prop_map(PgTimestamp)
}

fn commit() -> impl Strategy<Value = Commit> {
    (lsn(), lsn(), time()).prop_map(|(commit_lsn, end_lsn, commit_time)| Commit {
        commit_lsn,
        end_lsn,
        commit_time,
    })
}

fn prepared() -> impl Strategy<Value = Prepared> {
    (lsn(), lsn(), time(), any::<u32>(), name()).prop_map(|(prepare_lsn, end_lsn, prepare_time, xid, gid)| {
        Prepared { prepare_lsn, end_lsn, prepare_time, xid, gid }
    })
}

fn relation() -> impl Strategy<Value = Relation> {
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>()).prop_map(
        |(name, type_oid, type_modifier, in_identity)| RelationColumn {
            name,
            type_oid,
            type_modifier,
            in_identity,
        },
    );
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    (any::<u32>(), name(), name(), identity, vec(column, 0..6)).prop_map(
        |(oid, schema, table, identity, columns)| Relation {
            oid,
            name: TableName { schema, table },
            identity,
            columns,
        },
    )
}

/// A message that may come inside a stream block, with the prefix it then has.
fn change(xid: Option<u32>) -> BoxedStrategy<Message> {
    let oid = any::<u32>();
    prop_oneof![
        (oid, tuple()).prop_map(move |(relation, new)| Message::Insert { xid, relation, new }),
        (oid, option::of(old()), tuple()).prop_map(move |(relation, old, new)| Message::Update {
            xid,
            relation,
            old,
            new
        }),
        (oid, old()).prop_map(move |(relation, old)| Message::Delete { xid, relation, old }),
        (vec(oid, 0..5), any::<bool>(), any::<bool>()).prop_map(
            move |(relations, cascade, restart_identity)| {
                Message::Truncate { xid, relations, cascade, restart_identity }
            }
        ),
        relation().prop_map(move |relation| Message::Relation { xid, relation }),
        (oid, name(), name()).prop_map(move |(oid, schema, name)| Message::Type(TypeName {
            xid,
            oid,
            schema,
            name
        })),
        (any::<bool>(), lsn(), name(), vec(any::<u8>(), 0..30)).prop_map(
            move |(transactional, lsn, prefix, content)| {
                Message::Logical(LogicalMessage { xid, transactional, lsn, prefix, content: content.into() })
            }
        ),
        (lsn(), name()).prop_map(|(origin_lsn, name)| Message::Origin(Origin { origin_lsn, name })),
    ]
    .boxed()
}

/// A message that may come outside of a stream block only.
fn boundary() -> impl Strategy<Value = Message> {
    let xid = any::<u32>();
    prop_oneof![
        (lsn(), time(), xid).prop_map(|(final_lsn, commit_time, xid)| Message::Begin(Begin {
            final_lsn,
            commit_time,
            xid
        })),
        commit().prop_map(Message::Commit),
        (xid, commit()).prop_map(|(xid, commit)| Message::StreamCommit { xid, commit }),
        (xid, xid, option::of((lsn(), time())))
            .prop_map(|(xid, subxid, abort)| Message::StreamAbort(StreamAbort { xid, subxid, abort })),
        prepared().prop_map(Message::BeginPrepare),
        prepared().prop_map(Message::Prepare),
        prepared().prop_map(Message::StreamPrepare),
        (commit(), xid, name()).prop_map(|(commit, xid, gid)| Message::CommitPrepared { commit, xid, gid }),
        (lsn(), lsn(), time(), time(), xid, name()).prop_map(
            |(prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, gid)| {
                let rollback = RollbackPrepared {
                    prepare_end_lsn,
                    rollback_end_lsn,
                    prepare_time,
                    rollback_time,
                    xid,
                    gid,
                };
                Message::RollbackPrepared(rollback)
            }
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(plain in vec(prop_oneof![change(None), boundary()], 0..4),
                                  xid in any::<u32>(),
                                  first_segment in any::<bool>(),
                                  streamed in any::<u32>().prop_flat_map(|x| vec(change(Some(x)), 0..4)),
                                  after in boundary()) {
        let mut decoder = Decoder::new(4);
        let start = Message::StreamStart { xid, first_segment };
        let stop = Message::StreamStop;
        for message in plain.iter().chain([&start]).chain(&streamed).chain([&stop, &after]) {
            prop_assert_eq!(&decoder.decode(encode(message)).unwrap(), message);
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in vec(any::<u8>(), 0..200), version in 0..6u8) {
        let _ = Decoder::new(version).decode(bytes.into());
    }
}

/// One to four kinds of damage at random places.
fn damage(random: &mut StdRng, frame: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=frame.len());
        match random.random_range(0..6) {
            0 => frame.truncate(at),
            1 => frame.insert(at, random.random()),
            2 if at < frame.len() => frame[at] ^= 1 << random.random_range(0..8),
            3 if at < frame.len() => {
                frame[at] = *[0, 1, 0x7F, 0x80, 0xFF].get(random.random_range(0..5)).unwrap()
            }
            4 if at < frame.len() => drop(frame.remove(at)),
            5 => {
                let end = random.random_range(at..=frame.len());
                let copied = frame[at..end].to_vec();
                frame.extend(copied);
            }
            _ => {}
        }
    }
}

/// Bytes a message holds beyond the frame it shares.
fn held(message: &Message) -> usize {
    let columns = |tuple: &Tuple| tuple.len() * 8;
    match message {
        Message::Insert { new, .. } => columns(new),
        Message::Update { old, new, .. } => columns(new) + old.as_ref().map_or(0, |old| columns(old.tuple())),
        Message::Delete { old, .. } => columns(old.tuple()),
        Message::Truncate { relations, .. } => relations.capacity() * 4,
        Message::Relation { relation, .. } => relation.columns.capacity() * size_of::<RelationColumn>(),
        _ => 0,
    }
}

#[test]
fn damaged_frames_are_answered_and_never_cost_more_than_their_length() {
    // Every distinct kind of frame, so that thousands of equal inserts do not crowd out the others.
    let mut valid: Vec<(u8, bool, Bytes)> = Vec::new();
    for (version, recording) in RECORDINGS {
        let mut decoder = Decoder::new(version);
        let mut run = 0;
        let mut latest = 0;
        for frame in frames(recording) {
            run = if frame[0] == latest { run + 1 } else { 0 };
            latest = frame[0];
            if run < 3 {
                valid.push((version, decoder.in_stream(), frame.clone()));
            }
            decoder.decode(frame).unwrap();
        }
    }
    let (mut read, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        for (version, in_stream, frame) in &valid {
            let mut bytes = frame.to_vec();
            damage(&mut random, &mut bytes);
            let length = bytes.len();
            let mut decoder = Decoder { version: *version, in_stream: *in_stream };
            match decoder.decode(bytes.into()) {
                Ok(message) => {
                    assert!(held(&message) <= length * 8, "seed {seed}: {message:?}");
                    read += 1;
                }
                Err(error) => {
                    assert!(error.offset <= length, "seed {seed}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 1_000 && refused > 20_000, "damage of both kinds: {read} read, {refused} refused");
}
