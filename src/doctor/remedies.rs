//! What mends a server, by platform: which statement, or which parameter in which console. Pure. What is known of each platform, and from
//! where: `proto-notes/privileges.md`.

use super::finding::Remedy;
use super::platform::{Platform, alter_system_list};
use crate::model::{quote_ident, quote_literal};

/// Something that only the server's administrator can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// `wal_level`.
    LogicalDecoding,
    /// This role may use replication slots.
    Replication(String),
    /// This role sees every row, whatever row-level security says.
    EveryRow(String),
    /// This role may set `session_replication_role`.
    ReplicaRole(String),
    /// A parameter.
    Setting {
        name: &'static str,
        /// As people write it.
        value: String,
        /// In the parameter's own unit, as consoles want it.
        plain: String,
        restart: bool,
    },
    /// A parameter that is a list of names.
    List { name: &'static str, names: Vec<String> },
}

impl Need {
    /// A parameter whose value has no unit.
    pub(super) fn number(name: &'static str, value: i64, restart: bool) -> Self {
        Need::Setting { name, value: value.to_string(), plain: value.to_string(), restart }
    }

    /// A parameter with a unit; it counts from the next reload on.
    pub(super) fn measure(name: &'static str, value: &str, plain: i64) -> Self {
        Need::Setting { name, value: value.to_owned(), plain: plain.to_string(), restart: false }
    }
}

/// What mends it there.
pub(super) fn remedy(platform: Platform, need: &Need) -> Remedy {
    match need {
        Need::LogicalDecoding => logical_decoding(platform),
        Need::Replication(role) => replication(platform, &quote_ident(role)),
        Need::EveryRow(role) => every_row(platform, &quote_ident(role)),
        Need::ReplicaRole(role) => replica_role(platform, &quote_ident(role)),
        Need::Setting { name, value, plain, restart } => {
            let statement = format!("ALTER SYSTEM SET {name} = {}", quote_literal(value));
            parameter(platform, statement, name, plain, *restart)
        }
        Need::List { name, names } => {
            parameter(platform, alter_system_list(name, names), name, &names.join(","), false)
        }
    }
}

const BY_TRIGGERS: &str = "Heroku has no logical replication: set capture = \"trigger\"";

fn logical_decoding(platform: Platform) -> Remedy {
    match platform {
        Platform::Plain => {
            Remedy::run(["ALTER SYSTEM SET wal_level = 'logical'"]).and("and restart the server")
        }
        Platform::Rds | Platform::Aurora => {
            Remedy::note(console(platform, "rds.logical_replication", "1", true))
        }
        Platform::CloudSql => Remedy::note(console(platform, "cloudsql.logical_decoding", "on", true)),
        Platform::Azure => Remedy::note(console(platform, "wal_level", "logical", true)),
        Platform::Supabase => Remedy::note(
            "Supabase sets wal_level = logical for every project; where it is not, ask its support",
        ),
        Platform::Neon => Remedy::note(
            "in Neon's console: project, Settings, Logical Replication, Enable (it restarts the computes, and cannot be undone)",
        ),
        Platform::Heroku => Remedy::note(BY_TRIGGERS),
    }
}

fn replication(platform: Platform, role: &str) -> Remedy {
    let alter = Remedy::run([format!("ALTER ROLE {role} REPLICATION")]);
    match platform {
        Platform::Plain => alter,
        Platform::Rds | Platform::Aurora => {
            Remedy::run([format!("GRANT rds_replication TO {role}")]).and("as a member of rds_superuser")
        }
        Platform::CloudSql => alter.and("as a member of cloudsqlsuperuser"),
        Platform::Azure => alter.and("as the server's administrator (a member of azure_pg_admin)"),
        Platform::Supabase => alter.and("as role postgres"),
        Platform::Neon => {
            alter.and("as a role made in the console, a member of neon_superuser: such a role has it already")
        }
        Platform::Heroku => Remedy::note(BY_TRIGGERS),
    }
}

fn every_row(platform: Platform, role: &str) -> Remedy {
    match platform {
        Platform::Plain => Remedy::run([format!("ALTER ROLE {role} BYPASSRLS")]),
        Platform::Supabase => Remedy::run([format!("ALTER ROLE {role} BYPASSRLS")]).and("as role postgres"),
        Platform::Neon => Remedy::note("use a role made in Neon's console: it has BYPASSRLS"),
        _ => Remedy::note(format!(
            "make {role} a member of the table's owner (GRANT owner TO {role}), whom its row-level security does not bind unless it is \
             forced; or, where the administrator may, ALTER ROLE {role} BYPASSRLS"
        )),
    }
}

