//! Random histories: the coalesced plan leaves the target as one change at a time does, in dml and logdel.
//!
//! A source of three columns (key, a value, a TOAST column that updates often leave unsent) makes a random but
//! consistent history. Plans are executed on a table in memory that is as strict as the session: a statement that
//! touches another number of rows than it names fails the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::apply::encode::TextArray;
use crate::apply::plan::{Group, PlanOptions, Step, plan, resolve, serial_steps};
use crate::apply::route::tests::{relation, route};
use crate::apply::route::{Bindings, Delivery, RouteTable};
use crate::model::{Change, Lsn, OldTuple, PgTimestamp, Relation, Tuple, TxnBatch, TxnId, TxnSpan, Value};
use crate::sql::shape::Shape;

type Cells = Vec<Option<String>>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Insert(u8),
    Update { key: u8, toast: bool },
    ChangeKey { from: u8, to: u8, toast: bool },
    Delete(u8),
    Truncate,
    Commit,
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..6u8;
    prop::collection::vec(
        prop_oneof![
            4 => key.clone().prop_map(Op::Insert),
            6 => (key.clone(), any::<bool>()).prop_map(|(key, toast)| Op::Update { key, toast }),
            3 => (key.clone(), key.clone(), any::<bool>()).prop_map(|(from, to, toast)| Op::ChangeKey { from, to, toast }),
            4 => key.prop_map(Op::Delete),
            1 => Just(Op::Truncate),
            2 => Just(Op::Commit),
        ],
        1..60,
    )
}

/// Plays the source: keeps its rows, emits what pgoutput would send.
struct Source {
    relation: Arc<Relation>,
    full: bool,
    rows: BTreeMap<String, (String, String)>,
    batch: TxnBatch,
    start: usize,
    serial: u64,
}

impl Source {
    fn tuple(values: [Option<&str>; 3], unchanged_toast: bool) -> Tuple {
        let mut values: Vec<Value<'_>> =
            values.into_iter().map(|v| v.map_or(Value::Null, |v| Value::Text(v.as_bytes()))).collect();
        if unchanged_toast {
            values[2] = Value::Unchanged;
        }
        values.into_iter().collect()
    }

    fn old(&self, key: &str, row: &(String, String)) -> OldTuple {
        match self.full {
            true => OldTuple::Full(Self::tuple([Some(key), Some(&row.0), Some(&row.1)], false)),
            false => OldTuple::Key(Self::tuple([Some(key), None, None], false)),
        }
    }

    fn play(&mut self, op: Op) {
        self.serial += 1;
        let (value, big) = (format!("v{}", self.serial), format!("toast{}", self.serial));
        let relation = self.relation.clone();
        let change = match op {
            Op::Insert(key) => {
                let key = key.to_string();
                if self.rows.contains_key(&key) {
                    return;
                }
                let new = Self::tuple([Some(&key), Some(&value), Some(&big)], false);
                self.rows.insert(key, (value, big));
                Change::Insert { relation, new }
            }
            Op::Update { key, toast } => return self.update(key, key, toast, value, big),
            Op::ChangeKey { from, to, toast } => {
                if from == to || self.rows.contains_key(&to.to_string()) {
                    return;
                }
                return self.update(from, to, toast, value, big);
            }
            Op::Delete(key) => {
                let key = key.to_string();
                let Some(row) = self.rows.remove(&key) else { return };
                Change::Delete { relation, old: self.old(&key, &row) }
            }
            Op::Truncate => {
                self.rows.clear();
                Change::Truncate { relations: vec![relation], cascade: false, restart_identity: false }
            }
            Op::Commit => return self.commit(),
        };
        self.batch.changes.push(change);
    }

    fn update(&mut self, from: u8, to: u8, toast: bool, value: String, big: String) {
        let (from, to) = (from.to_string(), to.to_string());
        let Some(row) = self.rows.remove(&from) else { return };
        let big = if toast { big } else { row.1.clone() };
        let old = (self.full || from != to).then(|| self.old(&from, &row));
        let new = Self::tuple([Some(&to), Some(&value), Some(&big)], !toast);
        self.rows.insert(to, (value, big));
        self.batch.changes.push(Change::Update { relation: self.relation.clone(), old, new });
    }

