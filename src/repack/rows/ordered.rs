//! The copy in an order of its own (`--order-by`). The server sorts the places of the rows (6 bytes each, not the rows), and one session
//! writes them in that order, in short transactions. Several sessions would lay their chunks between each other.

use std::sync::atomic::Ordering;

use super::{CHUNK_BYTES, COPY_SETTINGS, Shared};
use crate::flow::slot::import;
use crate::pg::{self, ConnectOptions, Session};
use crate::repack::error::{RepackError, doing};

/// Rows are fetched by their place; no other plan may be chosen for it.
const BY_PLACE: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
/// The old row in the statement that copies it. No column of a person's is called so.
const ROW: &str = "\"repcloud row\"";

impl Shared<'_> {
    /// Copies all rows in the order of the spec.
    pub(super) async fn in_order(&self, connect: &ConnectOptions, snapshot: &str) -> Result<(), RepackError> {
        let sorted = self.sorted(connect, snapshot).await?;
        let writer = pg::connect(connect).await?;
        writer.batch_execute(&format!("{COPY_SETTINGS}; {BY_PLACE}")).await?;
        let fetch = format!("FETCH {} FROM sorted", self.rows_a_chunk());
        loop {
            self.rest(&writer).await?;
            let places: Vec<String> = sorted
                .query(&fetch, &[])
                .await?
                .iter()
                .map(|row| row.try_get(0))
                .collect::<Result<_, _>>()?;
            if places.is_empty() {
                break;
            }
            let rows = self.listed(&writer, snapshot, &places).await?;
            self.shown.rows.fetch_add(rows, Ordering::Relaxed);
        }
        writer.close().await?;
        sorted.close().await?;
        Ok(())
    }

    /// A session with a cursor over the places of all rows. It outlives its transaction, so that no lock stays on the table.
    async fn sorted(&self, connect: &ConnectOptions, snapshot: &str) -> Result<Session, RepackError> {
        let session = pg::connect(connect).await?;
        session.batch_execute(COPY_SETTINGS).await?;
        import(&session, snapshot, "READ ONLY").await?;
        self.same_heap(&session).await?;
        let order: Vec<String> = self.spec.order_by.iter().map(|column| column.sql(ROW)).collect();
        let sql = format!(
            "DECLARE sorted NO SCROLL CURSOR WITH HOLD FOR SELECT ctid::text FROM ONLY {} AS {ROW} ORDER BY {}; COMMIT",
            self.spec.table,
            order.join(", ")
        );
        session.batch_execute(&sql).await.map_err(doing(format!("sorting rows of {}", self.spec.table)))?;
        Ok(session)
    }

    /// So many that a transaction stays as small as one of a copy by pages.
    fn rows_a_chunk(&self) -> u64 {
        let bytes = f64::from(self.heap.pages) * f64::from(self.heap.page_bytes);
        let per_row = bytes / self.spec.estimated_rows.max(1.0);
        ((CHUNK_BYTES as f64 / per_row.max(1.0)) as u64).clamp(100, 50_000)
    }

    async fn listed(
        &self,
        session: &Session,
        snapshot: &str,
        places: &Vec<String>,
    ) -> Result<i64, RepackError> {
        import(session, snapshot, "READ WRITE").await?;
        self.same_heap(session).await?;
        let (columns, values) = (self.spec.columns.join(", "), self.spec.expressions.join(", "));
        let columns = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
        let sql = format!(
            "INSERT INTO {}{columns} OVERRIDING SYSTEM VALUE SELECT {values} \
             FROM unnest($1::text[]) WITH ORDINALITY AS \"repcloud list\" (\"repcloud place\", \"repcloud number\") \
             JOIN ONLY {} AS {ROW} ON {ROW}.ctid = \"repcloud place\"::tid ORDER BY \"repcloud number\"",
            self.spec.shadow, self.spec.table
        );
        let copying = || doing(format!("copying rows of {}", self.spec.table));
        let rows = session.execute(&sql, &[places]).await.map_err(copying())?;
        if usize::try_from(rows) != Ok(places.len()) {
            return Err(RepackError::Internal(format!(
                "{rows} rows of {} were found at {} places",
                self.spec.table,
                places.len()
            )));
        }
        session.batch_execute("COMMIT").await.map_err(copying())?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }
}
