//! Through a table by hash: one pass over each side gives a digest for every bucket of keys (or of rows, where there is no
//! key), and the rows of buckets that differ are listed by further passes. For tables whose key has no common order, or
//! none an index is in: ranges of it would each cost a pass.

use crate::verify::digest::{bucket_digits, differing_buckets, suspects};
use crate::verify::error::VerifyError;
use crate::verify::recheck::Work;

/// Rows listed at once: some ten megabytes of digests and keys.
const LIST_BUDGET: u64 = 100_000;

/// Compares the whole table.
pub(crate) async fn walk(work: &mut Work<'_>) -> Result<(), VerifyError> {
    let digits = bucket_digits(work.estimated_rows);
    let (source, target) = tokio::try_join!(work.source.buckets(digits), work.target.buckets(digits))?;
    work.outcome.rows = source.values().map(|totals| totals.rows).sum();
    work.report();
    for group in differing_buckets(&source, &target, LIST_BUDGET) {
        if work.enough() {
            work.outcome.complete = false;
            return Ok(());
        }
        let (source, target) = tokio::try_join!(
            work.source.list_buckets(digits, &group),
            work.target.list_buckets(digits, &group)
        )?;
        work.suspect(suspects(&source, target)).await?;
        work.report();
    }
    Ok(())
}
