//! Compares the table with its shadow while both change, on the server, one statement a range of pages.
//!
//! Both are in one database, so one snapshot sees both. The shadow is behind the table: a row that differs is a suspect. It
//! is looked at again after everything that had been committed by then was applied; if the same row version (ctid and
//! xmin) still differs, nothing on its way can explain it.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tokio::time::sleep;

use crate::copy::{PageRange, split};
use crate::model::{TableName, quote_ident};
use crate::pg::Session;
use crate::repack::error::{RepackError, doing};

/// What is compared.
#[derive(Debug, Clone)]
pub struct CompareSpec {
    /// The table.
    pub table: TableName,
    /// Its rebuilt copy.
    pub shadow: TableName,
    /// Columns that identify a row.
    pub key: Vec<String>,
    /// Columns, and what the shadow is to hold: an SQL expression over the table's row `s`.
    pub columns: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows of the table that were looked at.
    pub rows: u64,
    /// Rows that differ, are missing, or should not be there.
    pub differences: u64,
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Some pages of each, by chance.
    Sample,
    /// All pages of both.
    All,
}

/// Heap bytes of one range: a full comparison, a sample.
const RANGE_BYTES: u64 = 16 << 20;
const SAMPLE_BYTES: u64 = 128 << 10;
/// Ranges of a sample, of each table.
const SAMPLE_RANGES: usize = 32;

/// Columns that one statement compares: a row of a join, which has those of both tables, may have 1664.
const MOST_COLUMNS: usize = 500;

/// One direction: rows of `left` looked up in `right`.
struct Direction<'a> {
    spec: &'a CompareSpec,
    /// The rows' table, whose pages are read.
    rows: &'a TableName,
    /// From the shadow to the table only missing rows are looked for.
    backwards: bool,
}

impl Direction<'_> {
    /// `(rows, suspects as text[])`; with `$1` only row versions among these.
    fn sql(&self, range: Option<PageRange>, columns: &[(String, String)]) -> String {
        let other = if self.backwards { &self.spec.table } else { &self.spec.shadow };
        let join: Vec<String> = self
            .spec
            .key
            .iter()
            .map(|k| {
                let k = quote_ident(k);
                format!("d.{k} = s.{k}")
            })
            .collect();
        let key = self.spec.key.first().map(|k| quote_ident(k)).unwrap_or_default();
        let missing = format!("d.{key} IS NULL");
        let differs = if columns.is_empty() {
            missing
        } else {
            let left: Vec<&str> = columns.iter().map(|(_, sql)| sql.as_str()).collect();
            let right: Vec<String> =
                columns.iter().map(|(name, _)| format!("d.{}", quote_ident(name))).collect();
            // Compares images byte by byte: no type needs an equality, 1.0 is not 1.00 and 0 is not -0.
            format!(
                "{missing} OR pg_catalog.record_image_ne(ROW({}), ROW({}))",
                left.join(", "),
                right.join(", ")
            )
        };
        let filter = match range {
            Some(range) => range.condition().unwrap_or_else(|| "true".to_owned()),
            None => "s.ctid = ANY ($1::text[]::pg_catalog.tid[])".to_owned(),
        };
        // The condition of a range speaks of `ctid` alone; only the inner table has a row with it.
        format!(
            "SELECT count(*), coalesce(pg_catalog.array_agg(s.\"!at\") FILTER (WHERE {differs}), '{{}}'), \
             coalesce(pg_catalog.array_agg(s.\"!version\") FILTER (WHERE {differs}), '{{}}') \
             FROM (SELECT s.*, s.ctid::text AS \"!at\", s.ctid::text || ' ' || s.xmin::text AS \"!version\" FROM ONLY {} s WHERE {filter}) AS s \
             LEFT JOIN ONLY {other} d ON {}",
            self.rows,
            join.join(" AND ")
        )
    }

    /// Rows, and where and in which version the suspects are.
    async fn look(
        &self,
        session: &Session,
        range: Option<PageRange>,
        only: &[String],
    ) -> Result<(u64, Vec<String>, Vec<String>), RepackError> {
        let mut parts: Vec<&[(String, String)]> = self.spec.columns.chunks(MOST_COLUMNS).collect();
        if self.backwards || parts.is_empty() {
            parts = vec![&[]];
        }
        let only = only.to_vec();
        let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
            if range.is_some() { &[] } else { &[&only] };
        let (mut rows, mut suspects) = (0_i64, BTreeMap::new());
        for columns in parts {
            let what = format!("comparing {} with its rebuilt copy", self.spec.table);
            let row = session.query_one(&self.sql(range, columns), parameters).await.map_err(doing(what))?;
            rows = rows.max(row.try_get(0)?);
            let (at, versions): (Vec<String>, Vec<String>) = (row.try_get(1)?, row.try_get(2)?);
            suspects.extend(versions.into_iter().zip(at));
        }
        let (versions, at) = suspects.into_iter().unzip();
        Ok((u64::try_from(rows).unwrap_or(0), at, versions))
    }
}

/// A change is sent when its commit is on disk, a moment before other sessions see it: on a busy machine the shadow may show it
/// first, and the row's old version be looked at beside it. So a suspect must differ in several looks.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Compares. `applied` returns once everything that had committed before it was called is in the shadow.
///
/// # Errors
/// A statement failed, or the wait did. Differences are no error.
pub async fn compare<W, F>(
    session: &Session,
    spec: &CompareSpec,
    extent: Extent,
    mut applied: W,
) -> Result<Compared, RepackError>
where
    W: FnMut() -> F,
    F: Future<Output = Result<(), RepackError>>,
{
    session.batch_execute("SET row_security = off; SET jit = off; SET statement_timeout = 0").await?;
    if extent == Extent::Sample {
        // A few rows are looked up by key, whatever is estimated.
        session.batch_execute("SET enable_hashjoin = off; SET enable_mergejoin = off").await?;
    }
    let mut result = Compared::default();
    for backwards in [false, true] {
        let rows = if backwards { &spec.shadow } else { &spec.table };
        let direction = Direction { spec, rows, backwards };
        for range in ranges(session, rows, extent).await? {
            let (rows, at, versions) = direction.look(session, Some(range), &[]).await?;
            if !backwards {
                result.rows += rows;
            }
            if versions.is_empty() {
                continue;
            }
            let mut suspects = versions;
            for look in 1..=LOOKS {
                applied().await?;
                let (_, _, still) = direction.look(session, None, &at).await?;
                suspects.retain(|version| still.contains(version));
                if suspects.is_empty() {
                    break;
                }
                sleep(BETWEEN_LOOKS * look).await;
            }
            result.differences += suspects.len() as u64;
        }
    }
    Ok(result)
}

async fn ranges(session: &Session, table: &TableName, extent: Extent) -> Result<Vec<PageRange>, RepackError> {
    let heap = crate::copy::read_heap(session, table).await?;
    let all = |bytes| split(heap.pages, heap.page_bytes, bytes);
    Ok(match extent {
        Extent::All => all(RANGE_BYTES),
        Extent::Sample => {
            let mut some = all(SAMPLE_BYTES);
            some.shuffle(&mut rand::rng());
            some.truncate(SAMPLE_RANGES);
            some
        }
    })
}
