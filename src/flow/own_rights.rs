//! Our rights on schema `repcloud` of the target, where another role made it.

use crate::apply::checkpoint::{TABLES, VERSION, schema_version};
use crate::flow::error::FlowError;
use crate::model::quote_ident;
use crate::pg::Session;

/// Nothing in the schema is named: without USAGE that would fail.
const RIGHTS: &str = "\
SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text, current_user::text,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
       EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'version'),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_class c
              WHERE c.relnamespace = n.oid AND c.relname = ANY ($1) AND c.relkind = 'r'
                AND NOT (pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                     AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AND pg_catalog.has_table_privilege(c.oid, 'DELETE'))
              ORDER BY 1)
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname = 'repcloud' AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')";

/// What another role's schema grants ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rights {
    owner: String,
    role: String,
    usage: bool,
    /// It holds a state already.
    made: bool,
    /// Tables of ours that the role may not read and write.
    closed: Vec<String>,
    /// Of the state, where it can be read.
    version: Option<i32>,
}

impl Rights {
    /// What is said to a role that could not keep its state there; `None`: it can.
    fn refusal(&self) -> Option<String> {
        let (owner, role) = (quote_ident(&self.owner), quote_ident(&self.role));
        let mut grants = Vec::new();
        if !self.made {
            grants.push(format!("ALTER SCHEMA repcloud OWNER TO {role};"));
        } else if self.version.is_some_and(|version| version < VERSION) {
            // Tables are altered, which is their owner's right.
            grants.push(format!("GRANT {owner} TO {role};"));
        } else {
            if !self.usage {
                grants.push(format!("GRANT USAGE ON SCHEMA repcloud TO {role};"));
            }
            if !self.closed.is_empty() {
                let tables: Vec<String> =
                    self.closed.iter().map(|table| format!("repcloud.{}", quote_ident(table))).collect();
                let tables = tables.join(", ");
                grants.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role};"));
            }
        }
        (!grants.is_empty()).then(|| {
            format!(
                "target: schema repcloud, which holds the stream's position, belongs to role {owner}, and role {role} may not use it as it \
                 must; run on the target: {}",
                grants.join(" ")
            )
        })
    }
}

/// Refuses a role that cannot use the schema of another one.
pub(crate) async fn check(target: &Session) -> Result<(), FlowError> {
    let Some(mut rights) = read(target).await.map_err(|e| FlowError::Target(e.into()))? else {
        return Ok(());
    };
    if rights.made && rights.refusal().is_none() {
        rights.version = schema_version(target).await?;
    }
    match rights.refusal() {
        Some(text) => Err(FlowError::Refused(vec![text])),
        None => Ok(()),
    }
}

async fn read(target: &Session) -> Result<Option<Rights>, tokio_postgres::Error> {
    let Some(row) = target.query_opt(RIGHTS, &[&&TABLES[..]]).await? else { return Ok(None) };
    Ok(Some(Rights {
        owner: row.try_get(0)?,
        role: row.try_get(1)?,
        usage: row.try_get(2)?,
        made: row.try_get(3)?,
        closed: row.try_get(4)?,
        version: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_granted_and_nothing_else() {
        let good = Rights {
            owner: "dba".into(),
            role: "app role".into(),
            usage: true,
            made: true,
            closed: Vec::new(),
            version: Some(VERSION),
        };
        let told = |rights: Rights| rights.refusal().unwrap_or_default();
        assert_eq!(good.refusal(), None);
        let closed =
            told(Rights { usage: false, closed: vec!["skip".into(), "dropped".into()], ..good.clone() });
        assert!(closed.ends_with(
            "run on the target: GRANT USAGE ON SCHEMA repcloud TO \"app role\"; GRANT SELECT, INSERT, UPDATE, DELETE ON repcloud.skip, \
             repcloud.dropped TO \"app role\";"
        ));
        let empty = told(Rights { made: false, ..good.clone() });
        assert!(empty.ends_with("run on the target: ALTER SCHEMA repcloud OWNER TO \"app role\";"));
        let older = told(Rights { version: Some(VERSION - 1), ..good });
        assert!(older.ends_with("run on the target: GRANT dba TO \"app role\";"));
    }
}
