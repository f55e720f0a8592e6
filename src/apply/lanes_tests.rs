//! Random histories through lanes that each go on at their own pace and are killed at any moment: in the end the target is
//! what the source is, and no statement ever touches another number of rows than it should.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use crate::apply::applier::ApplyReport;
use crate::apply::group::Closing;
use crate::apply::history_tests::{Op, Target, history, ops, seeded};
use crate::apply::lanes::{Act, Splitter, how_many, together};
use crate::apply::plan::{Group, PlanOptions, plan};
use crate::apply::route::tests::route;
use crate::apply::route::{Bindings, Delivery, RouteTable};
use crate::model::{Lsn, TxnBatch, TxnSpan};

const LANES: usize = 3;

/// One process: its splitter, what waits for each lane, and what the target shows of each.
struct Process {
    splitter: Splitter,
    routes: Arc<RouteTable>,
    acts: VecDeque<Act>,
    queues: Vec<VecDeque<TxnBatch>>,
    passed: Vec<Lsn>,
    input: VecDeque<TxnBatch>,
}

/// What a crash leaves.
struct Stored {
    target: Target,
    /// By lane, as its row says.
    positions: Vec<Lsn>,
    /// Confirmed to the source: it sends nothing from before.
    confirmed: Lsn,
}

impl Process {
    fn start(routes: &Arc<RouteTable>, stored: &Stored, all: &TxnBatch, cut: usize, kept: usize) -> Self {
        let lowest = *stored.positions.iter().min().unwrap();
        assert!(stored.confirmed <= lowest, "confirmed beyond the lowest lane");
        let splitter = Splitter::new(routes.clone(), stored.positions.clone(), 2).keeping(kept);
        Process {
            splitter,
            routes: routes.clone(),
            acts: VecDeque::new(),
            queues: vec![VecDeque::new(); LANES],
            passed: stored.positions.clone(),
            input: batches(all, lowest, cut),
        }
    }

    /// One step of whoever `choice` picks; `false`: nothing is left to do.
    fn step(&mut self, choice: usize, stored: &mut Stored) -> bool {
        let ready: Vec<usize> = (0..LANES).filter(|&l| closed(&self.queues[l])).collect();
        let divides = match self.acts.front() {
            Some(Act::Drain(to)) => self.passed.iter().all(|passed| passed >= to),
            Some(Act::Send(..)) => true,
            None => !self.input.is_empty(),
        };
        let movers = ready.len() + usize::from(divides);
        if movers == 0 {
            assert!(self.acts.is_empty() && self.input.is_empty(), "the lanes wait for each other");
            return false;
        }
        match ready.get(choice % movers) {
            Some(&lane) => self.apply(lane, stored),
            None => match self.acts.pop_front() {
                Some(Act::Send(lane, batch)) => self.queues[lane].push_back(batch),
                Some(Act::Drain(_)) => {}
                None => {
                    let batch = self.input.pop_front().unwrap();
                    self.acts.extend(self.splitter.push(batch));
                }
            },
        }
        true
    }

    /// The lane's next whole transactions, with its position.
    fn apply(&mut self, lane: usize, stored: &mut Stored) {
        let mut group = Group::default();
        while group.batches.is_empty() || group.is_open() {
            group.batches.push(self.queues[lane].pop_front().unwrap());
        }
        let Closing { position, .. } = group.closing().unwrap();
        assert!(position >= self.passed[lane], "a position goes back");
        self.passed[lane] = position;
        let steps = plan(&group, &self.routes, &mut Bindings::default(), PlanOptions::default());
        let steps = steps.unwrap().expect("a lane's history never contradicts itself");
        if steps.is_empty() {
            // The row may say it later: a crash then loses it.
            return;
        }
        for step in &steps {
            stored.target.run(step).unwrap_or_else(|e| panic!("lane {lane}: {e} in {step:?}"));
        }
        stored.positions[lane] = position;
    }
}

/// A whole group waits.
fn closed(queue: &VecDeque<TxnBatch>) -> bool {
    queue.iter().any(|batch| !batch.is_open())
}

/// What the source sends from `from` on: batches of `cut` changes, which end anywhere.
fn batches(all: &TxnBatch, from: Lsn, cut: usize) -> VecDeque<TxnBatch> {
    let mut list = VecDeque::new();
    for span in all.txns.iter().filter(|span| span.txn.commit_lsn >= from) {
        let changes = &all.changes[span.changes.clone()];
        let pieces = changes.chunks(cut.max(1)).count().max(1);
        for at in 0..pieces {
            let piece = changes.chunks(cut.max(1)).nth(at).unwrap_or_default();
            let end_lsn = span.end_lsn.filter(|_| at + 1 == pieces);
            let span = TxnSpan { txn: span.txn, changes: 0..piece.len(), end_lsn };
            let caught_up_to = end_lsn.unwrap_or_default();
            list.push_back(TxnBatch {
                changes: piece.to_vec(),
                txns: vec![span],
                caught_up_to,
                ..TxnBatch::default()
            });
        }
    }
    list
}

