//! What a second look at a suspect says. Pure.
//!
//! A look is: read the source, take the end of its WAL, wait until the target has applied it, read the target, read the
//! source again. Two looks in a row that show the same difference, on row versions (`xmin`) that did not change, prove it.
//! For a row that is there on the source one would do: a version seen before and after was there all along. For a row
//! that is on the target only, one would not: it may have come and gone in between. If the same version of it is still
//! there in the second look, whose wait was for everything that had happened before, then its deletion was applied
//! and did nothing.

use crate::verify::spec::Kind;

/// What stands under one identity on one side, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) rows: u64,
    /// Equal for equal rows only; empty without rows.
    pub(crate) image: String,
    /// Equal for the same row versions only.
    pub(crate) versions: String,
    /// One of the rows has just the texts of the suspect's key (`1.0` is found as `1.00`, but has another text).
    pub(crate) same_key: bool,
    /// Where one of the rows is, for a person; empty without rows.
    pub(crate) place: String,
}

impl State {
    fn looks_like(&self, other: &State) -> bool {
        self.rows == other.rows && self.image == other.image
    }
}

/// One look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) before: State,
    pub(crate) target: State,
    pub(crate) after: State,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The target had what the source had.
    Equal,
    /// Look again.
    Again,
    /// The row is listed under another text of its key.
    Elsewhere,
    /// So many rows differ in this way.
    Differs(Kind, u64),
}

/// Judges the newest look at a suspect; `only_target` as in [`crate::verify::digest::Suspect`].
pub(crate) fn judge(only_target: bool, last: Option<&Look>, now: &Look) -> Verdict {
    if now.target.looks_like(&now.before) || now.target.looks_like(&now.after) {
        return Verdict::Equal;
    }
    if now.before != now.after {
        return Verdict::Again;
    }
    // Not where the target has more rows than the source: the surplus is listed nowhere else.
    if only_target && !now.before.same_key && (1..=now.before.rows).contains(&now.target.rows) {
        return Verdict::Elsewhere;
    }
    if last != Some(now) {
        return Verdict::Again;
    }
    let (source, target) = (now.after.rows, now.target.rows);
    if target < source {
        Verdict::Differs(Kind::Missing, source - target)
    } else if target > source {
        Verdict::Differs(Kind::Extra, target - source)
    } else {
        Verdict::Differs(Kind::Different, 1)
    }
}

/// The rows of one side at one moment, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Count {
    pub(crate) rows: u64,
    /// Equal for the same row versions only: one row that came and one that went are no quiet table.
    pub(crate) versions: i64,
}

/// Judges numbers of rows over several looks: the source before, the target, the source after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountLook {
    pub(crate) before: Count,
    pub(crate) target: Count,
    pub(crate) after: Count,
}

/// What is known of the numbers of rows after some looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountVerdict {
    /// The target has as many rows as the source had at some moment of the look.
    Equal,
    /// Look again.
    Again,
    /// So many rows are missing on the target, or too many on it.
    Differs(Kind, u64),
    /// The source changed too much to say.
    Unsettled,
}

