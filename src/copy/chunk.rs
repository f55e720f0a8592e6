//! Cuts a table's heap into page ranges that workers read side by side (TID range scans); pure.

/// A range of heap pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageRange {
    /// First page.
    pub from: u32,
    /// The page after the last one; `None`: to the end, wherever that is when it is read.
    pub to: Option<u32>,
}

impl PageRange {
    /// The whole heap.
    pub const ALL: PageRange = PageRange { from: 0, to: None };

    /// The range as conditions on `ctid`; `None` for the whole heap.
    pub fn condition(&self) -> Option<String> {
        // Line pointers count from 1, so (n,0) is before every row of page n.
        let from = (self.from > 0).then(|| format!("ctid >= '({},0)'::pg_catalog.tid", self.from));
        let to = self.to.map(|to| format!("ctid < '({to},0)'::pg_catalog.tid"));
        match (from, to) {
            (Some(from), Some(to)) => Some(format!("{from} AND {to}")),
            (one, other) => one.or(other),
        }
    }
}

/// Ranges that together cover the heap, each once, in order. `pages` is the heap's present size, `page_bytes`
/// the server's `block_size`, `chunk_bytes` the size aimed at (TOASTed values, stored elsewhere, not counted).
///
/// The last range is open: rows that a page count taken earlier does not know of are in it.
pub fn split(pages: u32, page_bytes: u32, chunk_bytes: u64) -> Vec<PageRange> {
    let per_chunk = (chunk_bytes / u64::from(page_bytes.max(1))).clamp(1, u64::from(u32::MAX));
    // More than fits would cut no further: one range a page at least, and a bounded list.
    let per_chunk = per_chunk.max(u64::from(pages).div_ceil(u64::from(MAX_CHUNKS)));
    let per_chunk = u32::try_from(per_chunk).unwrap_or(u32::MAX);
    let mut ranges = Vec::new();
    let mut from = 0u32;
    while pages - from > per_chunk {
        ranges.push(PageRange { from, to: Some(from + per_chunk) });
        from += per_chunk;
    }
    ranges.push(PageRange { from, to: None });
    ranges
}

/// A table is cut into no more pieces than this.
const MAX_CHUNKS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_tables_are_one_open_range() {
        for pages in [0, 1, 8] {
            assert_eq!(split(pages, 8192, 8 * 8192), [PageRange::ALL]);
        }
        let two = [PageRange { from: 0, to: Some(8) }, PageRange { from: 8, to: None }];
        assert_eq!(split(9, 8192, 8 * 8192), two);
        assert_eq!(split(3, 8192, 0).len(), 3);
    }

    #[test]
    fn conditions_bound_what_is_bounded() {
        assert_eq!(PageRange::ALL.condition(), None);
        let condition = |from, to| PageRange { from, to }.condition().unwrap();
        assert_eq!(condition(0, Some(8)), "ctid < '(8,0)'::pg_catalog.tid");
        assert_eq!(condition(8, None), "ctid >= '(8,0)'::pg_catalog.tid");
        let both = "ctid >= '(8,0)'::pg_catalog.tid AND ctid < '(16,0)'::pg_catalog.tid";
        assert_eq!(condition(8, Some(16)), both);
    }

    proptest! {
        #[test]
        fn every_page_is_in_exactly_one_range(
            pages in prop_oneof![0u32..50_000, Just(u32::MAX), Just(u32::MAX - 1)],
            chunk in prop_oneof![0u64..1_000_000, Just(u64::MAX)],
        ) {
            let ranges = split(pages, 8192, chunk);
            prop_assert!(ranges.len() <= MAX_CHUNKS as usize);
            prop_assert_eq!(ranges[0].from, 0);
            prop_assert_eq!(ranges.last().unwrap().to, None);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, Some(pair[1].from));
                prop_assert!(pair[0].from < pair[1].from);
            }
        }
    }
}
