//! What a repack does next. Pure: facts from the database and from this process in, one step out. After a crash the same
//! question is asked with what is left.

use crate::repack::state::RepackState;

/// What the person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Everything but the swap.
    Prepare,
    /// The whole.
    Repack,
    /// The exchange of what is prepared; never another copy.
    Swap,
    /// As if it had never begun.
    Abort,
}

/// Which relation bears the table's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one that was there when the repack began.
    Before,
    /// The shadow: the swap has happened.
    After,
    /// Another one, or none.
    Gone,
}

/// The slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFact {
    /// None of this name.
    Absent,
    /// It goes on from our position.
    Usable,
    /// Invalidated, read beyond our position, or what it publishes was changed: changes may be missing.
    Lost,
}

/// What is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The stored state; `None`: the table was never repacked.
    pub state: Option<RepackState>,
    /// Which relation bears the name.
    pub place: Place,
    /// The table and all that hangs on it are defined as when the repack began.
    pub unchanged: bool,
    /// Slot.
    pub slot: SlotFact,
    /// Publication.
    pub published: bool,
    /// Something bears the shadow's name.
    pub shadow: bool,
    /// The slot was made for a copy that began.
    pub copy_begun: bool,
    /// This process holds the slot's snapshot.
    pub snapshot: bool,
    /// This process applies changes.
    pub following: bool,
    /// All rows are to be compared, and this process has not done so.
    pub compare: bool,
    /// A comparison found differences, and no later one of all rows found none.
    pub differs: bool,
}

/// Why what there is cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// The copy was cut off and its snapshot is gone.
    CutOff,
    /// The slot has gone, or lost what was not read yet, or may have.
    SlotLost,
    /// The shadow has gone.
    ShadowGone,
    /// The table or something that hangs on it was changed.
    Changed,
    /// Something of an earlier repack that left no state.
    Leftover,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unusable::CutOff => "the copy was cut off, and the snapshot it was made under is gone",
            Unusable::SlotLost => {
                "the slot or queue is gone, or its publication was changed: changes that were not applied yet may be lost"
            }
            Unusable::ShadowGone => "the shadow table is gone",
            Unusable::Changed => "the table, or something that hangs on it, was changed since",
            Unusable::Leftover => "an earlier repack left something behind",
        })
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write down that it begins.
    Plan,
    /// Make the empty shadow.
    MakeShadow,
    /// Publish the table, make the slot, hold its snapshot.
    MakeSlot,
    /// Copy the rows.
    CopyRows,
    /// Build the indexes and all that can be done without a lock on the table.
    BuildIndexes,
    /// Apply changes until few are left, and go on applying.
    CatchUp,
    /// Compare.
    Verify,
    /// Exchange the tables.
    Swap,
    /// Validate foreign keys; remove slot, publication and the old table.
    CleanUp,
    /// Remove everything of ours, to begin anew.
    BeginAnew(Unusable),
    /// Remove everything of ours, for good.
    Undo,
    /// The copy is known to differ, and it is not asked for another comparison.
    KnownToDiffer,
    /// Prepared; it waits.
    Prepared,
    /// There is nothing to undo.
    Undone,
    /// What is prepared cannot be exchanged, for this reason, or nothing is prepared.
    NotPrepared(Option<Unusable>),
}

impl Step {
    /// Goes on with what an earlier process may have left.
    pub fn works(self) -> bool {
        matches!(
            self,
            Step::MakeShadow
                | Step::MakeSlot
                | Step::CopyRows
                | Step::BuildIndexes
                | Step::CatchUp
                | Step::Verify
                | Step::Swap
        )
    }
}

/// Decides.
pub fn next_step(facts: &Facts, goal: Goal) -> Step {
    match whatever_it_takes(facts, goal) {
        Step::BeginAnew(why) if goal == Goal::Swap => Step::NotPrepared(Some(why)),
        Step::Plan | Step::MakeShadow | Step::MakeSlot | Step::CopyRows | Step::BuildIndexes
            if goal == Goal::Swap =>
        {
            Step::NotPrepared(None)
        }
        step => step,
    }
}

