//! Where a server runs. Pure. What is known of each platform, and from where: `proto-notes/privileges.md`.

use crate::model::quote_literal;

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
    /// Schema `heroku_ext` or `_heroku` exists.
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
    if traits.aurora && has("rds_superuser") {
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
    let literals: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
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

impl Platform {
    /// All of them.
    pub const ALL: [Platform; 8] = [
        Platform::Plain,
        Platform::Rds,
        Platform::Aurora,
        Platform::CloudSql,
        Platform::Azure,
        Platform::Supabase,
        Platform::Neon,
        Platform::Heroku,
    ];

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

    /// What a host name or port says of a pooler.
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
        for (roles, aurora, heroku, expected) in [
            (&[][..], false, false, Platform::Plain),
            (&["rds_superuser", "rds_replication"], false, false, Platform::Rds),
            (&["rds_superuser", "rds_replication"], true, false, Platform::Aurora),
            (&["cloudsqlsuperuser"], false, false, Platform::CloudSql),
            (&["azure_pg_admin"], false, false, Platform::Azure),
            (&["supabase_admin"], false, false, Platform::Supabase),
            (&["neon_superuser"], false, false, Platform::Neon),
            // Heroku runs on Amazon's machines, and its customers see nothing of that.
            (&["rds_superuser"], false, true, Platform::Heroku),
            (&[], false, true, Platform::Heroku),
            // A function of this name is nobody's proof.
            (&[], true, false, Platform::Plain),
            // A role that somebody made for his own purposes.
            (&["rds_replication"], false, false, Platform::Plain),
        ] {
            let roles = roles.iter().map(|r| (*r).to_owned()).collect();
            assert_eq!(detect(&Traits { roles, aurora, heroku }), expected);
        }
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
