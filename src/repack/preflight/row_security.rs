//! Row-level security that would hide rows from the copy.

use super::finding::Finding;
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::select::TableFacts;

const CHECK: &str = "row_security";

const ACTIVE: &str = "\
SELECT row_security_active(c.oid), c.relforcerowsecurity, current_user::text FROM pg_class c WHERE c.oid = $1";

/// Refuses a table of which our role does not see every row.
pub async fn check(session: &Session, table: &TableFacts) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "the row-level security of a table";
    let found = rows(session, WHAT, ACTIVE, &[&table.oid]).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    if !cell::<bool>(row, 0, WHAT)? {
        return Ok(Vec::new());
    }
    let role = crate::model::quote_ident(&cell::<String>(row, 2, WHAT)?);
    let problem = if cell(row, 1, WHAT)? {
        format!("its row-level security is forced, and hides rows from role {role}")
    } else {
        format!("its row-level security hides rows from role {role}, which is not its owner")
    };
    let remedy = format!("run: ALTER ROLE {role} BYPASSRLS");
    Ok(vec![Finding::refuse(CHECK, &table.name, problem).help(remedy)])
}
