//! The order of queued changes of one key. Pure.
//!
//! A statement changes all its rows before the triggers of the first one fire. So what a trigger of the application makes of another row
//! of the statement is queued before the statement's own change of that row: of a key that it makes anew, the new row stands before the
//! removal of the old one. Each change tells the row before and after, so the changes of a key are links of a chain, and the chain tells
//! their order.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::model::{Change, Relation, Tuple, Value};

/// A change of one of several tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link<'a> {
    /// Which table, by any number.
    pub(super) table: usize,
    /// The columns of its key; empty: its rows have none, or their order does not matter.
    pub(super) key: &'a [String],
    /// What was changed.
    pub(super) change: &'a Change,
}

/// The values of a key, or of a row.
type Values<'a> = Vec<Option<&'a [u8]>>;

/// What the change at `place` does to the row of one key: before and after, `None` where there is no row.
#[derive(Debug, Clone, Copy)]
struct Touch<'a> {
    place: usize,
    before: Option<&'a Tuple>,
    after: Option<&'a Tuple>,
}

/// The order in which the changes were made, as places in `links`; `None` where they stand in it, or where their rows do not tell.
/// Nothing is moved across a TRUNCATE.
pub(super) fn order(links: &[Link<'_>]) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    let mut moved = false;
    for part in links.split_inclusive(|link| matches!(link.change, Change::Truncate { .. })) {
        let begin = all.len();
        let found = match is_chained(part) || is_reshaped(part) {
            true => None,
            false => chained(part).filter(|places| !places.is_sorted()),
        };
        moved |= found.is_some();
        all.extend(found.unwrap_or_else(|| (0..part.len()).collect()).into_iter().map(|place| begin + place));
    }
    moved.then_some(all)
}

/// True when each change finds its key's row as the one before has left it. Keys are compared by their hashes: two that share one look
/// like a broken chain at worst.
fn is_chained(part: &[Link<'_>]) -> bool {
    let mut left: HashMap<u64, Option<&Tuple>> = HashMap::with_capacity(part.len());
    part.iter().enumerate().all(|(place, link)| {
        touches(place, link).all(|(key, touch)| {
            let mut hasher = DefaultHasher::new();
            (link.table, key).hash(&mut hasher);
            left.insert(hasher.finish(), touch.after).is_none_or(|left| left == touch.before)
        })
    })
}

/// True when the columns of a table were changed in between: its rows of before are not those of after, and their chains tell nothing.
fn is_reshaped(part: &[Link<'_>]) -> bool {
    let mut shapes: HashMap<usize, &Arc<Relation>> = HashMap::new();
    part.iter().any(|link| {
        let (Change::Insert { relation, .. }
        | Change::Update { relation, .. }
        | Change::Delete { relation, .. }) = link.change
        else {
            return false;
        };
        !Arc::ptr_eq(shapes.entry(link.table).or_insert(relation), relation)
    })
}

fn chained(part: &[Link<'_>]) -> Option<Vec<usize>> {
    let mut keys: BTreeMap<(usize, Values<'_>), Vec<Touch<'_>>> = BTreeMap::new();
    for (place, link) in part.iter().enumerate() {
        for (key, touch) in touches(place, link) {
            keys.entry((link.table, key)).or_default().push(touch);
        }
    }
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); part.len()];
    let mut waits_for = vec![0_usize; part.len()];
    if let Some((Link { change: Change::Truncate { .. }, .. }, others)) = part.split_last() {
        waits_for[others.len()] = others.len();
        followers[..others.len()].iter_mut().for_each(|waiting| waiting.push(others.len()));
    }
    for touched in keys.values() {
        let places = path(touched).unwrap_or_else(|| touched.iter().map(|t| t.place).collect());
        for (before, after) in places.iter().zip(places.iter().skip(1)).filter(|(a, b)| a != b) {
            followers[*before].push(*after);
            waits_for[*after] += 1;
        }
    }
    sorted(&followers, waits_for)
}

/// The keys whose rows a change touches: one, or two where it changes the key.
fn touches<'a>(place: usize, link: &Link<'a>) -> impl Iterator<Item = (Values<'a>, Touch<'a>)> {
    let columns = link.key;
    let (relation, before, after) = match link.change {
        Change::Insert { relation, new } => (Some(relation), None, Some(new)),
        Change::Update { relation, old, new } => (Some(relation), old.as_ref().map(|o| o.tuple()), Some(new)),
        Change::Delete { relation, old } => (Some(relation), Some(old.tuple()), None),
        Change::Truncate { .. } => (None, None, None),
    };
    let key = move |tuple: &'a Tuple| -> Option<Values<'a>> {
        let column = |name: &String| Some(text(tuple.get(relation?.column_index(name)?)?));
        columns.iter().map(column).collect::<Option<Values<'a>>>().filter(|key| !key.is_empty())
    };
    let both = match (before.and_then(key), after.and_then(key)) {
        (Some(old), Some(new)) if old == new => [Some((new, Touch { place, before, after })), None],
        (old, new) => [
            old.map(|key| (key, Touch { place, before, after: None })),
            new.map(|key| (key, Touch { place, before: None, after })),
        ],
    };
    both.into_iter().flatten()
}

fn text(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(bytes) | Value::Binary(bytes) => Some(bytes),
        Value::Null | Value::Unchanged => None,
    }
}

/// Changes of one key as one walk from row to row (Hierholzer's), as places; where there are several, the earlier changes go first.
/// `None` where there is none.
fn path<'a>(touched: &[Touch<'a>]) -> Option<Vec<usize>> {
    let mut rows: BTreeMap<Option<Values<'a>>, usize> = BTreeMap::new();
    let mut steps = Vec::with_capacity(touched.len());
    for touch in touched {
        let mut number = |row: Option<&'a Tuple>| {
            let next = rows.len();
            *rows.entry(row.map(|row| row.values().map(text).collect())).or_insert(next)
        };
        steps.push((number(touch.before), number(touch.after)));
    }
    let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    let mut surplus = vec![0_i64; rows.len()];
    for (step, (from, to)) in steps.iter().enumerate().rev() {
        leaving[*from].push(step);
        surplus[*from] += 1;
        surplus[*to] -= 1;
    }
    // A walk that ends where it began changes nothing; as one from no row to no row it does so wherever it began.
    let begin =
        surplus.iter().position(|s| *s > 0).or(rows.get(&None).copied()).or(steps.first().map(|s| s.0))?;
    let (mut stack, mut walked) = (vec![(begin, None)], Vec::with_capacity(steps.len()));
    while let Some((row, by)) = stack.last().copied() {
        match leaving[row].pop() {
            Some(step) => stack.push((steps[step].1, Some(step))),
            None => {
                stack.pop();
                walked.extend(by);
            }
        }
    }
    walked.reverse();
    // A walk that leaps has not begun at the only row where it may.
    let joined = walked.iter().zip(walked.iter().skip(1)).all(|(a, b)| steps[*a].1 == steps[*b].0);
    (walked.len() == steps.len() && joined).then(|| walked.iter().map(|step| touched[*step].place).collect())
}

