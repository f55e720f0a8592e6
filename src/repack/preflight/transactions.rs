//! Transactions that have been open for long: the slot waits for those that write, the exchange for those that hold a
//! lock on the table. Prepared ones end only when somebody ends them.

use std::time::Duration;

use super::finding::{Finding, Severity};
use crate::model::{quote_ident, quote_literal};
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};
use crate::repack::select::TableFacts;

const CHECK: &str = "transactions";

/// Of other roles' sessions the server shows neither the age nor the query, unless ours has pg_read_all_stats.
/// Autovacuum gives way to us, but for the one against wraparound.
const OPEN: &str = "\
SELECT a.pid, a.usename::text, extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.state,
       a.backend_xid IS NOT NULL, held.modes, a.query
  FROM pg_stat_activity a
  LEFT JOIN LATERAL (
       SELECT string_agg(DISTINCT l.mode, ', ') AS modes FROM pg_locks l
        WHERE l.pid = a.pid AND l.relation = $1 AND l.granted
          AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) held ON true
 WHERE a.pid <> pg_backend_pid() AND (a.backend_xid IS NOT NULL OR held.modes IS NOT NULL)
   AND (a.backend_type <> 'autovacuum worker' OR a.query LIKE '%to prevent wraparound%')
   AND extract(epoch FROM clock_timestamp() - a.xact_start) >= $2::float8
 ORDER BY a.xact_start, a.pid";

const PREPARED: &str = "\
SELECT gid, database::text, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8
  FROM pg_prepared_xacts ORDER BY prepared, gid";

const WITH_XID: &str = "\
SELECT pid, usename::text, extract(epoch FROM clock_timestamp() - xact_start)::float8
  FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start, pid";

/// Names the transactions that have been open for at least `old`.
pub async fn check(session: &Session, table: &TableFacts, old: Duration) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "the open transactions";
    let mut findings = Vec::new();
    for row in rows(session, WHAT, OPEN, &[&table.oid, &old.as_secs_f64()]).await? {
        let pid: i32 = cell(&row, 0, WHAT)?;
        let user: Option<String> = cell(&row, 1, WHAT)?;
        let seconds: f64 = cell(&row, 2, WHAT)?;
        let state: Option<String> = cell(&row, 3, WHAT)?;
        let writes: bool = cell(&row, 4, WHAT)?;
        let modes: Option<String> = cell(&row, 5, WHAT)?;
        let query: Option<String> = cell(&row, 6, WHAT)?;
        let mut why = Vec::new();
        if writes {
            why.push("a slot is made only after its end".to_owned());
        }
        if let Some(modes) = modes {
            why.push(format!("it holds {modes} on {}, which the exchange waits for", table.name));
        }
        let problem = format!(
            "a transaction of {} has been open for {seconds:.0} s ({}): {}; its query: {}",
            user.as_deref()
                .map_or_else(|| "the server".to_owned(), |user| format!("role {}", quote_ident(user))),
            state.as_deref().unwrap_or("state unknown"),
            why.join(", and "),
            shape(query.as_deref().unwrap_or_default()),
        );
        let remedy = format!("end it: SELECT pg_terminate_backend({pid})");
        findings.push(Finding::new(CHECK, Severity::Warn, format!("pid {pid}"), problem).help(remedy));
    }
    findings.extend(prepared(session, old).await?);
    Ok(findings)
}

/// Prepared transactions of the whole server: a slot is made only after the end of each.
async fn prepared(session: &Session, old: Duration) -> Result<Vec<Finding>, AskError> {
    const WHAT: &str = "the prepared transactions";
    let mut findings = Vec::new();
    for row in rows(session, WHAT, PREPARED, &[]).await? {
        let (gid, database): (String, String) = (cell(&row, 0, WHAT)?, cell(&row, 1, WHAT)?);
        let (owner, seconds): (String, f64) = (cell(&row, 2, WHAT)?, cell(&row, 3, WHAT)?);
        // A young one may belong to a transaction manager at work.
        let severity = if seconds >= old.as_secs_f64() { Severity::Refuse } else { Severity::Warn };
        let gid = quote_literal(&gid);
        let problem = format!(
            "role {} prepared it {seconds:.0} s ago in database {}, and a slot is made only after its end",
            quote_ident(&owner),
            quote_ident(&database)
        );
        let remedy = format!("run there: COMMIT PREPARED {gid} or ROLLBACK PREPARED {gid}");
        let object = format!("prepared transaction {gid}");
        findings.push(Finding::new(CHECK, severity, object, problem).help(remedy));
    }
    Ok(findings)
}

