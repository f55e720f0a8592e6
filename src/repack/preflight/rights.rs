//! What our role must be allowed to do with the table and in its schema.

use super::finding::Finding;
use super::server::ServerFacts;
use crate::model::quote_ident;
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::select::TableFacts;

const CHECK: &str = "rights";

/// From PostgreSQL 16 on being a member and being allowed to SET ROLE are two things; giving the copy its owner needs the
/// latter.
const RIGHTS: &str = "\
SELECT pg_has_role(c.relowner, 'USAGE'), pg_has_role(c.relowner, $2), has_schema_privilege(c.relnamespace, 'CREATE'),
       has_schema_privilege(c.relnamespace, 'USAGE')
  FROM pg_class c
 WHERE c.oid = $1";

/// What is missing, each with its GRANT.
pub async fn check(
    session: &Session,
    table: &TableFacts,
    server: &ServerFacts,
) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "our rights on a table";
    let set = if server.version >= 160_000 { "SET" } else { "MEMBER" };
    let found = rows(session, WHAT, RIGHTS, &[&table.oid, &set]).await?;
    let Some(row) = found.first() else { return Ok(Vec::new()) };
    let may = |index| cell::<bool>(row, index, WHAT);
    let (role, owner) = (quote_ident(&server.role), quote_ident(&table.owner));
    let schema = quote_ident(&table.name.schema);
    let mut findings = Vec::new();
    let mut missing = |problem: String, remedy: String| {
        findings.push(Finding::refuse(CHECK, &table.name, problem).help(format!("run: {remedy}")));
    };
    if !may(0)? {
        let problem = format!("only its owner can rebuild it, and role {role} is not a member of {owner}");
        missing(problem, format!("GRANT {owner} TO {role}"));
    } else if !may(1)? {
        let problem = format!("its copy must belong to {owner}, and role {role} may not SET ROLE to it");
        missing(problem, format!("GRANT {owner} TO {role} WITH SET TRUE"));
    }
    if !may(2)? {
        let problem = format!("role {role} may not make tables in its schema, to which the copy must go");
        missing(problem, format!("GRANT CREATE ON SCHEMA {schema} TO {role}"));
    }
    if !may(3)? {
        let problem = format!("role {role} may not use its schema");
        missing(problem, format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
    }
    Ok(findings)
}
