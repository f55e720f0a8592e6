//! Why a connection does not come about, and what helps. Pure.

use super::finding::{Check, Remedy};
use crate::model::quote_ident;
use crate::pg::{ConnectOptions, PgError};

/// The check of a login that failed.
pub(super) fn unreachable(error: &PgError, connect: &ConnectOptions) -> Check {
    let text = error.to_string();
    let remedy = remedy(error.sqlstate(), &text, connect);
    Check::fail("reachable", text).help(remedy)
}

fn remedy(sqlstate: Option<&str>, text: &str, connect: &ConnectOptions) -> Remedy {
    let (role, database) = (quote_ident(&connect.user), quote_ident(&connect.database));
    match sqlstate {
        _ if text.contains("startup parameter") => {
            Remedy::note("a pooler stands between: give host and port of the server itself")
        }
        Some("42501") => Remedy::run([format!("GRANT CONNECT ON DATABASE {database} TO {role}")]),
        // Roles that do not exist and what pg_hba.conf refuses have the same code.
        Some("28000") if text.contains("not permitted to log in") => {
            Remedy::run([format!("ALTER ROLE {role} LOGIN")])
        }
        Some("28000") if text.contains("pg_hba.conf") => Remedy::note(
            "add a line for this role, database and address to the server's pg_hba.conf (a managed service: to its network rules), or set sslmode = \"require\"",
        ),
        Some("28P01") => Remedy::note("check user and password of the connection"),
        Some("3D000") => Remedy::note("check the connection's database: the server has none of this name"),
        Some("53300") => Remedy::note(
            "end sessions that nobody uses, or raise max_connections or the role's CONNECTION LIMIT",
        ),
        Some("57P03") => Remedy::note("the server starts, stops or recovers: try again"),
        _ => Remedy::note(
            "check host, port, user, password and sslmode of the connection, the network, and the server's pg_hba.conf",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_what_helps_it() {
        let connect = ConnectOptions::new("db", 5432, "App", "Shop");
        for (sqlstate, text, expected) in [
            (
                Some("42501"),
                "permission denied for database",
                "run: GRANT CONNECT ON DATABASE \"Shop\" TO \"App\";",
            ),
            (Some("28000"), "role \"App\" is not permitted to log in", "run: ALTER ROLE \"App\" LOGIN;"),
            (Some("28000"), "no pg_hba.conf entry", "pg_hba.conf"),
            (Some("28P01"), "password authentication failed", "user and password"),
            (Some("3D000"), "database does not exist", "none of this name"),
            (Some("53300"), "too many connections", "max_connections"),
            (Some("57P03"), "the database system is starting up", "try again"),
            (Some("08P01"), "unsupported startup parameter: options", "pooler"),
            (None, "connection refused", "host, port"),
        ] {
            let told = remedy(sqlstate, text, &connect).to_string();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
