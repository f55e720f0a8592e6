//! Publications that would publish our copies: their subscribers have no such tables and would stop.

use super::finding::{Finding, Severity};
use crate::model::quote_ident;
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};

const CHECK: &str = "publications";

const ALL_TABLES: &str = "\
SELECT p.pubname::text, NULL::text FROM pg_publication p WHERE p.puballtables ORDER BY 1";

/// Publications of a schema are there from PostgreSQL 15 on.
const OF_SCHEMAS: &str = "\
SELECT p.pubname::text, NULL::text FROM pg_publication p WHERE p.puballtables
UNION ALL
SELECT p.pubname::text, n.nspname::text
  FROM pg_publication_namespace s
  JOIN pg_publication p ON p.oid = s.pnpubid
  JOIN pg_namespace n ON n.oid = s.pnnspid
 WHERE n.nspname IN ('repcloud', 'repcloud_old')
 ORDER BY 1, 2";

/// Names each of them.
pub async fn check(session: &Session) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "the publications";
    let query = if session.server_version() < 150_000 { ALL_TABLES } else { OF_SCHEMAS };
    let mut findings = Vec::new();
    for row in rows(session, WHAT, query, &[]).await? {
        let name: String = cell(&row, 0, WHAT)?;
        let quoted = quote_ident(&name);
        let schema: Option<String> = cell(&row, 1, WHAT)?;
        let (problem, remedy) = match schema {
            None => (
                "it is FOR ALL TABLES and would publish the copy, which its subscribers do not have"
                    .to_owned(),
                "name its tables in a publication of its own instead, or drop it for the time".to_owned(),
            ),
            Some(schema) => (
                format!("it publishes every table of our schema {schema}, which its subscribers do not have"),
                format!("run: ALTER PUBLICATION {quoted} DROP TABLES IN SCHEMA {schema}"),
            ),
        };
        let object = format!("publication {quoted}");
        findings.push(Finding::new(CHECK, Severity::Refuse, object, problem).help(remedy));
    }
    Ok(findings)
}
