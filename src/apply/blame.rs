//! Which column a rejected row was rejected for, where the server does not say.
//!
//! "Invalid input value" and "value too long" come without the column's name, and their text holds the value, so it is not told
//! on. Each value is tried by itself: first by its type's input function, then with the column's length and precision.

use tokio_postgres::Client;

use crate::apply::row::Row;
use crate::model::{Value, quote_ident, quote_literal};
use crate::sql::shape::ShapeTable;

/// `column "c" (type)` for the first column that does not take its value; `None` when each takes its own. Runs in the open
/// transaction and leaves it usable. Never tells a value.
pub(crate) async fn blame(client: &Client, table: &ShapeTable, row: &Row<'_>) -> Option<String> {
    for (index, column) in (0_u16..).zip(&table.columns) {
        let Value::Text(bytes) = row.value(index) else { continue };
        let text = std::str::from_utf8(bytes).ok()?;
        let cast = format!("SELECT $1::text::{}", column.input_type);
        // An array is not read from a JSON string.
        let fill = (!column.input_type.ends_with("[]")).then(|| {
            format!(
                "SELECT json_populate_record(NULL::{}, json_build_object({}, $1::text))",
                table.sql_name,
                quote_literal(&column.name)
            )
        });
        for sql in std::iter::once(cast).chain(fill) {
            client.batch_execute("SAVEPOINT repcloud_blame").await.ok()?;
            let taken = client.execute(&sql, &[&text]).await.is_ok();
            client.batch_execute("ROLLBACK TO SAVEPOINT repcloud_blame").await.ok()?;
            if !taken {
                return Some(format!("column {} ({})", quote_ident(&column.name), column.input_type));
            }
        }
    }
    None
}
