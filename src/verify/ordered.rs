//! Through a table in ranges of its key.

use tokio::time::Instant;

use crate::verify::chunk::{ChunkSize, Range, step};
use crate::verify::digest::{Totals, suspects};
use crate::verify::error::VerifyError;
use crate::verify::recheck::Work;

/// A part that differs, with what each side said of it.
struct Part {
    range: Range,
    source: Totals,
    target: Totals,
}

impl Part {
    fn rows(&self) -> u64 {
        self.source.rows.max(self.target.rows)
    }
}

/// Compares the whole table. Chunks end at keys of the source; the first and the last are open at their outer end, so that
/// every row of the target falls into one.
pub(crate) async fn walk(work: &mut Work<'_>) -> Result<(), VerifyError> {
    let mut size = ChunkSize::new(work.options.chunk_rows, work.options.chunk_time);
    let mut rest = Range::default();
    loop {
        let started = Instant::now();
        let high = work.source.key_at(&rest, size.rows().saturating_sub(1)).await?;
        let chunk = Range { low: rest.low.take(), high };
        let part = totals(work, &chunk).await?;
        size.took(started.elapsed());
        work.outcome.rows += part.source.rows;
        if part.source != part.target {
            drill(work, part).await?;
        }
        work.report();
        match chunk.high {
            Some(_) if work.enough() => {
                work.outcome.complete = false;
                return Ok(());
            }
            Some(high) => rest.low = Some(high),
            None => return Ok(()),
        }
    }
}

/// Cuts a differing part into smaller ones until their rows can be listed.
async fn drill(work: &mut Work<'_>, part: Part) -> Result<(), VerifyError> {
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        if work.enough() {
            work.outcome.complete = false;
            return Ok(());
        }
        let ranges = match part.rows() <= work.options.list_rows {
            true => None,
            false => {
                let more =
                    if part.target.rows > part.source.rows { &mut work.target } else { &mut work.source };
                part.range.cut(more.key_of_every(&part.range, step(part.rows())).await?)
            }
        };
        match ranges {
            None => list(work, &part.range).await?,
            Some(ranges) => {
                // The last is put in first, so that the first comes out first.
                for range in ranges.iter().rev() {
                    let smaller = totals(work, range).await?;
                    if smaller.source != smaller.target {
                        parts.push(smaller);
                    }
                }
            }
        }
    }
    Ok(())
}

async fn totals(work: &mut Work<'_>, range: &Range) -> Result<Part, VerifyError> {
    let (source, target) = tokio::try_join!(work.source.totals(range), work.target.totals(range))?;
    Ok(Part { range: range.clone(), source, target })
}

async fn list(work: &mut Work<'_>, range: &Range) -> Result<(), VerifyError> {
    let (source, target) = tokio::try_join!(work.source.list_range(range), work.target.list_range(range))?;
    work.suspect(suspects(&source, target)).await
}