fn replica_role(platform: Platform, role: &str) -> Remedy {
    let grant = format!("GRANT SET ON PARAMETER session_replication_role TO {role}");
    match platform {
        Platform::Plain => Remedy::run([grant]),
        Platform::Rds | Platform::Aurora => Remedy::note(format!(
            "members of rds_superuser may set it; as one of them try {grant}, or connect as one"
        )),
        Platform::Supabase => Remedy::note("connect as role postgres, which may set it"),
        other => Remedy::note(format!(
            "as the administrator try {grant}; where {} refuses that, nobody can have it",
            other.as_str()
        )),
    }
}

fn parameter(platform: Platform, statement: String, name: &str, plain: &str, restart: bool) -> Remedy {
    match platform {
        Platform::Plain if restart => Remedy::run([statement]).and("and restart the server"),
        Platform::Plain => Remedy::run([statement, "SELECT pg_catalog.pg_reload_conf()".to_owned()]),
        other => Remedy::note(console(other, name, plain, restart)),
    }
}

/// Where the platform lets somebody set a parameter, and with which command.
fn console(platform: Platform, name: &str, value: &str, restart: bool) -> String {
    let method = if restart { "pending-reboot" } else { "immediate" };
    let then = |what: &str| if restart { format!(", then {what}") } else { String::new() };
    match platform {
        Platform::Rds => format!(
            "set {name} = {value} in the instance's DB parameter group (aws rds modify-db-parameter-group --db-parameter-group-name GROUP \
             --parameters ParameterName={name},ParameterValue={value},ApplyMethod={method}){}",
            then("reboot the instance")
        ),
        Platform::Aurora => format!(
            "set {name} = {value} in the DB cluster parameter group (aws rds modify-db-cluster-parameter-group \
             --db-cluster-parameter-group-name GROUP --parameters ParameterName={name},ParameterValue={value},ApplyMethod={method}){}",
            then("reboot the writer")
        ),
        Platform::CloudSql => format!(
            "set {name} = {value} in the instance's database flags (gcloud sql instances patch INSTANCE --database-flags={name}={value}, with \
             the flags that are set already, which it replaces){}",
            if restart { "; the instance restarts" } else { "" }
        ),
        Platform::Azure => format!(
            "set {name} = {value} in the portal under Server parameters (az postgres flexible-server parameter set --resource-group GROUP \
             --server-name SERVER --name {name} --value {value}){}",
            then("restart the server")
        ),
        Platform::Supabase => format!(
            "set {name} = {value} (supabase --experimental --project-ref REF postgres-config update --config {name}={value}){}",
            if restart { "; the database restarts" } else { "" }
        ),
        Platform::Neon | Platform::Heroku => {
            format!("{} sets {name} itself; ask its support for {value}", platform.as_str())
        }
        // Its parameters are set by statements.
        Platform::Plain => format!("set {name} = {value}{}", then("restart the server")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::statements::shape;
    use super::*;

    fn needs() -> Vec<Need> {
        vec![
            Need::LogicalDecoding,
            Need::Replication("App".into()),
            Need::EveryRow("App".into()),
            Need::ReplicaRole("App".into()),
            Need::number("max_wal_senders", 15, true),
            Need::measure("max_slot_wal_keep_size", "50GB", 51_200),
            Need::List { name: "output_plugin_libraries", names: vec!["pgoutput".into(), "wal2json".into()] },
        ]
    }

    #[test]
    fn every_platform_has_an_answer_to_every_need() {
        for platform in Platform::ALL {
            for need in needs() {
                let remedy = remedy(platform, &need);
                assert!(!remedy.to_string().is_empty(), "{platform:?} {need:?}");
                assert!(remedy.statements.iter().all(|s| shape(s).is_some()), "{remedy:?}");
                let system = remedy.statements.iter().any(|s| s.starts_with("ALTER SYSTEM"));
                assert!(platform == Plain || !system, "only a plain server has ALTER SYSTEM: {remedy:?}");
            }
        }
    }

    use Platform::{Aurora, Azure, CloudSql, Heroku, Neon, Plain, Rds, Supabase};

    /// Each answer has these words.
    fn are_told(cases: &[(Platform, Need, &[&str])]) {
        for (platform, need, words) in cases {
            let told = remedy(*platform, need).to_string();
            for word in *words {
                assert!(told.contains(word), "{platform:?} {need:?}: {word}: {told}");
            }
        }
    }

    #[test]
    fn each_platform_is_told_its_own_switch_for_logical_decoding() {
        are_told(&[
            (Plain, Need::LogicalDecoding, &["run: ALTER SYSTEM SET wal_level = 'logical'; and restart"]),
            (
                Rds,
                Need::LogicalDecoding,
                &["rds.logical_replication = 1", "DB parameter group", "reboot the instance"],
            ),
            (
                Aurora,
                Need::LogicalDecoding,
                &["rds.logical_replication = 1", "DB cluster parameter group", "the writer"],
            ),
            (
                CloudSql,
                Need::LogicalDecoding,
                &["cloudsql.logical_decoding = on", "database flags", "restarts"],
            ),
            (
                Azure,
                Need::LogicalDecoding,
                &["wal_level = logical", "Server parameters", "restart the server"],
            ),
            (Supabase, Need::LogicalDecoding, &["ask its support"]),
            (Neon, Need::LogicalDecoding, &["console", "Logical Replication"]),
            (Heroku, Need::LogicalDecoding, &["capture = \"trigger\""]),
        ]);
    }

    #[test]
    fn each_platform_has_its_own_way_of_giving_a_role_more() {
        let role = || Need::Replication("App".into());
        are_told(&[
            (Plain, role(), &["run: ALTER ROLE \"App\" REPLICATION;"]),
            (Rds, role(), &["run: GRANT rds_replication TO \"App\";", "rds_superuser"]),
            (Aurora, role(), &["run: GRANT rds_replication TO \"App\";"]),
            (CloudSql, role(), &["run: ALTER ROLE \"App\" REPLICATION;", "cloudsqlsuperuser"]),
            (Azure, role(), &["run: ALTER ROLE \"App\" REPLICATION;", "azure_pg_admin"]),
            (Supabase, role(), &["run: ALTER ROLE \"App\" REPLICATION;", "postgres"]),
            (Neon, role(), &["run: ALTER ROLE \"App\" REPLICATION;", "neon_superuser"]),
            (Heroku, role(), &["capture = \"trigger\""]),
            (Plain, Need::EveryRow("App".into()), &["run: ALTER ROLE \"App\" BYPASSRLS;"]),
            (Rds, Need::EveryRow("App".into()), &["GRANT owner TO \"App\""]),
            (Neon, Need::EveryRow("App".into()), &["console"]),
            (
                Plain,
                Need::ReplicaRole("App".into()),
                &["run: GRANT SET ON PARAMETER session_replication_role TO \"App\";"],
            ),
            (Supabase, Need::ReplicaRole("App".into()), &["role postgres"]),
            (Azure, Need::ReplicaRole("App".into()), &["as the administrator"]),
        ]);
    }

    #[test]
    fn each_platform_sets_parameters_in_its_own_place() {
        let keep = || Need::measure("max_slot_wal_keep_size", "50GB", 51_200);
        let names = ["pgoutput", "wal2json"].map(str::to_owned).to_vec();
        are_told(&[
            (
                Plain,
                keep(),
                &[
                    "run: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_catalog.pg_reload_conf();",
                ],
            ),
            // Their consoles take numbers in the parameter's own unit only.
            (Rds, keep(), &["ParameterValue=51200,ApplyMethod=immediate"]),
            (Aurora, keep(), &["modify-db-cluster-parameter-group", "51200"]),
            (CloudSql, keep(), &["--database-flags=max_slot_wal_keep_size=51200", "replaces"]),
            (Azure, keep(), &["--name max_slot_wal_keep_size --value 51200"]),
            (Supabase, keep(), &["--config max_slot_wal_keep_size=51200"]),
            (Neon, keep(), &["Neon sets max_slot_wal_keep_size itself"]),
            (Heroku, keep(), &["Heroku sets max_slot_wal_keep_size itself"]),
            (Plain, Need::number("max_wal_senders", 15, true), &["max_wal_senders = '15'; and restart"]),
            (Rds, Need::number("max_wal_senders", 15, true), &["ApplyMethod=pending-reboot", "then reboot"]),
            (
                Rds,
                Need::List { name: "output_plugin_libraries", names },
                &["output_plugin_libraries = pgoutput,wal2json"],
            ),
        ]);
    }
}
