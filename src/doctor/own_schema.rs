//! Schema `repcloud`, where our state is: in every target, and in a source that is read by triggers or repacked. Judged purely.

use super::finding::{Check, Remedy};
use super::server::ServerFacts;
use crate::apply::checkpoint::VERSION;
use crate::model::quote_ident;
use crate::pg::{PgError, Session};

const NAME: &str = "schema repcloud";

/// The schema as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnSchema {
    /// USAGE on it.
    pub(super) usable: bool,
    /// CREATE in it.
    pub(super) creatable: bool,
    /// There is nothing in it.
    pub(super) empty: bool,
    /// Its version; `None`: it says none, or we may not read it.
    pub(super) version: Option<i32>,
    /// Owners of its tables whose rights ours lacks, where ours has not been given what it takes.
    pub(super) strangers: Vec<String>,
}

/// $1: the version is ours, so that rights to read and write are enough; an older one is altered, which only the owner may do.
const SCHEMA: &str = "\
SELECT has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE'),
       NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid),
       coalesce((SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                   FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'version'), false)
  FROM pg_catalog.pg_namespace n WHERE n.nspname = 'repcloud'";

const STRANGERS: &str = "\
SELECT DISTINCT pg_get_userbyid(c.relowner)::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'repcloud' AND c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE')
   AND NOT ($1 AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
 ORDER BY 1";

/// Reads it; `None`: it is not there.
pub(super) async fn read(session: &Session) -> Result<Option<OwnSchema>, PgError> {
    let Some(row) = session.query_opt(SCHEMA, &[]).await? else { return Ok(None) };
    let mut found = OwnSchema {
        usable: row.try_get(0)?,
        creatable: row.try_get(1)?,
        empty: row.try_get(2)?,
        ..OwnSchema::default()
    };
    if row.try_get(3)? {
        let sql = "SELECT max(version)::int4 FROM repcloud.version";
        found.version = session.query_one(sql, &[]).await?.try_get(0)?;
    }
    let is_ours = found.version == Some(VERSION);
    for row in session.query(STRANGERS, &[&is_ours]).await? {
        found.strangers.push(row.try_get(0)?);
    }
    Ok(Some(found))
}

/// Nobody may make schemas in this database but who has CREATE on it.
pub(super) fn create_on_database(server: &ServerFacts) -> Check {
    let (role, database) = (quote_ident(&server.role), quote_ident(&server.database));
    Check::fail("database", format!("role {role} may not make schemas in database {database}"))
        .help(Remedy::run([format!("GRANT CREATE ON DATABASE {database} TO {role}")]))
}

/// What is missing to keep our state here.
pub(super) fn judge(server: &ServerFacts, schema: Option<&OwnSchema>) -> Vec<Check> {
    let role = quote_ident(&server.role);
    let mut checks = Vec::new();
    // It is made anew where it is empty, by a statement that wants this right all the same.
    if schema.is_none_or(|s| s.empty) && !server.may_create {
        checks.push(create_on_database(server));
    }
    let Some(schema) = schema else {
        if server.may_create {
            checks.push(Check::ok(NAME, "will be made"));
        }
        return checks;
    };
    if !(schema.usable && schema.creatable) {
        checks.push(
            Check::fail(NAME, format!("there, and role {role} may not make tables in it"))
                .help(Remedy::run([format!("GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}")])),
        );
    }
    if !schema.strangers.is_empty() {
        let owners: Vec<String> = schema.strangers.iter().map(|o| quote_ident(o)).collect();
        let text = format!("its tables belong to {}, and role {role} may not use them", owners.join(", "));
        let remedy = match schema.strangers.iter().any(|owner| server.is_superuser(owner)) {
            true => Remedy::note(format!(
                "give them to {role} (ALTER TABLE … OWNER TO {role}): a superuser's rights are not to be given"
            )),
            false => Remedy::run(owners.iter().map(|owner| format!("GRANT {owner} TO {role}"))),
        };
        checks.push(Check::fail("tables of schema repcloud", text).help(remedy));
    } else if schema.version.is_none() && schema.usable && !schema.empty {
        checks.push(
            Check::fail(NAME, "there, and it is not ours: it has no version")
                .help(Remedy::note("rename it or drop it")),
        );
    }
    if schema.version.is_some_and(|v| v > VERSION) {
        checks.push(
            Check::fail(NAME, "a later version of this program has made it")
                .help(Remedy::note("use that version")),
        );
    }
    if checks.is_empty() {
        checks.push(Check::ok(NAME, "there, and ours to use"));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::server::tests::facts;
    use super::*;

    #[test]
    fn each_thing_that_is_missing_is_said_with_its_grant() {
        let good = OwnSchema {
            usable: true,
            creatable: true,
            empty: false,
            version: Some(VERSION),
            strangers: Vec::new(),
        };
        let poor = ServerFacts { may_create: false, ..facts() };
        let told = |server: &ServerFacts, schema: Option<OwnSchema>| -> Vec<String> {
            let checks = judge(server, schema.as_ref()).into_iter().filter(|c| c.level != Level::Ok);
            checks.map(|c| c.remedy.unwrap().to_string()).collect()
        };
        let create = "run: GRANT CREATE ON DATABASE shop TO app;";
        assert_eq!(told(&facts(), None), Vec::<String>::new());
        assert_eq!(told(&poor, None), [create]);
        assert_eq!(told(&poor, Some(good.clone())), Vec::<String>::new());
        assert_eq!(told(&poor, Some(OwnSchema { empty: true, version: None, ..good.clone() })), [create]);
        assert_eq!(
            told(&facts(), Some(OwnSchema { creatable: false, ..good.clone() })),
            ["run: GRANT USAGE, CREATE ON SCHEMA repcloud TO app;"]
        );
        assert_eq!(
            told(&facts(), Some(OwnSchema { strangers: vec!["Them".into()], ..good.clone() })),
            ["run: GRANT \"Them\" TO app;"]
        );
        assert_eq!(
            told(&facts(), Some(OwnSchema { version: None, ..good.clone() })),
            ["rename it or drop it"]
        );
        assert_eq!(
            told(&facts(), Some(OwnSchema { version: Some(VERSION + 1), ..good })),
            ["use that version"]
        );
    }
}
