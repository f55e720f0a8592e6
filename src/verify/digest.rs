//! Comparing what the two sides say of a part. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::verify::chunk::Key;

/// Rows of a part and the sum of their digests, as the server printed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) rows: u64,
    pub(crate) sum: String,
}

/// By identity (the key's texts; without a key, the row's digest): what stands there, as a text that is equal only
/// for equal rows.
pub(crate) type Listing = HashMap<Key, String>;

/// Something that looked different once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suspect {
    pub(crate) key: Key,
    /// No row of the source was listed under it.
    pub(crate) only_target: bool,
}

/// Adds a row of a listing. A key can come again where its text is equal but its values are not.
pub(crate) fn add_row(listing: &mut Listing, key: Key, text: String) {
    listing.entry(key).and_modify(|old| *old = format!("{old} {text}")).or_insert(text);
}

/// What is not the same in two listings of one part, in the order of the texts.
pub(crate) fn suspects(source: &Listing, mut target: Listing) -> Vec<Suspect> {
    let mut found: Vec<Suspect> = source
        .iter()
        .filter(|(key, text)| target.remove(*key).as_ref() != Some(text))
        .map(|(key, _)| Suspect { key: key.clone(), only_target: false })
        .collect();
    found.extend(target.into_keys().map(|key| Suspect { key, only_target: true }));
    found.sort();
    found
}

/// Hexadecimal digits of a bucket's name, so that a bucket has a few hundred rows; never more than 65,536 buckets.
pub(crate) fn bucket_digits(estimated_rows: Option<u64>) -> usize {
    match estimated_rows {
        Some(0..=5_000) => 1,
        Some(5_001..=80_000) => 2,
        Some(80_001..=1_200_000) | None => 3,
        Some(_) => 4,
    }
}

/// The names of buckets that differ, in groups of at most `budget` rows (of the side with more); a bigger bucket is
/// a group of its own.
pub(crate) fn differing_buckets(
    source: &BTreeMap<String, Totals>,
    target: &BTreeMap<String, Totals>,
    budget: u64,
) -> Vec<Vec<String>> {
    let none = Totals::default();
    let mut names: Vec<&String> = source.keys().chain(target.keys()).collect();
    names.sort();
    names.dedup();
    let mut groups: Vec<Vec<String>> = Vec::new();
    let mut rows = 0;
    for name in names {
        let (ours, theirs) = (source.get(name).unwrap_or(&none), target.get(name).unwrap_or(&none));
        if ours == theirs {
            continue;
        }
        let more = ours.rows.max(theirs.rows);
        match groups.last_mut() {
            Some(group) if rows + more <= budget => {
                group.push(name.clone());
                rows += more;
            }
            _ => {
                groups.push(vec![name.clone()]);
                rows = more;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(rows: &[(&str, &str)]) -> Listing {
        let mut listing = Listing::new();
        for (key, text) in rows {
            add_row(&mut listing, vec![(*key).to_owned()], (*text).to_owned());
        }
        listing
    }

    #[test]
    fn suspects_are_what_is_missing_extra_or_other() {
        let source = listing(&[("1", "a"), ("2", "b"), ("3", "c")]);
        let target = listing(&[("1", "a"), ("2", "x"), ("4", "d")]);
        let found: Vec<(String, bool)> =
            suspects(&source, target).into_iter().map(|s| (s.key.concat(), s.only_target)).collect();
        assert_eq!(found, [("2".to_owned(), false), ("3".to_owned(), false), ("4".to_owned(), true)]);
        assert!(suspects(&source, source.clone()).is_empty());
        assert!(suspects(&Listing::new(), Listing::new()).is_empty());
    }

    #[test]
    fn a_key_listed_twice_keeps_both() {
        assert_ne!(listing(&[("1", "a"), ("1", "b")]), listing(&[("1", "b")]));
    }

    #[test]
    fn composite_keys_do_not_run_together() {
        let one: Listing = [(vec!["a".into(), "bc".into()], "x".into())].into();
        let other: Listing = [(vec!["ab".into(), "c".into()], "x".into())].into();
        assert_eq!(suspects(&one, other).len(), 2);
    }

    fn buckets(list: &[(&str, u64, &str)]) -> BTreeMap<String, Totals> {
        list.iter()
            .map(|(name, rows, sum)| ((*name).to_owned(), Totals { rows: *rows, sum: (*sum).to_owned() }))
            .collect()
    }

    #[test]
    fn buckets_are_grouped_within_the_budget() {
        let source = buckets(&[("0", 10, "1"), ("1", 10, "2"), ("2", 10, "3"), ("3", 100, "4")]);
        let target = buckets(&[("0", 10, "1"), ("1", 10, "9"), ("3", 1, "4"), ("4", 5, "5")]);
        assert_eq!(differing_buckets(&source, &target, 20), [vec!["1", "2"], vec!["3"], vec!["4"]]);
        assert!(differing_buckets(&source, &source, 20).is_empty());
    }

    #[test]
    fn one_side_empty_differs_in_every_bucket() {
        let source = buckets(&[("0", 1, "1"), ("1", 1, "0")]);
        assert_eq!(differing_buckets(&source, &BTreeMap::new(), 100), [vec!["0", "1"]]);
    }

    #[test]
    fn buckets_grow_finer_with_the_table() {
        assert_eq!(bucket_digits(Some(0)), 1);
        assert_eq!(bucket_digits(None), 3);
        assert_eq!(bucket_digits(Some(u64::MAX)), 4);
    }
}