    fn commit(&mut self) {
        let n = self.batch.txns.len() as u64 + 1;
        let txn =
            TxnId { xid: n as u32, commit_lsn: Lsn(n * 10), commit_time: PgTimestamp(n as i64 * 1_000_000) };
        let end = self.batch.changes.len();
        self.batch.txns.push(TxnSpan { txn, changes: self.start..end, end_lsn: Some(Lsn(n * 10 + 5)) });
        self.start = end;
    }
}

pub(super) fn history(ops: &[Op], full: bool, seed_rows: u8) -> (Group, BTreeMap<String, (String, String)>) {
    let mut source = Source {
        relation: relation(&["id", "v", "toast"], &[0]),
        full,
        rows: (0..seed_rows).map(|k| (k.to_string(), ("seed".into(), format!("seedtoast{k}")))).collect(),
        batch: TxnBatch::default(),
        start: 0,
        serial: 0,
    };
    ops.iter().for_each(|op| source.play(*op));
    source.commit();
    (Group { batches: vec![source.batch] }, source.rows)
}

/// The target in memory: key → cells and stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    logdel: bool,
    rows: BTreeMap<String, (Cells, Option<String>)>,
}

impl Target {
    pub(super) fn run(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Truncate { .. } => self.rows.clear(),
            Step::StampAll { stamp, .. } => {
                let stamp = stamp.elements()[0].clone();
                self.rows.values_mut().filter(|r| r.1.is_none()).for_each(|r| r.1 = stamp.clone());
            }
            Step::Rows { shape, rows, params, .. } => {
                let columns: Vec<Cells> = params.iter().map(TextArray::elements).collect();
                assert!(columns.iter().all(|c| c.len() == *rows));
                let mut touched = 0;
                for i in 0..*rows {
                    let cells: Cells = columns.iter().map(|c| c[i].clone()).collect();
                    touched += usize::from(self.row(shape, &cells)?);
                }
                if touched != *rows {
                    return Err(format!("{shape:?}: {touched} rows instead of {rows}"));
                }
            }
            Step::Copy { .. } | Step::ReadAndReplace { .. } | Step::Park { .. } => {
                return Err("not in these plans".into());
            }
        }
        Ok(())
    }

    /// The live rows.
    pub(super) fn live(&self) -> BTreeMap<String, (String, String)> {
        let live = self.rows.iter().filter(|(_, row)| row.1.is_none());
        live.map(|(k, r)| (k.clone(), (r.0[1].clone().unwrap(), r.0[2].clone().unwrap()))).collect()
    }

    /// True when a row was touched.
    fn row(&mut self, shape: &Shape, cells: &Cells) -> Result<bool, String> {
        let key = cells[0].clone().unwrap();
        let live = |t: &Self| t.rows.get(&key).is_some_and(|r| r.1.is_none());
        match shape {
            Shape::Insert(set) => {
                assert_eq!(set, &[0, 1, 2]);
                let stamp = if self.logdel { cells[3].clone() } else { None };
                if live(self) {
                    return if self.logdel { Ok(false) } else { Err("23505".into()) };
                }
                self.rows.insert(key, (cells[..3].to_vec(), stamp));
                Ok(true)
            }
            Shape::Update(set) => Ok(live(self) && {
                let stamp = if self.logdel { cells[set.len() + 1].clone() } else { None };
                let row = self.rows.get_mut(&key).unwrap();
                set.iter().enumerate().for_each(|(i, &c)| row.0[usize::from(c)] = cells[1 + i].clone());
                row.1 = stamp;
                true
            }),
            Shape::Delete if self.logdel => Ok(live(self) && {
                self.rows.get_mut(&key).unwrap().1 = cells[1].clone();
                true
            }),
            Shape::Delete => Ok(self.rows.remove(&key).is_some()),
            Shape::UpdateKey(set) | Shape::InsertFromOld(set) => {
                let Some(mut row) = self.rows.get(&key).cloned() else { return Ok(false) };
                set.iter().enumerate().for_each(|(i, &c)| row.0[usize::from(c)] = cells[1 + i].clone());
                row.1 = None;
                if !self.logdel {
                    self.rows.remove(&key);
                }
                let new_key = row.0[0].clone().unwrap();
                if self.rows.get(&new_key).is_some_and(|r| r.1.is_none()) {
                    return Err("23505".into());
                }
                self.rows.insert(new_key, row);
                Ok(true)
            }
            Shape::UpdateWhole(_) | Shape::DeleteWhole => Err("the table has a key".into()),
        }
    }
}