/// Every transaction a new slot would wait for, in a few words each.
pub(super) async fn with_xid(session: &Session) -> Result<Vec<String>, AskError> {
    const WHAT: &str = "the transactions a slot waits for";
    let mut named = Vec::new();
    for row in rows(session, WHAT, WITH_XID, &[]).await? {
        let pid: i32 = cell(&row, 0, WHAT)?;
        let user: Option<String> = cell(&row, 1, WHAT)?;
        let age = match cell::<Option<f64>>(&row, 2, WHAT)? {
            Some(seconds) => format!("open for {seconds:.0} s"),
            None => "age not visible to our role".to_owned(),
        };
        let user = user.map(|user| format!(" of role {}", quote_ident(&user))).unwrap_or_default();
        named.push(format!("pid {pid}{user} ({age})"));
    }
    for finding in prepared(session, Duration::ZERO).await? {
        named.push(finding.object);
    }
    Ok(named)
}

/// A query without the values in it: literals become `?`. At most 120 characters.
pub(crate) fn shape(query: &str) -> String {
    const MOST: usize = 120;
    let mut text = String::new();
    let mut rest = query.trim();
    while let Some(next) = rest.chars().next() {
        if text.chars().count() >= MOST {
            text.push('…');
            break;
        }
        let in_word = text.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '"' || c == '$');
        let taken = if next == '\'' {
            text.push('?');
            quoted(rest, '\'')
        } else if next == '"' {
            let end = quoted(rest, '"');
            text.push_str(rest.get(..end).unwrap_or_default());
            end
        } else if next == '$' && !in_word && dollar_tag(rest).is_some() {
            text.push('?');
            let tag = dollar_tag(rest).unwrap_or_default();
            let body = rest.get(tag.len()..).unwrap_or_default();
            body.find(tag).map_or(rest.len(), |at| tag.len() + at + tag.len())
        } else if next.is_ascii_digit() && !in_word {
            text.push('?');
            rest.find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).unwrap_or(rest.len())
        } else if next.is_whitespace() {
            text.push(' ');
            rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
        } else {
            text.push(next);
            next.len_utf8()
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    text
}

/// The length of what begins with a quote: to its end, a doubled quote and (in a string) a backslash passed over. A query
/// that was cut off ends in one.
fn quoted(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && quote == '\'' {
            letters.next();
        } else if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// `$tag$` at the beginning of a dollar-quoted string; a parameter (`$1`) is none.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.get(1..)?.find(|c: char| !(c.is_alphanumeric() || c == '_'))? + 1;
    let tag = text.get(1..end)?;
    let closes = text.get(end..)?.starts_with('$');
    (closes && !tag.starts_with(|c: char| c.is_ascii_digit())).then(|| text.get(..=end)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_without_its_values() {
        for (query, shown) in [
            ("SELECT  *\n FROM t WHERE id = 17", "SELECT * FROM t WHERE id = ?"),
            (
                "update t1 set v = 'it''s secret', w = E'a\\'b' where x2 > 1.5e3",
                "update t1 set v = ?, w = E? where x2 > ?",
            ),
            ("select $$secret$$, $q$ a $$ b $q$, $1", "select ?, ?, $1"),
            ("select \"a'b\" from \"x\"\"y\"", "select \"a'b\" from \"x\"\"y\""),
            ("insert into t values ('cut off", "insert into t values (?"),
            ("", ""),
        ] {
            assert_eq!(shape(query), shown, "{query}");
        }
        assert_eq!(shape(&"é".repeat(500)).chars().count(), 121);
    }
}