/// `items` in the order of `places`, which holds each place once.
pub(super) fn arranged<T>(items: Vec<T>, places: &[usize]) -> Vec<T> {
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    places.iter().filter_map(|place| items.get_mut(*place)?.take()).collect()
}

/// Places in an order in which each comes behind those it waits for, else as they stand; `None` where two wait for each other.
fn sorted(followers: &[Vec<usize>], mut waits_for: Vec<usize>) -> Option<Vec<usize>> {
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..waits_for.len()).filter(|place| waits_for[*place] == 0).map(Reverse).collect();
    let mut all = Vec::with_capacity(waits_for.len());
    while let Some(Reverse(place)) = ready.pop() {
        all.push(place);
        for follower in &followers[place] {
            waits_for[*follower] -= 1;
            if waits_for[*follower] == 0 {
                ready.push(Reverse(*follower));
            }
        }
    }
    (all.len() == followers.len()).then_some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{OldTuple, RelationColumn, ReplicaIdentity, TableName};

    type Row = (u8, u8);

    fn relation() -> Arc<Relation> {
        let column = |name: &str| RelationColumn {
            name: name.into(),
            type_oid: 25,
            type_modifier: -1,
            in_identity: true,
        };
        let columns = vec![column("id"), column("v")];
        Arc::new(Relation {
            oid: 7,
            name: TableName::new("public", "t"),
            identity: ReplicaIdentity::Full,
            columns,
        })
    }

    fn tuple((id, v): Row) -> Tuple {
        let (id, v) = (id.to_string(), v.to_string());
        [Value::Text(id.as_bytes()), Value::Text(v.as_bytes())].into_iter().collect()
    }

    fn change((before, after): (Option<Row>, Option<Row>), relation: &Arc<Relation>) -> Change {
        let relation = relation.clone();
        match (before.map(tuple), after.map(tuple)) {
            (None, Some(new)) => Change::Insert { relation, new },
            (Some(old), Some(new)) => Change::Update { relation, old: Some(OldTuple::Full(old)), new },
            (Some(old), None) => Change::Delete { relation, old: OldTuple::Full(old) },
            (None, None) => {
                Change::Truncate { relations: vec![relation], cascade: false, restart_identity: false }
            }
        }
    }

    fn with_links<T>(steps: &[(Option<Row>, Option<Row>)], look: impl Fn(&[Link<'_>]) -> T) -> T {
        let (key, relation) = (vec!["id".to_owned()], relation());
        let changes: Vec<Change> = steps.iter().map(|step| change(*step, &relation)).collect();
        look(&changes.iter().map(|change| Link { table: 0, key: &key, change }).collect::<Vec<_>>())
    }

    fn ordered(steps: &[(Option<Row>, Option<Row>)]) -> Option<Vec<usize>> {
        with_links(steps, order)
    }

    const A: Option<Row> = Some((1, 0));
    const B: Option<Row> = Some((2, 0));

    #[test]
    fn a_row_made_anew_before_its_removal_was_queued_comes_behind_it() {
        // DELETE of 1 and 2, whose trigger for 1 inserts 2 again.
        assert_eq!(ordered(&[(A, None), (None, Some((2, 9))), (B, None)]), Some(vec![0, 2, 1]));
        // INSERT of 1 and 2, whose trigger for 1 removes 2 and makes it again.
        assert_eq!(ordered(&[(None, A), (B, None), (None, Some((2, 9))), (None, B)]), Some(vec![0, 3, 1, 2]));
        // 2 moves away, and another one takes its key.
        let moved = Some((5, 0));
        assert_eq!(ordered(&[(None, Some((2, 9))), (B, moved), (moved, None)]), Some(vec![1, 0, 2]));
    }

    #[test]
    fn what_is_in_order_or_cannot_be_brought_into_one_stays() {
        assert_eq!(ordered(&[(A, Some((1, 1))), (B, None), (Some((1, 1)), None), (None, A)]), None);
        // Two rows exchange their keys.
        assert_eq!(ordered(&[(A, Some((2, 7))), (B, Some((1, 7)))]), None);
        // Its columns were changed in between: no walk leads through all of it.
        assert_eq!(ordered(&[(A, Some((1, 1))), (Some((1, 5)), Some((1, 6)))]), None);
        assert_eq!(ordered(&[]), None);
    }

    #[test]
    fn nothing_moves_across_a_truncate() {
        let again = (None, Some((2, 9)));
        assert_eq!(ordered(&[again, (B, None), (None, None), again]), Some(vec![1, 0, 2, 3]));
        assert_eq!(ordered(&[again, (None, None), (B, None)]), None);
    }

    #[test]
    fn nothing_moves_where_columns_were_changed_in_between() {
        let key = vec!["id".to_owned()];
        let (before, after) = (relation(), relation());
        let changes = [change((None, Some((2, 9))), &before), change((B, None), &after)];
        let links = changes.each_ref().map(|change| Link { table: 0, key: &key, change });
        assert_eq!(order(&links), None);
    }

    #[test]
    fn rows_without_a_key_stay() {
        let relation = relation();
        let changes = [change((None, Some((2, 9))), &relation), change((B, None), &relation)];
        let links: Vec<Link<'_>> = changes.iter().map(|change| Link { table: 0, key: &[], change }).collect();
        assert_eq!(order(&links), None);
    }

    /// What a history makes of these rows; `None` where a change does not find its row as it was.
    fn replayed(
        mut rows: BTreeMap<u8, u8>,
        history: Vec<(Option<Row>, Option<Row>)>,
    ) -> Option<BTreeMap<u8, u8>> {
        for (before, after) in history {
            if let Some((id, v)) = before {
                (rows.remove(&id) == Some(v)).then_some(())?;
            }
            if let Some((id, v)) = after {
                rows.insert(id, v).is_none().then_some(())?;
            }
        }
        Some(rows)
    }

    proptest! {
        /// A true history in which some changes were queued too early: what is found is a true history again, with the same end.
        #[test]
        fn a_shuffled_history_ends_as_it_did(
            asks in prop::collection::vec((0_u8..4, 0_u8..3, 0_u8..4), 1..24),
            swaps in prop::collection::vec((0_usize..24, 0_usize..24), 0..4),
        ) {
            let mut rows: BTreeMap<u8, u8> = BTreeMap::from([(0, 100), (1, 101)]);
            let begin = rows.clone();
            // Every image is another one, as far as possible, as in a table with a counter.
            let (mut steps, mut moves) = (Vec::new(), false);
            for (n, (id, what, to)) in asks.into_iter().enumerate() {
                let version = n as u8;
                let before = rows.get(&id).map(|v| (id, *v));
                let after = match (before, what) {
                    (None, _) | (Some(_), 0) => Some((id, version)),
                    (Some(_), 1) => None,
                    (Some(_), _) if rows.contains_key(&to) => continue,
                    (Some(_), _) => Some((to, version)),
                };
                moves |= before.zip(after).is_some_and(|(b, a)| b.0 != a.0);
                rows.remove(&id);
                rows.extend(after);
                steps.push((before, after));
            }
            let mut queued = steps.clone();
            for (a, b) in swaps {
                if a < queued.len() && b < queued.len() {
                    queued.swap(a, b);
                }
            }
            match ordered(&queued) {
                Some(places) => prop_assert_eq!(replayed(begin, arranged(queued, &places)), Some(rows)),
                // Changes of keys tie chains together, and the one that was chosen may not fit the others.
                None => prop_assert!(moves || with_links(&queued, is_chained)),
            }
        }
    }
}
