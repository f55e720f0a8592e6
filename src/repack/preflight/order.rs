//! Whether rows can be sorted as `--order-by` asks: the columns exist and their types have an order.

use tokio_postgres::error::SqlState;

use super::finding::Finding;
use crate::pg::Session;
use crate::repack::ask::AskError;
use crate::repack::rebuild::SortColumn;
use crate::repack::select::TableFacts;

const CHECK: &str = "order";

/// Lets the server read the sort, without running it.
pub async fn check(
    session: &Session,
    table: &TableFacts,
    order_by: &[SortColumn],
) -> Result<Vec<Finding>, AskError> {
    let mut findings = Vec::new();
    for column in order_by {
        let sql = format!("SELECT FROM ONLY {} AS sorted ORDER BY {}", table.name, column.sql("sorted"));
        let Err(error) = session.prepare(&sql).await else { continue };
        let about_it = [SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
        match (error.code().is_some_and(|code| about_it.contains(code)), error.as_db_error()) {
            (true, Some(told)) => {
                let problem = format!("its rows cannot be sorted as --order-by asks: {}", told.message());
                findings.push(Finding::refuse(CHECK, &table.name, problem));
            }
            _ => return Err(AskError::of("how rows can be sorted")(error)),
        }
    }
    Ok(findings)
}
