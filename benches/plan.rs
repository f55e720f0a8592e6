//! Changes per second from a group of transactions to encoded statements, on one core: what stands between the decoder
//! and the target. Groups of 10,000 changes of 8-column rows.

// A benchmark may stop at the first surprise, and its group has no words of its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use repcloud::apply::plan::{Group, PlanOptions, plan};
use repcloud::apply::route::{Bindings, RouteTable};
use repcloud::model::{
    Change, Lsn, OldTuple, PgTimestamp, Relation, RelationColumn, ReplicaIdentity, TableName, Tuple,
    TxnBatch, TxnId, TxnSpan, Value,
};

const CHANGES: usize = 10_000;
/// Changes of one transaction.
const ROWS: usize = 1_000;
/// Keys of the hot history.
const HOT: usize = 100;

fn relation() -> Arc<Relation> {
    let columns = common::COLUMNS.into_iter().enumerate().map(|(index, (name, type_oid, _))| {
        RelationColumn { name: name.to_owned(), type_oid, type_modifier: -1, in_identity: index == 0 }
    });
    Arc::new(Relation {
        oid: 16_384,
        name: TableName::new("public", "items"),
        identity: ReplicaIdentity::Default,
        columns: columns.collect(),
    })
}

fn row(id: usize, version: usize) -> Tuple {
    let values = [
        format!("{}", 1_000_000 + id),
        format!("{}", id * 37 % 1_000),
        format!("{}.{:02}", id * 37 % 100_000 + version, id % 100),
        format!("2024-02-29 12:{:02}:{:02}.123456+00", id % 60, id * 7 % 60),
        format!("customer number {id}"),
        format!("{{\"items\": [{id}, {}], \"paid\": true}}", id + 1),
        format!("{}", version % 5),
        "a note of some length".to_owned(),
    ];
    values.iter().map(|value| Value::Text(value.as_bytes())).collect()
}

fn key(id: usize) -> OldTuple {
    let key = format!("{}", 1_000_000 + id);
    let nulls = std::iter::repeat_n(Value::Null, common::COLUMNS.len() - 1);
    OldTuple::Key(std::iter::once(Value::Text(key.as_bytes())).chain(nulls).collect())
}

/// A group whose changes `change` makes from their numbers.
fn group(change: impl Fn(usize) -> Change) -> Group {
    let batches = (0..CHANGES / ROWS).map(|number| {
        let at = Lsn(number as u64 * 1_000 + 1_000);
        TxnBatch {
            changes: (number * ROWS..(number + 1) * ROWS).map(&change).collect(),
            txns: vec![TxnSpan {
                txn: TxnId { xid: number as u32, commit_lsn: at, commit_time: PgTimestamp(0) },
                changes: 0..ROWS,
                end_lsn: Some(Lsn(at.0 + 40)),
            }],
            caught_up_to: Lsn(at.0 + 40),
            ..TxnBatch::default()
        }
    });
    Group { batches: batches.collect() }
}

fn histories() -> Vec<(&'static str, Group)> {
    let relation = relation();
    let insert = |id: usize| Change::Insert { relation: relation.clone(), new: row(id, 0) };
    let update = |id: usize, version: usize| Change::Update {
        relation: relation.clone(),
        old: None,
        new: row(id, version),
    };
    let delete = |id: usize| Change::Delete { relation: relation.clone(), old: key(id) };
    vec![
        ("insert", group(insert)),
        ("update", group(|id| update(id, 1))),
        ("delete", group(delete)),
        (
            "mixed",
            group(|id| match id % 3 {
                0 => insert(id),
                1 => update(id, 1),
                _ => delete(id),
            }),
        ),
        ("hot_keys", group(|number| update(number % HOT, number))),
    ]
}

fn benches(criterion: &mut Criterion) {
    let routes = RouteTable::new(vec![common::route()]);
    let mut measured = criterion.benchmark_group("plan");
    measured.throughput(Throughput::Elements(CHANGES as u64));
    for (name, group) in histories() {
        let mut bindings = Bindings::default();
        measured.bench_function(name, |bencher| {
            bencher.iter(|| {
                let steps = plan(&group, &routes, &mut bindings, PlanOptions::default()).unwrap();
                assert!(steps.is_some(), "this history has no contradiction");
                black_box(steps)
            });
        });
    }
    measured.finish();
}

criterion_group!(planning, benches);
criterion_main!(planning);
