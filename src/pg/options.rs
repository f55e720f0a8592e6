//! Where and how to connect. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// How much TLS a connection wants; libpq's `sslmode` and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Without TLS first; with it when the server refuses that.
    Allow,
    /// TLS first; without it when the server has none or refuses it.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is looked at only when root certificates are given.
    Require,
    /// TLS, and the certificate's chain must lead to a root.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be for this host.
    VerifyFull,
}

/// The text is not one of libpq's six modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an sslmode; use disable, allow, prefer, require, verify-ca or verify-full")]
pub struct ParseSslModeError(String);

impl FromStr for SslMode {
    type Err = ParseSslModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [
            SslMode::Disable,
            SslMode::Allow,
            SslMode::Prefer,
            SslMode::Require,
            SslMode::VerifyCa,
            SslMode::VerifyFull,
        ]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| ParseSslModeError(text.to_owned()))
    }
}

impl SslMode {
    /// The mode as it is written in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }

    /// The server's certificate must be verified, whatever files there are.
    pub(crate) fn must_verify(self) -> bool {
        matches!(self, SslMode::VerifyCa | SslMode::VerifyFull)
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything needed to reach one database.
///
/// `Debug` is safe: the password prints as `[REDACTED]`.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// A host name, an address, or (beginning with `/`) the directory of the server's Unix socket.
    pub host: String,
    /// The port; for a Unix socket the number in the socket's name.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The password, where the server asks for one.
    pub password: Option<SecretString>,
    /// How much TLS; a Unix socket never has any.
    pub sslmode: SslMode,
    /// The root certificates (PEM), or `system` for those of the operating system (needs `verify-full`, as
    /// with libpq). `None`: `<home>/.postgresql/root.crt` when it exists, else the system's.
    pub sslrootcert: Option<PathBuf>,
    /// Our certificate and its chain (PEM). `None`: `<home>/.postgresql/postgresql.crt` when it exists.
    pub sslcert: Option<PathBuf>,
    /// The key of our certificate (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted). `None`: with `sslcert` left
    /// out, `<home>/.postgresql/postgresql.key`.
    pub sslkey: Option<PathBuf>,
    /// Refuse a login that is not bound to the TLS channel (libpq's `channel_binding=require`). Without it the
    /// binding is used whenever server and certificate allow it.
    pub require_channel_binding: bool,
    /// Where `.postgresql/` is looked for; `None`: nowhere.
    pub home: Option<PathBuf>,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// The limit of one connection attempt, from resolving the name to the end of authentication.
    pub connect_timeout: Duration,
    /// TCP keepalive: probe a connection that was silent for so long. `None`: no probes.
    pub keepalives: Option<Duration>,
    /// `TCP_USER_TIMEOUT`: give up a connection whose sent data stays unacknowledged for so long.
    pub tcp_user_timeout: Option<Duration>,
}

impl ConnectOptions {
    /// Options with the defaults: no password, `prefer`, no certificate files, ten seconds to connect,
    /// keepalive probes after 30 s and a connection given up after 60 s without an acknowledgement.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        database: impl Into<String>,
    ) -> Self {
        ConnectOptions {
            host: host.into(),
            port,
            user: user.into(),
            database: database.into(),
            password: None,
            sslmode: SslMode::default(),
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            require_channel_binding: false,
            home: None,
            application_name: "repcloud".to_owned(),
            connect_timeout: Duration::from_secs(10),
            keepalives: Some(Duration::from_secs(30)),
            tcp_user_timeout: Some(Duration::from_secs(60)),
        }
    }

    /// The connection goes over a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The connection's name in messages: `"db.example" port 5432 as "repcloud"`.
    pub fn target(&self) -> String {
        format!("\"{}\" port {} as \"{}\"", self.host, self.port, self.user)
    }
}

/// The settings every session of ours is pinned to, so that values pass between servers as text unchanged and
/// no limit set for people's sessions ends ours. Start-up options outrank `ALTER ROLE … SET` and survive
/// `RESET ALL`, and cost no round trip.
///
/// Only settings that every server from PostgreSQL 14 on knows: an unknown one would refuse the connection.
pub(crate) const PINNED: &[(&str, &str)] = &[
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("client_encoding", "UTF8"),
    ("search_path", "pg_catalog"),
    ("xmloption", "content"),
    // Else `NULL` in the text of an array is a word of four letters.
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    // Definitions are compared as the server writes them.
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    // The catalog queries are estimated high enough to be compiled, which takes a second each and gains nothing.
    ("jit", "off"),
];

/// `PINNED` as the start-up parameter `options` (no value of it needs escaping).
pub(crate) fn startup_options() -> String {
    PINNED.iter().map(|(name, value)| format!("-c {name}={value}")).collect::<Vec<_>>().join(" ")
}

/// `server_version` ("15.4 (Debian …)", "18beta1") as `server_version_num` writes it (150004, 180000); 0 when
/// it cannot be read.
pub(crate) fn version_number(text: &str) -> u32 {
    let digits = |s: &str| {
        let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
        s[..end].parse::<u32>().ok()
    };
    let Some(major) = digits(text) else { return 0 };
    let minor = text.split_once('.').and_then(|(_, rest)| digits(rest)).unwrap_or(0);
    major.saturating_mul(10_000).saturating_add(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back() {
        for mode in ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] {
            assert_eq!(mode.parse::<SslMode>().unwrap().to_string(), mode);
        }
        assert!("verify_full".parse::<SslMode>().is_err());
        assert!("Require".parse::<SslMode>().is_err());
    }

    #[test]
    fn debug_hides_the_password() {
        let mut options = ConnectOptions::new("h", 1, "u", "d");
        options.password = Some(SecretString::from("hunter2"));
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn versions_are_numbers() {
        for (text, number) in [
            ("15.20 (Debian 15.20-0+deb12u1)", 150_020),
            ("14.23", 140_023),
            ("18beta1", 180_000),
            ("19devel", 190_000),
            ("", 0),
            ("x", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    #[test]
    fn pinned_values_need_no_escaping() {
        for (name, value) in PINNED {
            assert!(!name.contains([' ', '\\']) && !value.contains([' ', '\\']), "{name}");
        }
    }
}
