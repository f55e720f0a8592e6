//! The server as a whole: can it decode at all, and may our role keep its state and publish here?

use std::time::Duration;

use super::finding::{Finding, Severity};
use crate::capture::auto::Way;
use crate::model::{Oid, quote_ident};
use crate::pg::Session;
use crate::repack::ask::{AskError, cell, rows};

const CHECK: &str = "server";

const FACTS: &str = "\
SELECT current_setting('server_version_num')::int4, current_user::text, current_database()::text, d.oid,
       pg_is_in_recovery(), current_setting('wal_level'),
       has_database_privilege(d.oid, 'CREATE'), n.oid IS NOT NULL,
       coalesce(has_schema_privilege(n.oid, 'CREATE') AND has_schema_privilege(n.oid, 'USAGE'), false),
       (SELECT s.setting::int8 FROM pg_settings s WHERE s.name = 'deadlock_timeout'),
       (SELECT s.setting::int8 FROM pg_settings s WHERE s.name = 'max_slot_wal_keep_size'),
       coalesce((SELECT s.setting::int8 * CASE s.unit WHEN 'min' THEN 60 WHEN 'ms' THEN 0 ELSE 1 END
                   FROM pg_settings s WHERE s.name = 'idle_replication_slot_timeout'), 0),
       (SELECT m.rolname::text FROM pg_roles m WHERE m.rolname = 'rds_replication'),
       current_setting('default_transaction_read_only')::bool
  FROM pg_database d
  LEFT JOIN pg_namespace n ON n.nspname = 'repcloud'
 WHERE d.datname = current_database()";

/// What pre-flight needs to know of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: i32,
    /// The role we work as.
    pub role: String,
    /// The database.
    pub database: String,
    /// Its oid.
    pub database_oid: Oid,
    /// It is a standby.
    pub in_recovery: bool,
    /// `default_transaction_read_only`, for our role in this database.
    pub read_only: bool,
    /// `wal_level`.
    pub wal_level: String,
    /// Our role may make schemas and publications in the database.
    pub may_create: bool,
    /// Schema `repcloud` is there, and our role may use it and make objects in it.
    pub schema: Option<bool>,
    /// `deadlock_timeout`.
    pub deadlock_timeout: Duration,
    /// `max_slot_wal_keep_size` in bytes; `None`: no limit.
    pub slot_wal_limit: Option<u64>,
    /// `idle_replication_slot_timeout` (PostgreSQL 18); `None`: no limit.
    pub idle_slot_limit: Option<Duration>,
    /// The role whose members may use slots on a managed service, where there is one.
    pub replication_role: Option<String>,
}

impl ServerFacts {
    /// A slot can be made here, if our role may.
    pub fn decodes(&self) -> bool {
        !self.in_recovery && self.wal_level == "logical"
    }
}

/// Reads them.
pub async fn read(session: &Session) -> Result<ServerFacts, AskError> {
    const WHAT: &str = "the server's settings";
    let found = rows(session, WHAT, FACTS, &[]).await?;
    let row = found.first().ok_or_else(|| AskError {
        what: WHAT,
        error: crate::pg::PgError::Protocol {
            during: format!("reading {WHAT}"),
            what: "the database we are in is not in pg_database".to_owned(),
        },
    })?;
    let number = |index| cell::<i64>(row, index, WHAT);
    let exists: bool = cell(row, 7, WHAT)?;
    Ok(ServerFacts {
        version: cell(row, 0, WHAT)?,
        role: cell(row, 1, WHAT)?,
        database: cell(row, 2, WHAT)?,
        database_oid: cell(row, 3, WHAT)?,
        in_recovery: cell(row, 4, WHAT)?,
        read_only: cell(row, 13, WHAT)?,
        wal_level: cell(row, 5, WHAT)?,
        may_create: cell(row, 6, WHAT)?,
        schema: exists.then_some(cell(row, 8, WHAT)?),
        deadlock_timeout: Duration::from_millis(u64::try_from(number(9)?).unwrap_or(0)),
        // In megabytes; -1: no limit.
        slot_wal_limit: u64::try_from(number(10)?).ok().map(|megabytes| megabytes << 20),
        idle_slot_limit: u64::try_from(number(11)?).ok().filter(|s| *s > 0).map(Duration::from_secs),
        replication_role: cell(row, 12, WHAT)?,
    })
}

/// What stands against any repack here. Pure.
pub fn judge(server: &ServerFacts, ways: &[Way]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (role, database) = (quote_ident(&server.role), quote_ident(&server.database));
    if server.in_recovery {
        let problem = "it is a standby, which cannot be written to";
        let remedy = "connect to the primary";
        findings.push(Finding::of_server(CHECK, Severity::Refuse, problem).help(remedy));
    }
    if server.read_only {
        // Not overruled: it may be there to keep a full disk from filling up.
        let problem = "transactions are read-only by default (default_transaction_read_only), which managed services also do when \
                       the disk is nearly full";
        let remedy = format!(
            "see that there is room, then run: ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = off"
        );
        findings.push(Finding::of_server(CHECK, Severity::Refuse, problem).help(remedy));
    }
    let slots = ways.iter().any(|way| matches!(way, Way::Slot(_)));
    if server.wal_level != "logical" && slots {
        let problem = format!("wal_level is {}, a slot needs logical", server.wal_level);
        let remedy = "run: ALTER SYSTEM SET wal_level = 'logical'; and restart the server";
        let severity = if ways.contains(&Way::Triggers) { Severity::Warn } else { Severity::Refuse };
        findings.push(Finding::of_server(CHECK, severity, problem).help(remedy));
    }
    if !server.may_create {
        let problem = format!("it may not make schemas and publications in database {database}");
        let remedy = format!("run: GRANT CREATE ON DATABASE {database} TO {role}");
        findings.push(Finding::of_role(CHECK, &server.role, problem).help(remedy));
    }
    if server.schema == Some(false) {
        let problem = "schema repcloud is there, and it may not make tables in it";
        let remedy = format!("run: GRANT USAGE, CREATE ON SCHEMA repcloud TO {role}");
        findings.push(Finding::of_role(CHECK, &server.role, problem).help(remedy));
    }
    findings
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::capture::Plugin;

    pub(in crate::repack::preflight) fn server() -> ServerFacts {
        ServerFacts {
            version: 150_004,
            role: "app".into(),
            database: "shop".into(),
            database_oid: 5,
            in_recovery: false,
            read_only: false,
            wal_level: "logical".into(),
            may_create: true,
            schema: None,
            deadlock_timeout: Duration::from_secs(1),
            slot_wal_limit: None,
            idle_slot_limit: None,
            replication_role: None,
        }
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let ways = [Way::Slot(Plugin::Pgoutput)];
        assert_eq!(judge(&server(), &ways), []);
        let bare = ServerFacts {
            in_recovery: true,
            read_only: true,
            wal_level: "replica".into(),
            may_create: false,
            schema: Some(false),
            ..server()
        };
        let lines: Vec<String> = judge(&bare, &ways).iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(judge(&bare, &[Way::Triggers]).len(), 4, "triggers need no wal_level");
        assert!(
            lines[1].contains("read-only") && lines[1].contains("ALTER ROLE app IN DATABASE shop"),
            "{lines:?}"
        );
        assert!(lines[2].contains("wal_level is replica") && lines[2].contains("restart"), "{lines:?}");
        assert_eq!(
            lines[3],
            "role app: it may not make schemas and publications in database shop; run: GRANT CREATE ON DATABASE shop TO app"
        );
    }
}