fn check(ops: &[Op], full: bool, seed: u8, cut: usize, kept: usize, choices: &[usize]) {
    let (mut group, source_rows) = history(ops, full, seed);
    let all = group.batches.remove(0);
    let routes = Arc::new(RouteTable::new(vec![route(&["id", "v", "toast"], &[0], Delivery::Dml)]));
    let mut stored =
        Stored { target: seeded(seed, Delivery::Dml), positions: vec![Lsn(1); LANES], confirmed: Lsn(1) };
    let mut process = Process::start(&routes, &stored, &all, cut, kept);
    let mut steps = 0..;
    loop {
        let step: usize = steps.next().unwrap();
        let choice = choices[step % choices.len()];
        // One choice in eleven is a crash, as long as they last: afterwards it goes on to the end.
        if step < choices.len() && choice.is_multiple_of(11) {
            process = Process::start(&routes, &stored, &all, cut, kept);
            continue;
        }
        let going_on = process.step(choice, &mut stored);
        let reports = stored.positions.iter().map(|&p| ApplyReport { durable: p, ..ApplyReport::default() });
        let lowest = together(&reports.collect::<Vec<_>>()).durable;
        stored.confirmed = stored.confirmed.max(lowest);
        if !going_on {
            break;
        }
    }
    assert_eq!(stored.target.live(), source_rows);
    let end = all.txns.iter().filter_map(|span| span.end_lsn).max().unwrap();
    assert!(process.passed.iter().all(|&passed| passed == end), "{:?}", process.passed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn lanes_with_crashes_leave_the_target_as_one_change_at_a_time_does(
        ops in ops(), full: bool, seed in 0..6u8, cut in 1..5usize, kept in prop_oneof![Just(700usize), Just(1 << 20)],
        choices in prop::collection::vec(0..1000usize, 1..120),
    ) {
        // The last choice must not be a crash for ever.
        let choices: Vec<usize> = choices.into_iter().chain([1, 2, 3]).collect();
        check(&ops, full, seed, cut, kept, &choices);
    }
}

fn acts(ops: &[Op], positions: [u64; LANES]) -> Vec<Act> {
    let (mut group, _) = history(ops, false, 6);
    let routes = Arc::new(RouteTable::new(vec![route(&["id", "v", "toast"], &[0], Delivery::Dml)]));
    Splitter::new(routes, positions.map(Lsn).to_vec(), 1000).push(group.batches.remove(0))
}

/// Changes by lane, and where the drains lie.
fn shown(acts: &[Act]) -> Vec<String> {
    let one = |act: &Act| match act {
        Act::Send(lane, batch) if batch.changes.is_empty() => format!("{lane}: to {}", batch.caught_up_to.0),
        Act::Send(lane, batch) => {
            format!("{lane}: {} changes to {}", batch.changes.len(), batch.caught_up_to.0)
        }
        Act::Drain(to) => format!("drain {}", to.0),
    };
    acts.iter().map(one).collect()
}

const UPDATE: fn(u8) -> Op = |key| Op::Update { key, toast: true };

#[test]
fn keys_are_spread_and_each_stays_in_its_lane() {
    let all: Vec<Op> = (0..6).chain(0..6).map(UPDATE).collect();
    let acts = acts(&all, [1; LANES]);
    let counts: Vec<usize> = acts
        .iter()
        .filter_map(|a| if let Act::Send(_, b) = a { Some(b.changes.len()) } else { None })
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 12);
    assert!(counts.iter().filter(|count| **count > 0).count() > 1, "{:?}", shown(&acts));
    assert!(counts.iter().all(|count| count.is_multiple_of(2)), "{:?}", shown(&acts));
    assert!(!acts.iter().any(|act| matches!(act, Act::Drain(_))));
}

#[test]
fn a_transaction_with_a_changed_key_or_a_truncate_goes_alone_between_two_drains() {
    for barrier in [Op::ChangeKey { from: 1, to: 9, toast: true }, Op::Truncate] {
        let acts = shown(&acts(&[UPDATE(0), Op::Commit, UPDATE(2), barrier, Op::Commit], [1; LANES]));
        let first = acts.iter().position(|a| a == "drain 15").unwrap();
        let second = acts.iter().position(|a| a == "drain 25").unwrap();
        assert_eq!(acts[first + 1..second], ["0: 2 changes to 25", "1: to 25", "2: to 25"], "{acts:?}");
    }
}

#[test]
fn a_lane_leaves_out_what_it_has_and_is_never_sent_back() {
    let all: Vec<Op> = (0..6).map(UPDATE).chain([Op::Commit]).collect();
    let acts = acts(&all, [100, 100, 1]);
    assert!(acts.iter().all(|act| matches!(act, Act::Send(2, _))), "{:?}", shown(&acts));
}

#[test]
fn what_all_have_is_what_the_lowest_has() {
    let lane = |applied, passed, durable, changes| ApplyReport {
        applied: Lsn(applied),
        passed: Lsn(passed),
        durable: Lsn(durable),
        changes,
        ..ApplyReport::default()
    };
    assert_eq!(together(&[lane(30, 40, 20, 1), lane(25, 50, 24, 2)]), lane(25, 40, 20, 3));
}

#[test]
fn the_number_of_lanes_changes_only_where_they_stand_level() {
    for (positions, wanted, count) in [
        (&[7][..], 3, 3),
        (&[7], 0, 1),
        (&[7, 7], 1, 1),
        (&[7, 7], 4, 4),
        (&[7, 8], 1, 2),
        (&[7, 8], 4, 2),
        (&[7, 7, 6], 3, 3),
    ] {
        let positions: Vec<Lsn> = positions.iter().copied().map(Lsn).collect();
        assert_eq!(how_many(&positions, wanted), count, "{positions:?}, {wanted} wanted");
    }
}
