//! `[connections.NAME]`.

use secrecy::SecretString;
use toml::de::DeTable;

use super::environment::Login;
use super::not_built::Part;
use super::reader::Reader;
use super::section::Section;
use super::settings::{Capture, Connection, Plugin, SslMode};
use super::{repack, values};

const SSL_MODES: &[(&str, SslMode)] = &[
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

impl SslMode {
    /// The mode as it is written.
    pub fn as_str(self) -> &'static str {
        SSL_MODES.iter().find(|(_, mode)| *mode == self).map_or("prefer", |(word, _)| word)
    }
}

impl Capture {
    /// The choice as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Capture::Auto => "auto",
            Capture::Slot => "slot",
            Capture::Trigger => "trigger",
        }
    }
}

/// Reads one connection. `None` when something is wrong with it, which has then been reported.
pub(super) fn read<'d>(
    reader: &Reader<'_>,
    name: &str,
    line: usize,
    table: &'d DeTable<'d>,
) -> Option<Connection> {
    let section = Section::new(reader, Part::Connection, format!("connections.{name}"), line, table);
    if !values::is_connection_name(name) {
        reader.error(
            line,
            section.name.clone(),
            "is not a name a connection can have",
            "use 1 to 24 of a-z, 0-9 and single _, beginning with a letter",
        );
    }
    let host = required(&section, "host", "a host name or a socket directory");
    let user = required(&section, "user", "a role");
    let database = required(&section, "database", "a database");
    let port = section.integer("port", 1..=65535).map_or(5432, |port| u16::try_from(port).unwrap_or(5432));
    let password = section.text("password").map(|text| text.text);
    // An empty one is none, as with libpq; one that could not be followed has been reported.
    let left_out = password.as_ref().map_or(!section.has("password"), String::is_empty);
    let max_retained_wal = section.parsed("max_retained_wal", "a size like \"20GB\"", values::size);
    let connection = Connection {
        name: name.to_owned(),
        port,
        password: password.map(SecretString::from),
        sslmode: section.choice("sslmode", SSL_MODES).unwrap_or_default(),
        sslrootcert: root_certificates(&section),
        sslcert: section.path_value("sslcert"),
        sslkey: section.path_value("sslkey"),
        capture: section
            .choice(
                "capture",
                &[("auto", Capture::Auto), ("slot", Capture::Slot), ("trigger", Capture::Trigger)],
            )
            .unwrap_or_default(),
        plugin: section.choice("plugin", &[("pgoutput", Plugin::Pgoutput), ("wal2json", Plugin::Wal2json)]),
        allow_lossy_numbers: section.switch("allow_lossy_numbers").unwrap_or_default(),
        slot_name: section.parsed("slot_name", "a slot name (1 to 63 of a-z, 0-9 and _)", values::slot_name),
        publication: section.parsed("publication", "an SQL name", values::identifier),
        max_retained_wal,
        repack: repack::read(&section),
        line,
        host: host.clone().unwrap_or_default(),
        user: user.clone().unwrap_or_default(),
        database: database.clone().unwrap_or_default(),
    };
    contradictions(&section, &connection);
    section.finish();
    // Everything has been looked at; only now may a missing part end it.
    if host.is_none() || user.is_none() || database.is_none() {
        return None;
    }
    let password = if left_out { look_up_password(reader, &connection) } else { connection.password.clone() };
    Some(Connection { password, ..connection })
}

fn required(section: &Section<'_, '_>, key: &'static str, what: &str) -> Option<String> {
    let value = section.name_text(key);
    if !section.has(key) {
        section.error(key, "is missing", format!("give {what}"));
    }
    value
}

/// `system` is not a file but the operating system's certificates, as with libpq.
fn root_certificates(section: &Section<'_, '_>) -> Option<std::path::PathBuf> {
    match section.literal("sslrootcert") {
        Some("system") => section.name_text("sslrootcert").map(Into::into),
        _ => section.path_value("sslrootcert"),
    }
}

fn contradictions(section: &Section<'_, '_>, connection: &Connection) {
    match (section.has("sslcert"), section.has("sslkey")) {
        (true, false) => section.error("sslcert", "a client certificate needs its key", "give sslkey"),
        (false, true) => section.error("sslkey", "a key needs its client certificate", "give sslcert"),
        _ => {}
    }
    if connection.sslmode == SslMode::Disable && section.has("sslmode") {
        for key in ["sslrootcert", "sslcert", "sslkey"] {
            if section.has(key) {
                section.error(
                    key,
                    "has no use with sslmode \"disable\"",
                    "remove it, or choose another sslmode",
                );
            }
        }
    }
    let demands_tls =
        matches!(connection.sslmode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull);
    if connection.is_unix_socket() && demands_tls {
        section.warn("sslmode", "a Unix socket never has TLS, so this has no effect", "");
    }
    // The slot remembers positions from before we came; a publication of ours would be younger than they are,
    // and the server fails on a publication that did not exist at the position it decodes.
    if connection.slot_name.is_some() && !section.has("publication") {
        section.error(
            "slot_name",
            "a slot made by the DBA needs the publication made for it",
            "give publication, or remove slot_name",
        );
    }
}

/// A password left out: `PGPASSWORD`, then the password file.
fn look_up_password(reader: &Reader<'_>, connection: &Connection) -> Option<SecretString> {
    if let Some(password) = reader.environment.var("PGPASSWORD").filter(|p| !p.is_empty()) {
        return Some(SecretString::from(password));
    }
    let login = Login {
        host: &connection.host,
        port: connection.port,
        database: &connection.database,
        user: &connection.user,
    };
    match reader.environment.passfile_password(login) {
        Ok(password) => password,
        Err(problem) => {
            // libpq warns and goes on; the server may ask for no password at all.
            let key = format!("connections.{}.password", connection.name);
            reader.warn(connection.line, key, problem, "");
            None
        }
    }
}
