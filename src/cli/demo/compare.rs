//! The judgement: both databases, row by row.

use std::sync::Arc;

use serde::Serialize;

use super::stage::{DATABASE, Stage, TABLES};
use crate::cli::report::Failure;

/// One table's comparison.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Compared {
    pub(super) table: String,
    pub(super) rows: u64,
    /// Rows that one side has and the other has not.
    pub(super) differences: u64,
}

/// Compares every table. Nothing writes to the source meanwhile.
pub(super) async fn compare(stage: &Arc<Stage>) -> Result<Vec<Compared>, Failure> {
    let mut compared = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let rows = stage
            .work("comparing", move |stage| {
                let sql = format!("SELECT t::text FROM public.{table} t ORDER BY 1");
                std::thread::scope(|scope| {
                    let target = scope.spawn(|| stage.target.psql(DATABASE, &sql));
                    let source = stage.source.psql(DATABASE, &sql)?;
                    Ok((source, target.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?))
                })
            })
            .await?;
        let (source, target): (Vec<&str>, Vec<&str>) = (rows.0.lines().collect(), rows.1.lines().collect());
        compared.push(Compared {
            table: format!("public.{table}"),
            rows: source.len() as u64,
            differences: differences(&source, &target),
        });
    }
    Ok(compared)
}

/// How many elements of two sorted lists have no partner in the other.
fn differences(left: &[&str], right: &[&str]) -> u64 {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut count = 0;
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return count,
            (Some(a), Some(b)) if a == b => {
                left.next();
                right.next();
            }
            (Some(a), Some(b)) if a > b => {
                right.next();
                count += 1;
            }
            (None, Some(_)) => {
                right.next();
                count += 1;
            }
            (Some(_), _) => {
                left.next();
                count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_without_a_partner_is_a_difference() {
        assert_eq!(differences(&["a", "b", "b"], &["a", "b", "b"]), 0);
        assert_eq!(differences(&["a", "b", "d"], &["a", "c", "d"]), 2);
        assert_eq!(differences(&["a"], &[]), 1);
        assert_eq!(differences(&[], &["a", "b"]), 2);
        assert_eq!(differences(&["a", "a"], &["a"]), 1);
    }
}
