//! Ranges of keys, and how big the next one is. Pure.

use std::time::Duration;

use crate::verify::sql::Ends;

/// The text of a key's values.
pub(crate) type Key = Vec<String>;

/// Keys above `low` (exclusive) up to `high` (inclusive); `None` is open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Range {
    pub(crate) low: Option<Key>,
    pub(crate) high: Option<Key>,
}

impl Range {
    /// Which ends are given.
    pub(crate) fn ends(&self) -> Ends {
        Ends { low: self.low.is_some(), high: self.high.is_some() }
    }

    /// The values of the ends, as [`Ends`] wants them.
    pub(crate) fn values(&self) -> impl Iterator<Item = &String> {
        self.low.iter().chain(self.high.iter()).flatten()
    }

    /// Cuts the range at `keys`, which lie in it in order. `None` when no cut makes a smaller range.
    pub(crate) fn cut(&self, mut keys: Vec<Key>) -> Option<Vec<Range>> {
        keys.dedup();
        keys.retain(|key| Some(key) != self.high.as_ref());
        if keys.is_empty() {
            return None;
        }
        let mut low = self.low.clone();
        let mut ranges = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            ranges.push(Range { low: low.replace(key.clone()), high: Some(key) });
        }
        ranges.push(Range { low, high: self.high.clone() });
        Some(ranges)
    }
}

/// Parts a differing range is cut into.
const PARTS: u64 = 8;

/// Distance of the cuts in a differing range of `rows` rows (of the side that has more).
pub(crate) fn step(rows: u64) -> u64 {
    rows.div_ceil(PARTS).max(1)
}

/// The number of rows of the next chunk, from the time the last one took.
#[derive(Debug, Clone)]
pub(crate) struct ChunkSize {
    rows: u64,
    aim: Duration,
}

impl ChunkSize {
    const LEAST: u64 = 100;
    const MOST: u64 = 200_000;

    /// Begins with `rows`; a chunk should take `aim`.
    pub(crate) fn new(rows: u64, aim: Duration) -> Self {
        ChunkSize { rows: rows.clamp(1, Self::MOST), aim }
    }

    /// Rows of the next chunk.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// A full chunk took `time`. At most doubles or halves: one slow answer says little.
    pub(crate) fn took(&mut self, time: Duration) {
        let next = if time.is_zero() {
            self.rows.saturating_mul(2)
        } else {
            let fitting = u128::from(self.rows) * self.aim.as_micros() / time.as_micros().max(1);
            u64::try_from(fitting).unwrap_or(u64::MAX).clamp(self.rows / 2, self.rows.saturating_mul(2))
        };
        // A caller that asked for fewer rows than the least gets no fewer than it asked for.
        self.rows = next.clamp(Self::LEAST.min(self.rows), Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        vec![text.to_owned()]
    }

    #[test]
    fn cuts_cover_the_range_without_gap_or_overlap() {
        let whole = Range { low: Some(key("1")), high: None };
        let parts = whole.cut(vec![key("3"), key("3"), key("5")]).unwrap();
        let ends: Vec<_> = parts.iter().map(|r| (r.low.clone(), r.high.clone())).collect();
        assert_eq!(
            ends,
            [(Some(key("1")), Some(key("3"))), (Some(key("3")), Some(key("5"))), (Some(key("5")), None)]
        );
    }

    #[test]
    fn a_cut_at_the_end_is_no_cut() {
        let range = Range { low: None, high: Some(key("9")) };
        assert_eq!(range.cut(vec![key("9")]), None);
        assert_eq!(range.cut(vec![]), None);
        assert_eq!(range.cut(vec![key("4"), key("9")]).map(|parts| parts.len()), Some(2));
    }

    #[test]
    fn values_follow_the_ends() {
        let range = Range { low: None, high: Some(vec!["a".into(), "b".into()]) };
        assert_eq!(range.ends(), Ends { low: false, high: true });
        assert_eq!(range.values().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn steps_are_never_zero() {
        assert_eq!((step(0), step(1), step(8), step(9)), (1, 1, 1, 2));
    }

    #[test]
    fn chunks_follow_the_time_they_take() {
        let mut size = ChunkSize::new(1000, Duration::from_millis(500));
        size.took(Duration::from_millis(400));
        assert_eq!(size.rows(), 1250);
        size.took(Duration::from_millis(1));
        assert_eq!(size.rows(), 2500, "at most doubles");
        size.took(Duration::from_secs(100));
        assert_eq!(size.rows(), 1250, "at most halves");
        for _ in 0..50 {
            size.took(Duration::from_secs(100));
        }
        assert_eq!(size.rows(), 100);
        for _ in 0..50 {
            size.took(Duration::ZERO);
        }
        assert_eq!(size.rows(), 200_000);
    }

    #[test]
    fn a_small_first_chunk_stays_as_asked() {
        let mut size = ChunkSize::new(7, Duration::from_millis(500));
        assert_eq!(size.rows(), 7);
        size.took(Duration::from_secs(100));
        assert_eq!(size.rows(), 7);
    }
}
