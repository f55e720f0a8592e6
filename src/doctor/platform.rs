//! Where a server runs, and how things are set there. Pure. What is known of each platform, and from where:
//! `proto-notes/privileges.md`.

use super::finding::Remedy;
use crate::model::quote_ident;

/// Who runs the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Somebody with a configuration file.
    Plain,
    /// Amazon RDS.
    Rds,
    /// Amazon Aurora.
    Aurora,
    /// Google Cloud SQL.
    CloudSql,
    /// Azure Database, flexible server.
    Azure,
    /// Supabase.
    Supabase,
    /// Neon.
    Neon,
    /// Heroku.
    Heroku,
}

/// What tells platforms apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traits {
    /// Which of [`ROLES`] exist.
    pub(super) roles: Vec<String>,
    /// A function `aurora_version` exists.
    pub(super) aurora: bool,
    /// Schema `heroku_ext` exists.
    pub(super) heroku: bool,
}

/// Roles that only one platform makes.
pub(super) const ROLES: &[&str] = &[
    "rds_superuser",
    "rds_replication",
    "cloudsqlsuperuser",
    "azure_pg_admin",
    "supabase_admin",
    "neon_superuser",
];

/// The platform that made these.
pub(super) fn detect(traits: &Traits) -> Platform {
    let has = |role: &str| traits.roles.iter().any(|r| r == role);
    if traits.heroku {
        return Platform::Heroku;
    }
    if traits.aurora {
        return Platform::Aurora;
    }
    [
        ("rds_superuser", Platform::Rds),
        ("cloudsqlsuperuser", Platform::CloudSql),
        ("azure_pg_admin", Platform::Azure),
        ("supabase_admin", Platform::Supabase),
        ("neon_superuser", Platform::Neon),
    ]
    .into_iter()
    .find(|(role, _)| has(role))
    .map_or(Platform::Plain, |(_, platform)| platform)
}

/// `ALTER SYSTEM` for a setting that is a list. One literal a name: a single literal with commas would be one name with commas in it.
pub fn alter_system_list(setting: &str, names: &[String]) -> String {
    let literals: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("ALTER SYSTEM SET {setting} = {}", literals.join(", "))
}