fn whatever_it_takes(facts: &Facts, goal: Goal) -> Step {
    let leftovers = facts.shadow || facts.published || facts.slot != SlotFact::Absent;
    let begun = |state: &RepackState| !matches!(state, RepackState::Cleaned | RepackState::Abandoned);
    let Some(state) = facts.state.filter(begun) else {
        return match (goal, leftovers) {
            (Goal::Abort, false) => Step::Undone,
            (Goal::Abort, true) => Step::Undo,
            // Dropped just after what was begun was thrown away: there is nothing to begin anew with.
            _ if facts.place == Place::Gone => Step::Undo,
            (_, true) => Step::BeginAnew(Unusable::Leftover),
            (_, false) => Step::Plan,
        };
    };
    match state {
        // The state moves in the swap's transaction, so place and state agree.
        RepackState::Swapped => Step::CleanUp,
        _ if goal == Goal::Abort || facts.place == Place::Gone => Step::Undo,
        RepackState::Planned if leftovers => Step::BeginAnew(Unusable::Leftover),
        _ if !facts.unchanged => Step::BeginAnew(Unusable::Changed),
        RepackState::Planned => Step::MakeShadow,
        _ if !facts.shadow => Step::BeginAnew(Unusable::ShadowGone),
        RepackState::ShadowReady if facts.snapshot => Step::CopyRows,
        RepackState::ShadowReady if facts.copy_begun || facts.slot != SlotFact::Absent => {
            Step::BeginAnew(Unusable::CutOff)
        }
        RepackState::ShadowReady => Step::MakeSlot,
        _ if facts.slot != SlotFact::Usable => Step::BeginAnew(Unusable::SlotLost),
        RepackState::RowsCopied => Step::BuildIndexes,
        // Unreachable: without a begun repack the answer was given above.
        RepackState::Cleaned | RepackState::Abandoned => Step::Undone,
        _ if facts.differs && !facts.compare => Step::KnownToDiffer,
        _ if !facts.following => Step::CatchUp,
        RepackState::IndexesBuilt => Step::CatchUp,
        RepackState::CaughtUp => Step::Verify,
        RepackState::Verified if facts.compare => Step::Verify,
        RepackState::Verified if goal == Goal::Prepare => Step::Prepared,
        RepackState::Verified => Step::Swap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Facts = Facts {
        state: None,
        place: Place::Before,
        unchanged: true,
        slot: SlotFact::Absent,
        published: false,
        shadow: false,
        copy_begun: false,
        snapshot: false,
        following: false,
        compare: false,
        differs: false,
    };

    fn at(state: RepackState) -> Facts {
        Facts {
            state: Some(state),
            slot: SlotFact::Usable,
            published: true,
            shadow: true,
            copy_begun: true,
            ..FRESH
        }
    }

    #[test]
    fn a_table_that_went_away_is_not_begun_anew() {
        let gone = Facts { place: Place::Gone, ..FRESH };
        for goal in [Goal::Repack, Goal::Prepare] {
            assert_eq!(next_step(&gone, goal), Step::Undo);
        }
        assert_eq!(next_step(&gone, Goal::Abort), Step::Undone);
    }

    #[test]
    fn a_repack_goes_its_way() {
        use RepackState::*;
        let next = |facts: Facts| next_step(&facts, Goal::Repack);
        assert_eq!(next(FRESH), Step::Plan);
        assert_eq!(next(Facts { state: Some(Planned), ..FRESH }), Step::MakeShadow);
        assert_eq!(next(Facts { state: Some(ShadowReady), shadow: true, ..FRESH }), Step::MakeSlot);
        assert_eq!(next(Facts { snapshot: true, ..at(ShadowReady) }), Step::CopyRows);
        assert_eq!(next(at(RowsCopied)), Step::BuildIndexes);
        assert_eq!(next(at(IndexesBuilt)), Step::CatchUp);
        assert_eq!(next(Facts { following: true, ..at(CaughtUp) }), Step::Verify);
        assert_eq!(next(Facts { following: true, ..at(Verified) }), Step::Swap);
        assert_eq!(next_step(&Facts { following: true, ..at(Verified) }, Goal::Prepare), Step::Prepared);
        assert_eq!(next(at(Swapped)), Step::CleanUp);
    }

    #[test]
    fn a_copy_that_was_cut_off_begins_anew_and_a_later_state_goes_on() {
        use RepackState::*;
        let next = |facts: Facts| next_step(&facts, Goal::Repack);
        assert_eq!(next(at(ShadowReady)), Step::BeginAnew(Unusable::CutOff));
        // The slot was dropped by somebody: rows that were copied under it stay worthless.
        let dropped = Facts { slot: SlotFact::Absent, ..at(ShadowReady) };
        assert_eq!(next(dropped), Step::BeginAnew(Unusable::CutOff));
        for state in [CaughtUp, Verified] {
            assert_eq!(next(at(state)), Step::CatchUp, "{state:?}: nobody applies changes any more");
        }
    }

    #[test]
    fn what_cannot_be_used_is_thrown_away() {
        use RepackState::*;
        let next = |facts: Facts| next_step(&facts, Goal::Repack);
        for state in [RowsCopied, IndexesBuilt, CaughtUp, Verified] {
            for slot in [SlotFact::Absent, SlotFact::Lost] {
                assert_eq!(next(Facts { slot, ..at(state) }), Step::BeginAnew(Unusable::SlotLost));
            }
            assert_eq!(next(Facts { shadow: false, ..at(state) }), Step::BeginAnew(Unusable::ShadowGone));
            assert_eq!(next(Facts { unchanged: false, ..at(state) }), Step::BeginAnew(Unusable::Changed));
            assert_eq!(next(Facts { place: Place::Gone, ..at(state) }), Step::Undo);
        }
    }

    #[test]
    fn a_swap_never_copies() {
        use RepackState::*;
        let next = |facts: Facts| next_step(&facts, Goal::Swap);
        assert_eq!(next(at(Verified)), Step::CatchUp);
        assert_eq!(next(Facts { following: true, ..at(CaughtUp) }), Step::Verify);
        assert_eq!(next(Facts { following: true, ..at(Verified) }), Step::Swap);
        let changed = Facts { unchanged: false, ..at(Verified) };
        assert_eq!(next(changed), Step::NotPrepared(Some(Unusable::Changed)));
        for early in [FRESH, Facts { state: Some(Planned), ..FRESH }, at(RowsCopied)] {
            assert_eq!(next(early), Step::NotPrepared(None));
        }
        assert_eq!(next(at(Swapped)), Step::CleanUp);
    }

    #[test]
    fn all_rows_are_compared_again_where_that_is_asked_for() {
        use RepackState::*;
        for goal in [Goal::Repack, Goal::Prepare, Goal::Swap] {
            let asked = Facts { compare: true, following: true, ..at(Verified) };
            assert_eq!(next_step(&asked, goal), Step::Verify, "{goal:?}");
            let known = Facts { differs: true, ..asked };
            assert_eq!(next_step(&known, goal), Step::Verify, "{goal:?}");
        }
    }

    #[test]
    fn what_is_known_to_differ_is_not_exchanged() {
        use RepackState::*;
        for state in [IndexesBuilt, CaughtUp, Verified] {
            for goal in [Goal::Repack, Goal::Prepare, Goal::Swap] {
                let known = Facts { differs: true, ..at(state) };
                assert_eq!(next_step(&known, goal), Step::KnownToDiffer, "{state:?} {goal:?}");
                let asked = Facts { compare: true, ..known };
                assert_eq!(next_step(&asked, goal), Step::CatchUp, "{state:?} {goal:?}");
            }
            let known = Facts { differs: true, ..at(state) };
            assert_eq!(next_step(&known, Goal::Abort), Step::Undo);
            let lost = Facts { slot: SlotFact::Lost, ..known };
            assert_eq!(next_step(&lost, Goal::Repack), Step::BeginAnew(Unusable::SlotLost));
        }
    }

    #[test]
    fn nothing_undoes_a_swap() {
        let swapped = Facts { place: Place::After, ..at(RepackState::Swapped) };
        for goal in [Goal::Abort, Goal::Prepare, Goal::Repack] {
            assert_eq!(next_step(&swapped, goal), Step::CleanUp);
        }
    }

    #[test]
    fn an_abort_leaves_nothing_and_can_be_repeated() {
        use RepackState::*;
        for state in [Planned, ShadowReady, RowsCopied, IndexesBuilt, CaughtUp, Verified, Abandoned, Cleaned]
        {
            assert_eq!(next_step(&at(state), Goal::Abort), Step::Undo, "{state:?}");
        }
        let undone = Facts { state: Some(Abandoned), ..FRESH };
        assert_eq!(next_step(&undone, Goal::Abort), Step::Undone);
        assert_eq!(next_step(&FRESH, Goal::Abort), Step::Undone);
        let without_state = Facts { slot: SlotFact::Usable, ..FRESH };
        assert_eq!(next_step(&without_state, Goal::Abort), Step::Undo);
    }
}