/// `looks` holds at least the newest look, last; `more`: there may be another one.
pub(crate) fn judge_counts(looks: &[CountLook], more: bool) -> CountVerdict {
    let gap = |look: &CountLook| {
        let (before, target, after) = (look.before.rows, look.target.rows, look.after.rows);
        let (least, most) = (before.min(after), before.max(after));
        if target < least {
            Some((Kind::Missing, least - target))
        } else if target > most {
            Some((Kind::Extra, target - most))
        } else {
            None
        }
    };
    let Some(now) = looks.last() else { return CountVerdict::Again };
    let Some((kind, rows)) = gap(now) else { return CountVerdict::Equal };
    let quiet = now.before == now.after;
    if quiet && looks.len() > 1 && looks.iter().nth_back(1) == Some(now) {
        return CountVerdict::Differs(kind, rows);
    }
    if more {
        return CountVerdict::Again;
    }
    // Always off in the same direction: at least the smallest gap is real.
    let gaps: Option<Vec<(Kind, u64)>> = looks.iter().map(gap).collect();
    match gaps {
        Some(gaps) if gaps.iter().all(|(other, _)| *other == kind) => {
            CountVerdict::Differs(kind, gaps.iter().map(|(_, rows)| *rows).min().unwrap_or(rows))
        }
        _ => CountVerdict::Unsettled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(rows: u64, image: &str, versions: &str) -> State {
        State {
            rows,
            image: image.into(),
            versions: versions.into(),
            same_key: rows > 0,
            place: String::new(),
        }
    }

    fn look(before: &State, target: &State, after: &State) -> Look {
        Look { before: before.clone(), target: target.clone(), after: after.clone() }
    }

    #[test]
    fn a_target_that_has_either_state_of_the_source_is_equal() {
        let (old, new) = (state(1, "a", "1"), state(1, "b", "2"));
        let on_target = state(1, "a", "77");
        assert_eq!(judge(false, None, &look(&old, &on_target, &old)), Verdict::Equal);
        assert_eq!(judge(false, None, &look(&old, &on_target, &new)), Verdict::Equal);
        assert_eq!(judge(false, None, &look(&new, &on_target, &old)), Verdict::Equal);
        let none = State::default();
        assert_eq!(judge(true, None, &look(&none, &none, &none)), Verdict::Equal);
    }

    #[test]
    fn a_difference_must_be_seen_twice() {
        let (source, target) = (state(1, "a", "1"), state(1, "x", "7"));
        let now = look(&source, &target, &source);
        assert_eq!(judge(false, None, &now), Verdict::Again);
        assert_eq!(judge(false, Some(&now), &now), Verdict::Differs(Kind::Different, 1));
    }

    #[test]
    fn a_source_that_moved_is_looked_at_again() {
        let (old, new) = (state(1, "a", "1"), state(1, "a", "2"));
        let now = look(&old, &state(1, "x", "7"), &new);
        assert_eq!(judge(false, Some(&now), &now), Verdict::Again, "the same values, but another version");
    }

    #[test]
    fn a_row_only_on_the_target_must_be_the_same_version_twice() {
        let none = State::default();
        let first = look(&none, &state(1, "a", "7"), &none);
        let second = look(&none, &state(1, "a", "8"), &none);
        assert_eq!(judge(true, Some(&first), &second), Verdict::Again);
        assert_eq!(judge(true, Some(&second), &second), Verdict::Differs(Kind::Extra, 1));
    }

    #[test]
    fn kinds_follow_the_number_of_rows() {
        let (three, one, none) = (state(3, "a", "1"), state(1, "a", "2"), State::default());
        let twice = |source: &State, target: &State| {
            let now = look(source, target, source);
            judge(false, Some(&now), &now)
        };
        assert_eq!(twice(&three, &one), Verdict::Differs(Kind::Missing, 2));
        assert_eq!(twice(&one, &three), Verdict::Differs(Kind::Extra, 2));
        assert_eq!(twice(&three, &none), Verdict::Differs(Kind::Missing, 3));
    }

    #[test]
    fn another_text_of_the_same_key_is_counted_once() {
        let source = State { same_key: false, ..state(1, "1.0", "1") };
        let now = look(&source, &state(1, "1.00", "7"), &source);
        assert_eq!(judge(true, Some(&now), &now), Verdict::Elsewhere);
        assert_eq!(judge(false, Some(&now), &now), Verdict::Differs(Kind::Different, 1));
        let now = look(&source, &state(2, "1.0 1.00", "7"), &source);
        assert_eq!(judge(true, Some(&now), &now), Verdict::Differs(Kind::Extra, 1), "a surplus is counted");
    }

    fn counts(before: u64, target: u64, after: u64) -> CountLook {
        let count = |rows| Count { rows, versions: 0 };
        CountLook { before: count(before), target: count(target), after: count(after) }
    }

    #[test]
    fn counts_between_two_looks_at_the_source_are_equal() {
        assert_eq!(judge_counts(&[counts(5, 7, 9)], true), CountVerdict::Equal);
        assert_eq!(judge_counts(&[counts(9, 7, 5)], true), CountVerdict::Equal);
        assert_eq!(judge_counts(&[], true), CountVerdict::Again);
    }

    #[test]
    fn counts_differ_when_two_quiet_looks_agree() {
        let now = counts(5, 4, 5);
        assert_eq!(judge_counts(&[now], true), CountVerdict::Again);
        assert_eq!(judge_counts(&[now, now], true), CountVerdict::Differs(Kind::Missing, 1));
    }

    #[test]
    fn equal_numbers_of_other_rows_are_not_quiet() {
        let now = counts(5, 4, 5);
        let mut moved = now;
        moved.after.versions = 1;
        assert_eq!(
            judge_counts(&[moved, moved], true),
            CountVerdict::Again,
            "one came and one went on the source"
        );
        let mut other = now;
        other.target.versions = 1;
        assert_eq!(
            judge_counts(&[now, other], true),
            CountVerdict::Again,
            "the target was still catching up"
        );
    }

    #[test]
    fn counts_that_are_always_off_to_one_side_differ_by_the_least() {
        let looks = [counts(10, 20, 12), counts(12, 19, 14)];
        assert_eq!(judge_counts(&looks, true), CountVerdict::Again);
        assert_eq!(judge_counts(&looks, false), CountVerdict::Differs(Kind::Extra, 5));
        let looks = [counts(10, 20, 12), counts(12, 9, 14)];
        assert_eq!(judge_counts(&looks, false), CountVerdict::Unsettled);
    }
}
