//! Bytes that rows lose between their columns, and the order of columns that loses fewest. Pure.

use super::bloat::{ColumnWidth, row_size};

/// What the order of the columns costs, by estimate, in bytes a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Alignment {
    /// Padding now.
    pub padding: f64,
    /// What the best order saves of it.
    pub saving: f64,
    /// All columns in the best order; as they are where no order saves anything.
    pub order: Vec<String>,
}

/// Judges a table's columns, given in order. Each has a name; those without a width store nothing.
pub fn alignment(columns: &[(String, Option<ColumnWidth>)]) -> Alignment {
    let now: Vec<ColumnWidth> = columns.iter().filter_map(|(_, width)| *width).collect();
    let mut sorted: Vec<&(String, Option<ColumnWidth>)> = columns.iter().collect();
    sorted.sort_by_key(|(_, width)| width.as_ref().map_or((3, 0), rank));
    let best: Vec<ColumnWidth> = sorted.iter().filter_map(|(_, width)| *width).collect();
    let (size, smallest) = (row_size(&now).0, row_size(&best).0);
    let values: f64 = now.iter().map(|c| (1.0 - c.null_fraction) * c.width).sum();
    // The header is the same in any order.
    let padding = (size - values - row_size(&[]).0).max(0.0);
    let saves = size - smallest >= 0.5;
    let order = if saves { sorted } else { columns.iter().collect() };
    Alignment {
        padding,
        saving: if saves { size - smallest } else { 0.0 },
        order: order.into_iter().map(|(name, _)| name.clone()).collect(),
    }
}

/// Columns that are always there and of fixed length first, those of the widest alignment before the others; nothing is certain behind
/// one that varies.
fn rank(column: &ColumnWidth) -> (u8, i64) {
    let group = match (column.fixed, column.null_fraction > 0.0) {
        (Some(_), false) => 0,
        (Some(_), true) => 1,
        (None, _) => 2,
    };
    (group, if group == 2 { 0 } else { -(column.align as i64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(widths: &[(&str, f64)]) -> Vec<(String, Option<ColumnWidth>)> {
        let width = |w: f64| ColumnWidth { fixed: Some(w), align: w.min(8.0), width: w, null_fraction: 0.0 };
        widths.iter().map(|(name, w)| ((*name).to_owned(), Some(width(*w)))).collect()
    }

    #[test]
    fn holes_are_counted_and_the_order_without_them_is_told() {
        let found = alignment(&columns(&[("a", 1.0), ("b", 8.0), ("c", 4.0), ("d", 8.0), ("e", 2.0)]));
        // 7 after a, 4 after c, 6 at the end; best: 8 + 8 + 4 + 2 + 1, and 1 at the end.
        assert_eq!((found.padding, found.saving), (17.0, 16.0));
        assert_eq!(found.order, ["b", "d", "c", "e", "a"]);
    }

    #[test]
    fn an_order_that_is_good_stays() {
        let found = alignment(&columns(&[("a", 4.0), ("b", 4.0), ("c", 8.0)]));
        assert_eq!((found.padding, found.saving), (0.0, 0.0));
        assert_eq!(found.order, ["a", "b", "c"]);
    }
}
