//! Tables compared row by row, as text.

use std::collections::HashMap;

use crate::support::db::Db;

/// Values print alike on every side.
pub(super) const PINNED: &str = "SET DateStyle = 'ISO, DMY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
     SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; SET client_encoding = 'UTF8'; \
     SET lc_monetary = 'C'; SET search_path = public";

/// The rows of a query that `left` and `right` do not share, a few of them, for a person; `None`: equal.
pub(super) async fn difference(left: &Db, right: &Db, left_sql: &str, right_sql: &str) -> Option<String> {
    if left.query_hash(left_sql).await == right.query_hash(right_sql).await {
        return None;
    }
    let mut counts: HashMap<String, i64> = HashMap::new();
    for (db, sql, weight) in [(left, left_sql, 1), (right, right_sql, -1)] {
        for row in db.query_text(&format!("select r::text from ({sql}) r")).await {
            *counts.entry(row[0].clone().unwrap_or_default()).or_default() += weight;
        }
    }
    let side = |wanted: fn(i64) -> bool| {
        let mut rows: Vec<_> = counts
            .iter()
            .filter(|(_, n)| wanted(**n))
            .map(|(row, n)| format!("{n:+} {}", cut(row)))
            .collect();
        rows.sort();
        let more = rows.len().saturating_sub(3);
        rows.truncate(3);
        format!("{}\n    ({more} more)", rows.join("\n    "))
    };
    Some(format!("  only left:\n    {}\n  only right:\n    {}", side(|n| n > 0), side(|n| n < 0)))
}

fn cut(row: &str) -> String {
    let start: String = row.chars().take(90).collect();
    if start.len() < row.len() { format!("{start}… ({} bytes)", row.len()) } else { start }
}
