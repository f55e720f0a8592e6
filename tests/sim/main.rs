//! Seeded simulation of a stream's life with a crash after every step: of our process, of the target (which forgets
//! commits that were not flushed), and of both. The world is a few lines of memory; the decisions are the product's.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod repack;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use repcloud::apply::progress::{Flush, Progress};
use repcloud::flow::start::{
    CheckpointFacts, Facts, Phase, SlotFacts, SlotPlace, Step, SystemFacts, TableFact, next_step,
};
use repcloud::model::{Lsn, TableName};

const TABLES: [&str; 3] = ["a", "b", "c"];

/// One committed source transaction: appends its own number to one table.
#[derive(Debug, Clone, Copy)]
struct Txn {
    commit: Lsn,
    end: Lsn,
    table: usize,
    /// The table was published when it committed.
    published: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Copying,
    Copied { at: Lsn },
}

/// What the target would have after a crash. Rows are the commit positions of the transactions, in arrival order.
#[derive(Debug, Clone, Default)]
struct Target {
    rows: BTreeMap<usize, Vec<Lsn>>,
    states: BTreeMap<usize, (Stored, Lsn)>,
    checkpoint: Option<(Phase, Lsn)>,
}

struct World {
    rng: StdRng,
    log: Vec<Txn>,
    now: Lsn,
    published: [bool; 3],
    /// Confirmed position.
    slot: Option<Lsn>,
    /// Tables the configuration names; the last one joins later.
    configured: usize,
    target: Target,
    durable: Target,
    // What the process holds.
    snapshot: Option<Lsn>,
    begun: Vec<usize>,
    progress: Option<Progress>,
    in_flight: Option<(Flush, Target)>,
    next: Lsn,
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            rng: StdRng::seed_from_u64(seed),
            log: Vec::new(),
            now: Lsn(100),
            published: [false; 3],
            slot: None,
            configured: 2,
            target: Target::default(),
            durable: Target::default(),
            snapshot: None,
            begun: Vec::new(),
            progress: None,
            in_flight: None,
            next: Lsn::INVALID,
        }
    }

    fn write(&mut self) {
        for _ in 0..self.rng.random_range(0..4) {
            let table = self.rng.random_range(0..TABLES.len());
            let commit = Lsn(self.now.0 + 10);
            let end = Lsn(commit.0 + 5);
            self.log.push(Txn { commit, end, table, published: self.published[table] });
            self.now = end;
        }
    }

    fn facts(&self) -> Facts {
        let table = |i: usize| match self.target.states.get(&i) {
            None => TableFact::New { rows: false, copy: true },
            Some((Stored::Copied { .. }, _)) => TableFact::Copied,
            Some((Stored::Copying, _)) if self.begun.contains(&i) => TableFact::Copying,
            Some((Stored::Copying, _)) => TableFact::CopyCutOff,
        };
        Facts {
            system: SystemFacts { system_id: "1".into(), timeline: 1, history: vec![] },
            slot_name: "s".into(),
            slot_is_given: false,
            slot: self.slot.map(|confirmed| SlotFacts {
                plugin: "pgoutput".into(),
                place: SlotPlace::Here,
                active_pid: None,
                confirmed,
                lost: false,
                synced: false,
            }),
            plugin: "pgoutput".into(),
            published: self.published[..self.configured].iter().all(|p| *p),
            checkpoint: self.target.checkpoint.map(|(phase, applied)| CheckpointFacts {
                phase,
                system_id: "1".into(),
                timeline: 1,
                slot: "s".into(),
                applied,
            }),
            snapshot: self.snapshot,
            tables: (0..self.configured).map(|i| (TableName::new("t", TABLES[i]), table(i))).collect(),
        }
    }

    fn index(&self, name: &TableName) -> usize {
        TABLES.iter().position(|t| *t == name.table).unwrap()
    }

    /// Set-up steps commit durably, as the product's do.
    fn durably(&mut self, change: impl FnOnce(&mut Target)) {
        change(&mut self.target);
        self.durable = self.target.clone();
    }

    /// Carries out one step. True when the stream may begin.
    fn perform(&mut self, step: Step) -> bool {
        match step {
            Step::Publish => (0..self.configured).for_each(|i| self.published[i] = true),
            Step::RecordIntention => {
                self.durably(|t| t.checkpoint = Some((Phase::Creating, Lsn::INVALID)));
            }
            Step::CreateSlot => {
                self.slot = Some(self.now);
                self.snapshot = Some(self.now);
            }
            Step::RecordSlot { at } => self.durably(|t| t.checkpoint = Some((Phase::Ready, at))),
            Step::TakeSnapshot => self.snapshot = Some(self.now),
            Step::BeginCopy { table, at, empty } => {
                let i = self.index(&table);
                self.durably(|t| {
                    if empty {
                        t.rows.remove(&i);
                    }
                    assert!(t.rows.get(&i).is_none_or(Vec::is_empty), "rows that are not ours were kept");
                    t.states.insert(i, (Stored::Copying, at));
                });
                self.begun.push(i);
            }
            Step::CopyRows => self.copy_rows(),
            Step::Adopt { .. } => unreachable!("every table is copied"),
            Step::ReleaseSnapshot => self.snapshot = None,
            Step::Stream { from, .. } => {
                let confirmed = self.slot.unwrap();
                assert!(from >= confirmed, "the server would forward us past changes");
                self.progress = Some(Progress::resume(from, confirmed));
                self.next = from;
                return true;
            }
            Step::Stop(reason) => panic!("stopped: {reason}"),
        }
        false
    }

    /// One table at a time; a crash may come after half of the rows.
    fn copy_rows(&mut self) {
        let snapshot = self.snapshot.unwrap();
        let Some(i) = (0..self.configured).find(|i| {
            matches!(self.target.states.get(i), Some((Stored::Copying, _))) && self.begun.contains(i)
        }) else {
            return;
        };
        let rows: Vec<Lsn> =
            self.log.iter().filter(|t| t.table == i && t.end <= snapshot).map(|t| t.commit).collect();
        let half = self.rng.random_bool(0.4);
        let take = if half { rows.len() / 2 } else { rows.len() };
        self.durably(|t| t.rows.entry(i).or_default().extend(&rows[..take]));
        if half {
            return self.crash_process();
        }
        self.durably(|t| {
            let at = t.states[&i].1;
            t.states.insert(i, (Stored::Copied { at }, at));
        });
    }

    /// One moment of streaming: a group, a durability commit, a confirm, or an idle position.
    fn stream_once(&mut self) {
        let mut progress = self.progress.unwrap();
        match self.rng.random_range(0..5) {
            0 | 1 => {
                let count = self.rng.random_range(1..4);
                let group: Vec<Txn> =
                    self.log.iter().filter(|t| t.commit >= self.next).take(count).copied().collect();
                let Some(last) = group.last() else { return };
                for txn in group.iter().filter(|t| t.published && t.table < self.configured) {
                    let Some((Stored::Copied { at }, _)) = self.target.states.get(&txn.table) else {
                        continue;
                    };
                    if txn.commit >= *at {
                        self.target.rows.entry(txn.table).or_default().push(txn.commit);
                    }
                }
                self.target.checkpoint = Some((Phase::Ready, last.end));
                self.next = last.end;
                progress.committed(last.end);
            }
            2 => match self.in_flight.take() {
                None => self.in_flight = progress.start_flush().map(|f| (f, self.target.clone())),
                Some((flush, covered)) => {
                    // It flushed at least what was there when it was sent.
                    self.durable = covered;
                    progress.finish_flush(flush);
                }
            },
            3 => {
                let confirmed = progress.durable();
                let lost_on_the_way = self.rng.random_bool(0.3);
                if !lost_on_the_way {
                    self.slot = self.slot.map(|s| s.max(confirmed));
                }
            }
            _ => {
                if self.log.iter().all(|t| t.commit < self.next) {
                    let now = self.now;
                    self.durably(|t| t.checkpoint = Some((Phase::Ready, now)));
                    self.in_flight = None;
                    self.next = now;
                    progress.committed_durably(now);
                }
            }
        }
        self.progress = Some(progress);
        let checkpoint = self.durable.checkpoint.unwrap().1;
        assert!(self.slot.unwrap() <= checkpoint, "confirmed what a crash of the target would lose");
    }

    fn crash_process(&mut self) {
        self.snapshot = None;
        self.begun.clear();
        self.progress = None;
        self.in_flight = None;
    }

    fn crash_target(&mut self) {
        self.target = self.durable.clone();
        self.crash_process();
    }

    /// Every configured table holds each of its transactions once, in order.
    fn check(&self) {
        for (i, name) in TABLES.iter().enumerate().take(self.configured) {
            let want: Vec<Lsn> = self.log.iter().filter(|t| t.table == i).map(|t| t.commit).collect();
            let have = self.target.rows.get(&i).cloned().unwrap_or_default();
            assert_eq!(have, want, "table {name}");
        }
    }
}

