//! Copies one chunk: COPY to COPY, bytes passed through unread.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::copy::chunk::PageRange;
use crate::copy::error::{CopyError, server};
use crate::copy::format::CopyFormat;
use crate::model::{TableName, quote_ident};

/// Rows travel to the target in messages of about this many bytes. The source sends a message a row; larger ones
/// spare the target system calls. With one message under way and one being filled, this bounds a worker's
/// memory, up to the largest row.
const MESSAGE_BYTES: usize = 64 * 1024;

/// What is copied where, chunk by chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySpec {
    /// The table that holds the rows: a partitioned table's leaf, never its root.
    pub source: TableName,
    /// Columns to read. None is generated, and with none at all only the number of rows is copied.
    pub columns: Vec<String>,
    /// Only rows for which this holds.
    pub condition: Option<String>,
    /// Where they go; several leaves may share it.
    pub target: TableName,
    /// The target's columns, in the order of `columns`.
    pub target_columns: Vec<String>,
    /// Format on both sides.
    pub format: CopyFormat,
    /// The heap whose pages the chunks were cut from ([`Heap::filenode`]).
    pub filenode: u32,
    /// How long to wait for either side when nothing moves. A chunk in which `condition` holds for no row is
    /// read to its end without a sign of life, so be generous.
    pub stall_limit: Duration,
}

/// What one chunk brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOutcome {
    /// Rows stored on the target.
    pub rows: u64,
    /// Bytes of COPY data.
    pub bytes: u64,
}

/// A table's heap at one moment.
///
/// Read it in the transaction that holds the snapshot, and keep `filenode` with the table: a rewrite by ALTER TABLE
/// or TRUNCATE after the snapshot hides every row from it, and only the changed filenode tells. Pages that come
/// later are in the last, open range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heap {
    /// Size of the main fork in pages.
    pub pages: u32,
    /// The server's `block_size`.
    pub page_bytes: u32,
    /// Changes when the table is rewritten.
    pub filenode: u32,
}

/// Measures the heap of an ordinary table (a partitioned table has none: measure its leaves).
pub async fn read_heap(client: &Client, table: &TableName) -> Result<Heap, CopyError> {
    let what = "measuring the source";
    // relfilenode as the snapshot sees it; pg_relation_filenode() would tell that of this moment.
    let query = "\
        SELECT (pg_catalog.pg_relation_size(c.oid) / s.page)::int8, s.page::int8, \
               c.relfilenode \
          FROM (SELECT pg_catalog.current_setting('block_size')::int8) AS s (page), pg_catalog.pg_class c \
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text AND c.relname = $2::text";
    let row = client.query_opt(query, &[&table.schema, &table.table]).await.map_err(server(what, table))?;
    // What the snapshot shows may have been dropped by now: then it has no size.
    let pages: Option<(tokio_postgres::Row, i64)> = match row {
        Some(row) => row.try_get::<_, Option<i64>>(0).map_err(server(what, table))?.map(|pages| (row, pages)),
        None => None,
    };
    let (row, pages) = pages.ok_or_else(|| CopyError::Gone { table: table.clone() })?;
    let page_bytes: i64 = row.try_get(1).map_err(server(what, table))?;
    let filenode: Option<u32> = row.try_get(2).map_err(server(what, table))?;
    Ok(Heap {
        pages: u32::try_from(pages).unwrap_or(u32::MAX),
        page_bytes: u32::try_from(page_bytes).unwrap_or(8192),
        filenode: filenode.unwrap_or_default(),
    })
}

/// Copies the rows of `range` that the source's transaction sees.
///
/// `source` is in a REPEATABLE READ transaction under the snapshot to copy; `target` may be in a transaction or
/// not: the rows of the chunk are stored whole or not at all. Both have pinned settings (DateStyle and its like
/// equal on both sides). After an error both sessions are to be rolled back; when this future is dropped before
/// its end, both connections are to be closed. Nothing is retried here: a chunk that was stored and then
/// counted as failed would come twice.
pub async fn copy_chunk(
    source: &Client,
    target: &Client,
    spec: &CopySpec,
    range: PageRange,
) -> Result<CopyOutcome, CopyError> {
    lock_heap(source, spec).await?;
    let reading = "reading rows from the source";
    let storing = "storing rows in the target";
    let from = source.copy_out(&copy_out(spec, range)).await.map_err(server(reading, &spec.source))?;
    let into = target.copy_in::<_, Bytes>(&copy_in(spec)).await.map_err(server(storing, &spec.target))?;
    let mut from = std::pin::pin!(from);
    let mut into = std::pin::pin!(into);
    let mut buffer = BytesMut::with_capacity(MESSAGE_BYTES);
    let mut counter = RowCounter::new(spec.format);
    let mut bytes = 0u64;
    let limit = spec.stall_limit;
    let stalled = |waited_for| CopyError::Stalled { table: spec.source.clone(), waited_for, limit };
    loop {
        let next = timeout(limit, from.next()).await.map_err(|_| stalled("the source to send rows"))?;
        let end = match next {
            Some(message) => {
                let message = message.map_err(server(reading, &spec.source))?;
                counter.add(&message);
                bytes += message.len() as u64;
                buffer.extend_from_slice(&message);
                false
            }
            None => true,
        };
        if buffer.len() >= MESSAGE_BYTES || end && !buffer.is_empty() {
            let message = buffer.split().freeze();
            let sent = timeout(limit, into.send(message)).await;
            // A target that refused the rows says why when the copy is finished; a send only says "closed".
            if sent.map_err(|_| stalled("the target to take rows"))?.is_err() {
                break;
            }
            buffer.reserve(MESSAGE_BYTES);
        }
        if end {
            break;
        }
    }
    let stored = timeout(limit, into.finish()).await.map_err(|_| stalled("the target to store rows"))?;
    let stored = stored.map_err(server(storing, &spec.target))?;
    let sent = counter.rows();
    if sent != stored {
        return Err(CopyError::Count { table: spec.target.clone(), sent, stored });
    }
    Ok(CopyOutcome { rows: stored, bytes })
}