/// The names in a list setting as `SHOW` prints it.
pub(super) fn list_names(shown: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut name, mut quoted) = (String::new(), false);
    for character in shown.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            ' ' if !quoted => {}
            other => name.push(other),
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// A text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Platform {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Platform::Plain => "plain PostgreSQL",
            Platform::Rds => "Amazon RDS",
            Platform::Aurora => "Amazon Aurora",
            Platform::CloudSql => "Google Cloud SQL",
            Platform::Azure => "Azure Database for PostgreSQL",
            Platform::Supabase => "Supabase",
            Platform::Neon => "Neon",
            Platform::Heroku => "Heroku",
        }
    }

    /// Turns logical decoding on.
    pub(super) fn logical_decoding(self) -> Remedy {
        match self {
            Platform::Plain => {
                Remedy::run(["ALTER SYSTEM SET wal_level = 'logical'"]).and("and restart the server")
            }
            Platform::Rds => Remedy::note(
                "set rds.logical_replication = 1 in the instance's DB parameter group and reboot the instance",
            ),
            Platform::Aurora => Remedy::note(
                "set rds.logical_replication = 1 in the DB cluster parameter group and reboot the writer",
            ),
            Platform::CloudSql => {
                Remedy::note("set the database flag cloudsql.logical_decoding = on; the instance restarts")
            }
            Platform::Azure => Remedy::note(
                "set the server parameter wal_level = LOGICAL in the portal and restart the server",
            ),
            Platform::Supabase => Remedy::note(
                "wal_level is logical on Supabase unless it was overridden: remove the override (supabase postgres-config)",
            ),
            Platform::Neon => Remedy::note("enable logical replication in the project's settings"),
            Platform::Heroku => Remedy::note("Heroku has no logical replication: set capture = \"trigger\""),
        }
    }

    /// Lets `role` use slots.
    pub(super) fn replication(self, role: &str) -> Remedy {
        let role = quote_ident(role);
        match self {
            Platform::Rds | Platform::Aurora => Remedy::run([format!("GRANT rds_replication TO {role}")]),
            Platform::CloudSql => Remedy::run([format!("ALTER ROLE {role} REPLICATION")])
                .and("as a role that is a member of cloudsqlsuperuser"),
            Platform::Azure => {
                Remedy::run([format!("ALTER ROLE {role} REPLICATION")]).and("as the server's administrator")
            }
            Platform::Supabase => {
                Remedy::run([format!("ALTER ROLE {role} REPLICATION")]).and("as role postgres")
            }
            Platform::Neon => Remedy::run([format!("ALTER ROLE {role} REPLICATION")])
                .and("or use a role made in the console, which has it"),
            Platform::Heroku => Remedy::note("Heroku has no logical replication: set capture = \"trigger\""),
            Platform::Plain => Remedy::run([format!("ALTER ROLE {role} REPLICATION")]),
        }
    }

    /// Sets a server's parameter to a single value.
    pub(super) fn setting(self, name: &str, value: &str, restart: bool) -> Remedy {
        self.parameter(format!("ALTER SYSTEM SET {name} = {}", literal(value)), name, value, restart)
    }

    /// Sets a server's parameter to a list of names.
    pub(super) fn list_setting(self, name: &str, names: &[String]) -> Remedy {
        self.parameter(alter_system_list(name, names), name, &names.join(", "), false)
    }

    fn parameter(self, statement: String, name: &str, value: &str, restart: bool) -> Remedy {
        let then = if restart { "; it needs a restart" } else { "" };
        let by_console = |place: &str| Remedy::note(format!("set {name} = {value} in {place}{then}"));
        match self {
            Platform::Plain if restart => Remedy::run([statement]).and("and restart the server"),
            Platform::Plain => Remedy::run([statement, "SELECT pg_catalog.pg_reload_conf()".to_owned()]),
            Platform::Rds => by_console("the instance's DB parameter group"),
            Platform::Aurora => by_console("the DB cluster parameter group"),
            Platform::CloudSql => by_console("the instance's database flags"),
            Platform::Azure => by_console("the server parameters of the portal"),
            Platform::Supabase => by_console("the database's settings (supabase postgres-config update)"),
            Platform::Neon | Platform::Heroku => {
                Remedy::note(format!("{} sets {name} itself; ask its support for {value}", self.as_str()))
            }
        }
    }

    /// The console's part where the server's own setting is not the one to change.
    pub(super) fn host_warning(host: &str, port: u16) -> Option<&'static str> {
        if host.contains(".pooler.supabase.com") || (host.contains(".supabase.") && port == 6543) {
            return Some(
                "Supabase's pooler: use the direct connection (db.<project>.supabase.co, port 5432)",
            );
        }
        if host.contains("-pooler.") && host.ends_with(".neon.tech") {
            return Some("Neon's pooler: take \"-pooler\" out of the host name");
        }
        if host.contains(".proxy-") && host.ends_with(".rds.amazonaws.com") {
            return Some("RDS Proxy, which takes no replication connections: use the instance's endpoint");
        }
        (port == 6432).then_some("port 6432 is PgBouncer's: use the server's own port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_platform_is_known_by_what_it_makes() {
        let with = |role: &str| Traits { roles: vec![role.to_owned()], ..Traits::default() };
        assert_eq!(detect(&Traits::default()), Platform::Plain);
        assert_eq!(detect(&with("rds_superuser")), Platform::Rds);
        assert_eq!(detect(&Traits { aurora: true, ..with("rds_superuser") }), Platform::Aurora);
        assert_eq!(detect(&with("cloudsqlsuperuser")), Platform::CloudSql);
        assert_eq!(detect(&with("azure_pg_admin")), Platform::Azure);
        assert_eq!(detect(&with("supabase_admin")), Platform::Supabase);
        assert_eq!(detect(&with("neon_superuser")), Platform::Neon);
        assert_eq!(detect(&Traits { heroku: true, ..with("rds_superuser") }), Platform::Heroku);
    }

    #[test]
    fn a_list_has_a_literal_a_name_and_keeps_what_is_there() {
        assert_eq!(list_names("pgoutput, test_decoding"), ["pgoutput", "test_decoding"]);
        assert_eq!(list_names("\"pgoutput, wal2json\""), ["pgoutput, wal2json"]);
        assert_eq!(list_names(""), Vec::<String>::new());
        let names = ["pgoutput", "wal2json", "it's"].map(str::to_owned);
        assert_eq!(
            alter_system_list("output_plugin_libraries", &names),
            "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'wal2json', 'it''s'"
        );
    }

    #[test]
    fn only_a_plain_server_is_told_to_alter_its_system() {
        use Platform::{Aurora, Azure, CloudSql, Heroku, Neon, Plain, Rds, Supabase};
        for platform in [Rds, Aurora, CloudSql, Azure, Supabase, Neon, Heroku] {
            assert_eq!(platform.setting("wal_sender_timeout", "60s", false).statements, Vec::<String>::new());
            assert_eq!(platform.logical_decoding().statements, Vec::<String>::new());
            assert!(platform.setting("wal_sender_timeout", "60s", false).note.is_some());
        }
        assert_eq!(Plain.setting("a", "b", false).statements.len(), 2);
        assert_eq!(Rds.replication("App").statements, ["GRANT rds_replication TO \"App\""]);
    }

    #[test]
    fn poolers_are_known_by_their_names() {
        let warned = |host, port| Platform::host_warning(host, port).is_some();
        assert!(warned("aws-0-eu.pooler.supabase.com", 5432) && warned("ep-x-pooler.eu.aws.neon.tech", 5432));
        assert!(warned("p.proxy-abc.eu-west-1.rds.amazonaws.com", 5432) && warned("db", 6432));
        assert!(
            !warned("db.x.supabase.co", 5432)
                && !warned("ep-x.eu.aws.neon.tech", 5432)
                && !warned("/run", 5432)
        );
    }
}
