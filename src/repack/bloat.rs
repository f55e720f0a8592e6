//! How much of a heap is bloat, estimated from statistics. Pure.
//!
//! The pages that the live rows need are computed from the mean widths that ANALYZE has written down and from how a
//! page is laid out; what the table has beyond that is bloat. Only the heap is estimated: nothing is known of how full
//! index and TOAST pages are without reading them.

/// Header of a page (`SizeOfPageHeaderData`).
const PAGE_HEADER: f64 = 24.0;
/// A row's pointer in its page (`ItemIdData`).
const POINTER: f64 = 4.0;
/// Header of a row before the null bitmap (`SizeofHeapTupleHeader`).
const ROW_HEADER: f64 = 23.0;
/// `MAXIMUM_ALIGNOF` on every platform PostgreSQL 14 and later is built for.
const MAX_ALIGN: f64 = 8.0;

/// A stored column, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColumnWidth {
    /// Bytes of a fixed-length type; `None`: of variable length.
    pub fixed: Option<f64>,
    /// Alignment of the type: 1, 2, 4 or 8.
    pub align: f64,
    /// Mean bytes of a value that is not null, as stored.
    pub width: f64,
    /// Part of the rows in which it is null, 0 to 1.
    pub null_fraction: f64,
}

/// Bloat of a heap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bloat {
    /// Bytes beyond what the rows need.
    pub bytes: u64,
    /// The same in percent of the heap, 0 to 100.
    pub percent: f64,
}

/// Mean bytes of a row with header and alignment, without its pointer; and whether every row has this size.
pub fn row_size(columns: &[ColumnWidth]) -> (f64, bool) {
    let without_nulls: f64 = columns.iter().map(|c| 1.0 - c.null_fraction).product();
    let count = columns.len() as f64;
    let plain = align(ROW_HEADER, MAX_ALIGN);
    let with_bitmap = align(ROW_HEADER + (count / 8.0).ceil(), MAX_ALIGN);
    let header = without_nulls * plain + (1.0 - without_nulls) * with_bitmap;
    let mut size = 0.0;
    // Where the next value begins is certain as long as nothing before it varies.
    let mut exact = true;
    for column in columns {
        let present = 1.0 - column.null_fraction;
        match column.fixed {
            Some(width) => {
                let padding =
                    if exact { align(size, column.align) - size } else { (column.align - 1.0) / 2.0 };
                size += present * (padding + width);
            }
            // Values of up to 126 bytes have a header of one byte and stand anywhere.
            None => {
                let padding = if column.width > 127.0 { (column.align - 1.0) / 2.0 } else { 0.0 };
                size += present * (padding + column.width);
                exact = false;
            }
        }
        exact &= column.null_fraction == 0.0;
    }
    let padding = if exact { align(size, MAX_ALIGN) - size } else { (MAX_ALIGN - 1.0) / 2.0 };
    (header + size + padding, exact)
}

/// Pages that `rows` need at a fillfactor, in pages of `block` bytes.
pub fn pages_needed(rows: f64, columns: &[ColumnWidth], fillfactor: u32, block: u32) -> u64 {
    if rows <= 0.0 {
        return 0;
    }
    let (size, exact) = row_size(columns);
    let item = size + POINTER;
    let block = f64::from(block);
    // An insert leaves this much free, but a page always takes one row.
    let reserved = block * (100.0 - f64::from(fillfactor.clamp(10, 100))) / 100.0;
    let usable = block - PAGE_HEADER - reserved;
    let per_page = if exact {
        (usable / item).floor()
    } else {
        // The next row does not fit: on average half of one is left free.
        usable / item - 0.5
    };
    (rows / per_page.max(1.0)).ceil() as u64
}

/// Bloat of a heap of `heap` bytes; never negative.
pub fn bloat(heap: u64, needed_pages: u64, block: u32) -> Bloat {
    let bytes = heap.saturating_sub(needed_pages.saturating_mul(u64::from(block)));
    let percent = if heap == 0 { 0.0 } else { 100.0 * bytes as f64 / heap as f64 };
    Bloat { bytes, percent }
}

fn align(size: f64, to: f64) -> f64 {
    (size / to).ceil() * to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(width: f64) -> ColumnWidth {
        ColumnWidth { fixed: Some(width), align: width.min(8.0), width, null_fraction: 0.0 }
    }

    fn text(width: f64, null_fraction: f64) -> ColumnWidth {
        ColumnWidth { fixed: None, align: 4.0, width, null_fraction }
    }

    #[test]
    fn a_row_of_fixed_columns_is_exact() {
        // int4, int8: 4 + 4 padding + 8; int8, int4: 8 + 4 + 4 at the end.
        assert_eq!(row_size(&[fixed(4.0), fixed(8.0)]), (40.0, true));
        assert_eq!(row_size(&[fixed(8.0), fixed(4.0)]), (40.0, true));
        assert_eq!(row_size(&[fixed(4.0)]), (32.0, true));
        assert_eq!(row_size(&[]), (24.0, true));
    }

    #[test]
    fn nulls_cost_a_bitmap_and_save_the_value() {
        // One byte of bitmap fits beside the header of 23; nine columns need two.
        let (size, exact) = row_size(&[fixed(8.0), text(10.0, 1.0)]);
        assert_eq!((size, exact), (24.0 + 8.0 + 3.5, false));
        let nine: Vec<_> = (0..9).map(|_| text(0.0, 1.0)).collect();
        assert!((row_size(&nine).0 - (32.0 + 3.5)).abs() < 1e-9);
    }

    #[test]
    fn pages_follow_rows_and_fillfactor() {
        // A known case: int4 alone, 226 rows a page at fillfactor 100.
        assert_eq!(pages_needed(226.0, &[fixed(4.0)], 100, 8192), 1);
        assert_eq!(pages_needed(227.0, &[fixed(4.0)], 100, 8192), 2);
        assert_eq!(pages_needed(227.0, &[fixed(4.0)], 50, 8192), 3);
        assert_eq!(pages_needed(0.0, &[fixed(4.0)], 100, 8192), 0);
        // A row wider than the room of the fillfactor still has its page.
        assert_eq!(pages_needed(5.0, &[text(7000.0, 0.0)], 10, 8192), 5);
    }

    #[test]
    fn bloat_is_never_negative() {
        assert_eq!(bloat(8192 * 4, 1, 8192), Bloat { bytes: 8192 * 3, percent: 75.0 });
        assert_eq!(bloat(8192, 7, 8192), Bloat { bytes: 0, percent: 0.0 });
        assert_eq!(bloat(0, 0, 8192), Bloat { bytes: 0, percent: 0.0 });
    }
}