/// Locks the table as a reader does, until the end of the transaction, and sees that it is the heap whose pages
/// were counted: after a rewrite the snapshot's rows lie elsewhere, and chunks would miss some and meet others
/// twice. Once this is locked it cannot be rewritten.
async fn lock_heap(source: &Client, spec: &CopySpec) -> Result<(), CopyError> {
    let lock = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", spec.source);
    let locking = "locking the source table for reading";
    let locked = timeout(spec.stall_limit, source.batch_execute(&lock)).await.map_err(|_| {
        let waited_for = "a lock for reading the source table";
        CopyError::Stalled { table: spec.source.clone(), waited_for, limit: spec.stall_limit }
    })?;
    let gone = |error: CopyError| match error.is_undefined() {
        true => CopyError::Gone { table: spec.source.clone() },
        false => error,
    };
    locked.map_err(server(locking, &spec.source)).map_err(gone)?;
    // pg_relation_filenode looks at the catalog of this moment, not of the snapshot.
    let query = "SELECT pg_catalog.pg_relation_filenode($1::text::pg_catalog.regclass)::oid";
    let table = spec.source.to_string();
    let row = source.query_one(query, &[&table]).await.map_err(server(locking, &spec.source))?;
    let now: Option<u32> = row.try_get(0).map_err(server(locking, &spec.source))?;
    if now == Some(spec.filenode) { Ok(()) } else { Err(CopyError::Rewritten { table: spec.source.clone() }) }
}

fn list(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|c| quote_ident(c)).collect();
    quoted.join(", ")
}

fn copy_out(spec: &CopySpec, range: PageRange) -> String {
    let condition = spec.condition.as_ref().map(|c| format!("({c})"));
    let conditions: Vec<String> = [range.condition(), condition].into_iter().flatten().collect();
    let filter =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let (columns, table) = (list(&spec.columns), &spec.source);
    format!("COPY (SELECT {columns} FROM ONLY {table}{filter}) TO STDOUT (FORMAT {})", spec.format.option())
}

fn copy_in(spec: &CopySpec) -> String {
    // COPY has no way to write an empty column list; a table without columns needs none.
    let columns = list(&spec.target_columns);
    let columns = if columns.is_empty() { columns } else { format!(" ({columns})") };
    format!("COPY {}{columns} FROM STDIN (FORMAT {})", spec.target, spec.format.option())
}

/// Counts rows as they pass.
struct RowCounter {
    format: CopyFormat,
    messages: u64,
    newlines: u64,
}

impl RowCounter {
    fn new(format: CopyFormat) -> Self {
        RowCounter { format, messages: 0, newlines: 0 }
    }

    fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        if self.format == CopyFormat::Text {
            // In the text format a newline inside a value is written `\n`, so each ends a row.
            self.newlines += memchr::memchr_iter(b'\n', message).count() as u64;
        }
    }

    fn rows(&self) -> u64 {
        match self.format {
            CopyFormat::Text => self.newlines,
            // The server sends a message a row, the header with the first, and one for the trailer.
            CopyFormat::Binary => self.messages.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_only_what_was_asked_for() {
        let mut spec = CopySpec {
            source: TableName::new("App", "t"),
            columns: vec!["id".into(), "Select".into()],
            condition: Some("id > 0 OR v".into()),
            target: TableName::new("mart", "t"),
            target_columns: vec!["id".into(), "x".into()],
            format: CopyFormat::Text,
            filenode: 1,
            stall_limit: Duration::from_secs(1),
        };
        assert_eq!(
            copy_out(&spec, PageRange { from: 0, to: Some(9) }),
            "COPY (SELECT id, \"Select\" FROM ONLY \"App\".t WHERE ctid < '(9,0)'::pg_catalog.tid AND \
             (id > 0 OR v)) TO STDOUT (FORMAT text)"
        );
        assert_eq!(copy_in(&spec), "COPY mart.t (id, x) FROM STDIN (FORMAT text)");
        spec.columns.clear();
        spec.target_columns.clear();
        spec.condition = None;
        assert_eq!(
            copy_out(&spec, PageRange::ALL),
            "COPY (SELECT  FROM ONLY \"App\".t) TO STDOUT (FORMAT text)"
        );
        assert_eq!(copy_in(&spec), "COPY mart.t FROM STDIN (FORMAT text)");
    }
}
