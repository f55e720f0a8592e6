//! A repack's life with a crash after every action, in every order of what a person asks for.

use std::collections::BTreeSet;

use repcloud::repack::job::{Facts, Goal, Place, SlotFact, Step, next_step};
use repcloud::repack::state::RepackState;

/// The database. What is true in it survives a crash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    state: Option<RepackState>,
    swapped: bool,
    shadow: bool,
    /// Rows of the snapshot, changes since: what the shadow holds.
    rows: bool,
    caught_up: bool,
    indexes: bool,
    published: bool,
    slot: bool,
    /// Somebody drops the slot behind our back.
    slot_lost: bool,
    copy_begun: bool,
    changed: bool,
}

const EMPTY: World = World {
    state: None,
    swapped: false,
    shadow: false,
    rows: false,
    caught_up: false,
    indexes: false,
    published: false,
    slot: false,
    slot_lost: false,
    copy_begun: false,
    changed: false,
};

/// What a process holds; gone with it.
#[derive(Debug, Clone, Copy, Default)]
struct Process {
    snapshot: bool,
    following: bool,
}

fn facts(world: &World, process: Process) -> Facts {
    Facts {
        state: world.state,
        place: if world.swapped { Place::After } else { Place::Before },
        unchanged: !world.changed,
        slot: match (world.slot, world.slot_lost) {
            (false, _) => SlotFact::Absent,
            (true, true) => SlotFact::Lost,
            (true, false) => SlotFact::Usable,
        },
        published: world.published,
        shadow: world.shadow,
        copy_begun: world.copy_begun,
        snapshot: process.snapshot,
        following: process.following,
        compare: false,
        differs: false,
    }
}

type Action = fn(&mut World, &mut Process);

/// The actions of a step, each of which happens whole or not at all.
fn actions(step: Step) -> Vec<Action> {
    let undo: [Action; 4] = [
        |_, p| *p = Process::default(),
        |w, _| (w.slot, w.slot_lost, w.caught_up) = (false, false, false),
        |w, _| w.published = false,
        |w, _| (w.shadow, w.rows, w.indexes) = (false, false, false),
    ];
    match step {
        Step::Plan => vec![|w, _| {
            (w.state, w.copy_begun, w.changed) = (Some(RepackState::Planned), false, false);
        }],
        Step::MakeShadow => vec![|w, _| {
            assert!(!w.shadow, "two shadows");
            (w.shadow, w.state) = (true, Some(RepackState::ShadowReady));
        }],
        Step::MakeSlot => vec![
            |w, _| w.published = true,
            |w, p| {
                assert!(w.published, "changes between slot and publication would be missed");
                (w.slot, p.snapshot) = (true, true);
            },
            |w, _| w.copy_begun = true,
        ],
        Step::CopyRows => vec![
            |w, p| {
                assert!(p.snapshot && w.slot && !w.rows, "rows without their snapshot, or twice");
                w.rows = true;
            },
            |_, p| p.snapshot = false,
            |w, _| w.state = Some(RepackState::RowsCopied),
        ],
        Step::BuildIndexes => vec![|w, _| w.indexes = true, |w, _| w.state = Some(RepackState::IndexesBuilt)],
        Step::CatchUp => vec![
            |w, p| {
                assert!(w.indexes && w.rows && w.slot && !w.slot_lost, "changes into half a table");
                p.following = true;
            },
            |w, _| w.caught_up = true,
            |w, _| w.state = w.state.max(Some(RepackState::CaughtUp)),
        ],
        Step::Verify => vec![|w, _| w.state = Some(RepackState::Verified)],
        Step::Swap => vec![|w, p| {
            assert!(
                w.rows && w.indexes && w.caught_up && p.following && !w.changed,
                "a swap would lose something"
            );
            (w.swapped, w.shadow, w.state) = (true, false, Some(RepackState::Swapped));
        }],
        Step::CleanUp => {
            vec![|_, p| *p = Process::default(), |w, _| w.slot = false, |w, _| w.published = false, |w, _| {
                w.state = Some(RepackState::Cleaned)
            }]
        }
        Step::BeginAnew(_) | Step::Undo => {
            let mut all = undo.to_vec();
            all.push(|w, _| w.state = w.state.and(Some(RepackState::Abandoned)));
            all
        }
        Step::Prepared | Step::Undone | Step::NotPrepared(_) | Step::KnownToDiffer => Vec::new(),
    }
}

/// Runs until the command ends; with `crash_after` actions the process dies. Returns whether it came to its end.
fn run(world: &mut World, goal: Goal, crash_after: usize) -> bool {
    let mut process = Process::default();
    let mut done = 0;
    for _ in 0..60 {
        let step = next_step(&facts(world, process), goal);
        for action in actions(step) {
            if done == crash_after {
                return false;
            }
            action(world, &mut process);
            done += 1;
        }
        match step {
            Step::CleanUp | Step::Undone | Step::Prepared | Step::NotPrepared(_) => return true,
            Step::Undo if goal == Goal::Abort => return true,
            _ => {}
        }
    }
    panic!("it never ends: {world:?}");
}

fn clean(world: &World) -> bool {
    !world.slot && !world.published && !world.shadow
}

/// Every world that some number of crashed commands leads to.
fn reachable() -> BTreeSet<World> {
    let mut worlds = BTreeSet::from([EMPTY]);
    let mut new = vec![EMPTY];
    while let Some(world) = new.pop() {
        for goal in [Goal::Repack, Goal::Prepare, Goal::Swap, Goal::Abort] {
            for crash_after in 0..30 {
                let mut next = world.clone();
                // Each table is swapped once here: afterwards it would be another table.
                if next.swapped && next.state == Some(RepackState::Cleaned) {
                    continue;
                }
                run(&mut next, goal, crash_after);
                let mut variants = vec![next.clone()];
                if next.slot {
                    variants.push(World { slot_lost: true, ..next.clone() });
                    variants.push(World { slot: false, ..next.clone() });
                }
                if next.state.is_some_and(|s| s < RepackState::Swapped) {
                    variants.push(World { changed: true, ..next });
                }
                for variant in variants {
                    if worlds.insert(variant.clone()) {
                        new.push(variant);
                    }
                }
            }
        }
    }
    worlds
}

#[test]
fn from_every_crash_a_repack_ends_swapped_and_clean() {
    let worlds = reachable();
    assert!(worlds.len() > 30, "the simulation hardly crashed: {}", worlds.len());
    for world in worlds {
        let mut after = world.clone();
        if after.swapped && after.state == Some(RepackState::Cleaned) {
            continue;
        }
        assert!(run(&mut after, Goal::Repack, usize::MAX), "{world:?}");
        assert!(after.swapped && clean(&after), "{world:?} became {after:?}");
    }
}

#[test]
fn from_every_crash_an_abort_leaves_nothing() {
    for world in reachable() {
        let mut after = world.clone();
        assert!(run(&mut after, Goal::Abort, usize::MAX), "{world:?}");
        assert!(clean(&after), "{world:?} became {after:?}");
        assert_eq!(after.swapped, world.swapped, "an abort exchanges nothing");
    }
}

#[test]
fn a_prepared_one_is_swapped_later() {
    let mut world = EMPTY;
    assert!(run(&mut world, Goal::Prepare, usize::MAX));
    assert!(!world.swapped && world.state == Some(RepackState::Verified) && world.slot);
    assert!(run(&mut world, Goal::Repack, usize::MAX));
    assert!(world.swapped && clean(&world));
}