/// A target that holds what the source holds at first.
pub(super) fn seeded(seed_rows: u8, delivery: Delivery) -> Target {
    Target {
        logdel: delivery == Delivery::LogDel,
        rows: (0..seed_rows)
            .map(|k| {
                let k = k.to_string();
                (k.clone(), (vec![Some(k.clone()), Some("seed".into()), Some(format!("seedtoast{k}"))], None))
            })
            .collect(),
    }
}

fn check(ops: &[Op], full: bool, seed_rows: u8, delivery: Delivery, replace: bool) {
    let (group, source_rows) = history(ops, full, seed_rows);
    let routes = RouteTable::new(vec![route(&["id", "v", "toast"], &[0], delivery)]);
    let seeded = seeded(seed_rows, delivery);
    let options = PlanOptions { replace, ..PlanOptions::default() };
    let steps = plan(&group, &routes, &mut Bindings::default(), options)
        .unwrap()
        .expect("a consistent history never contradicts itself");
    let mut coalesced = seeded.clone();
    for step in &steps {
        coalesced.run(step).unwrap_or_else(|e| panic!("coalesced: {e} in {step:?}"));
    }
    let mut serial = seeded;
    let resolved = resolve(&group, &routes, &mut Bindings::default()).unwrap();
    for located in &resolved.changes {
        for step in serial_steps(&routes, &resolved, located).unwrap() {
            serial.run(&step).unwrap_or_else(|e| panic!("serial: {e} in {step:?}"));
        }
    }
    assert_eq!(coalesced, serial);
    assert_eq!(coalesced.live(), source_rows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_coalesced_plan_equals_one_change_at_a_time(
        ops in ops(), full: bool, seed in 0..6u8, logdel: bool, replace: bool,
    ) {
        check(&ops, full, seed, if logdel { Delivery::LogDel } else { Delivery::Dml }, replace);
    }
}

#[test]
fn changes_that_contradict_each_other_are_not_planned() {
    let (mut group, _) = history(&[Op::Insert(1)], false, 0);
    let again = group.batches[0].changes[0].clone();
    group.batches[0].changes.push(again);
    group.batches[0].txns[0].changes = 0..2;
    let routes = RouteTable::new(vec![route(&["id", "v", "toast"], &[0], Delivery::Dml)]);
    let planned = plan(&group, &routes, &mut Bindings::default(), PlanOptions::default());
    assert_eq!(planned, Ok(None));
}

#[test]
fn what_the_copy_has_is_left_out() {
    let (group, _) = history(&[Op::Insert(1), Op::Commit, Op::Insert(2)], false, 0);
    let mut one = route(&["id", "v", "toast"], &[0], Delivery::Dml);
    // The first transaction's commit record is at 10, the second's at 20.
    one.copied_at = Lsn(15);
    let routes = RouteTable::new(vec![one]);
    let steps = plan(&group, &routes, &mut Bindings::default(), PlanOptions::default()).unwrap().unwrap();
    let [Step::Rows { rows: 1, params, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(params[0].elements(), [Some("2".to_owned())]);
}

#[test]
fn many_updates_of_one_row_are_one_statement_of_one_row() {
    let ops: Vec<Op> = (0..1000).map(|i| Op::Update { key: 0, toast: i % 7 == 0 }).collect();
    let (group, _) = history(&ops, false, 1);
    let routes = RouteTable::new(vec![route(&["id", "v", "toast"], &[0], Delivery::Dml)]);
    let steps = plan(&group, &routes, &mut Bindings::default(), PlanOptions::default()).unwrap().unwrap();
    assert!(matches!(steps.as_slice(), [Step::Rows { rows: 1, .. }]), "{}", steps.len());
}