/// Lives for `steps` moments; a crash follows a moment with probability `crash`, or follows exactly moment `at`.
fn live(seed: u64, steps: usize, crash: f64, at: Option<usize>) {
    let mut world = World::new(seed);
    world.write();
    for moment in 0..steps {
        if moment == steps / 2 {
            world.configured = 3;
            world.crash_process();
        }
        match world.progress {
            None => {
                let step = next_step(&world.facts());
                world.perform(step);
            }
            Some(_) => world.stream_once(),
        }
        world.write();
        let now = at == Some(moment) || world.rng.random_bool(crash);
        match (now, world.rng.random_bool(0.5)) {
            (true, true) => world.crash_target(),
            (true, false) => world.crash_process(),
            _ => {}
        }
    }
    finish(&mut world);
}

/// Lets the stream run dry without crashes.
fn finish(world: &mut World) {
    for _ in 0..2_000 {
        match world.progress {
            None => {
                let step = next_step(&world.facts());
                world.perform(step);
            }
            Some(progress) => {
                world.stream_once();
                if progress.applied() >= world.now && world.slot >= Some(world.now) {
                    return world.check();
                }
            }
        }
    }
    panic!("the stream never ran dry");
}

#[test]
fn nothing_is_lost_or_doubled_when_it_crashes_after_every_single_step() {
    for seed in 0..20 {
        for at in 0..60 {
            live(seed, 60, 0.0, Some(at));
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_under_many_crashes() {
    for seed in 0..2_000 {
        live(seed, 120, 0.15, None);
    }
}
