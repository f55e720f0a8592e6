//! The `grants` setting: `select, insert to analysts, "Mart Readers"`.

use super::DdlError;
use crate::model::{TableName, quote_ident};

/// Table privileges of PostgreSQL 14 to 18 (`maintain` from 17 on).
const PRIVILEGES: &[&str] =
    &["all", "select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain"];

/// `GRANT … ON TABLE … TO …` for one entry of the setting.
pub(super) fn statement(table: &TableName, grant: &str) -> Result<String, DdlError> {
    let fail = |problem| DdlError::Grant { grant: grant.to_owned(), problem };
    let lower = grant.to_ascii_lowercase();
    let at = lower.find(" to ").ok_or_else(|| fail("\"to\" is missing"))?;
    let mut privileges = Vec::new();
    for privilege in lower[..at].split(',').map(str::trim) {
        if !PRIVILEGES.contains(&privilege) {
            return Err(fail("it names a privilege that tables do not have"));
        }
        privileges.push(privilege.to_ascii_uppercase());
    }
    let mut roles = Vec::new();
    let mut rest = grant[at + 4..].trim();
    loop {
        let (role, after) = role(rest).ok_or_else(|| fail("a role's name cannot be read"))?;
        roles.push(role);
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if after.trim().is_empty() => break,
            None => return Err(fail("something follows a role's name")),
        }
    }
    Ok(format!("GRANT {} ON TABLE {table} TO {}", privileges.join(", "), roles.join(", ")))
}

/// One role at the start of `text` as SQL, and what follows it. Unquoted names fold to lower case.
fn role(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let end = rest.find('"')?;
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(more) => {
                    name.push('"');
                    rest = more;
                }
                None => {
                    return (!name.is_empty()).then(|| (format!("\"{}\"", name.replace('"', "\"\"")), rest));
                }
            }
        }
    }
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    let name = text[..end].to_ascii_lowercase();
    let plain = name.chars().all(|c| c == '_' || c == '$' || c.is_alphanumeric());
    if name.is_empty() || !plain {
        return None;
    }
    // PUBLIC is a word of the language, not a role.
    let sql = if name == "public" { "PUBLIC".to_owned() } else { quote_ident(&name) };
    Some((sql, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_as_sql_reads_them() {
        let table = TableName::new("mart", "Orders");
        for (grant, sql) in [
            ("select to analysts", "GRANT SELECT ON TABLE mart.\"Orders\" TO analysts"),
            (
                "SELECT, insert TO Analysts, \"Mart \"\"R\", public",
                "GRANT SELECT, INSERT ON TABLE mart.\"Orders\" TO analysts, \"Mart \"\"R\", PUBLIC",
            ),
        ] {
            assert_eq!(statement(&table, grant).as_deref(), Ok(sql));
        }
        for grant in [
            "select",
            "select to ",
            "drop to x",
            "select to x; drop table y",
            "select to \"x",
            "select to a b",
            "select to a, ",
            "select to \"\"",
        ] {
            assert!(statement(&table, grant).is_err(), "{grant}");
        }
    }
}
