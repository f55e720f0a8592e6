//! libpq's password file (`~/.pgpass`, `PGPASSFILE`): which line is for a connection.
//!
//! The path comes from the caller: reading the environment is `config`'s work.

use std::path::Path;

use rustix::fs::FileType;
use secrecy::SecretString;

use crate::pg::options::ConnectOptions;

/// What looking into a password file gave. `Debug` does not show the password.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// The password of the first line that fits.
    pub password: Option<SecretString>,
    /// Why the file was ignored though it is there.
    pub warning: Option<String>,
}

/// Looks for the connection's password in the file, by libpq's rules: a file that is not there holds nothing; one
/// that others may read, or that is no plain file, is ignored with a warning. A Unix socket is `localhost` when it
/// is in one of the usual directories, else its directory.
pub fn lookup(path: &Path, options: &ConnectOptions) -> Lookup {
    let ignored = |why: &str| Lookup {
        password: None,
        warning: Some(format!("password file \"{}\" is ignored: {why}", path.display())),
    };
    let stat = match rustix::fs::stat(path) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Lookup::default(),
        Err(error) => return ignored(&error.to_string()),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return ignored("it is not a plain file");
    }
    if stat.st_mode & 0o077 != 0 {
        return ignored("others may read it; its permissions must be 0600 or less");
    }
    match std::fs::read(path) {
        Ok(content) => Lookup { password: find(&String::from_utf8_lossy(&content), options), warning: None },
        Err(error) => ignored(&error.to_string()),
    }
}

/// The password of the first line that fits: `host:port:database:user:password`, `*` for anything, `\:` and `\\`
/// for the characters themselves. Pure.
pub fn find(content: &str, options: &ConnectOptions) -> Option<SecretString> {
    let host = if is_default_socket(&options.host) { "localhost" } else { &options.host };
    let port = options.port.to_string();
    let wanted = [host, &port, &options.database, &options.user];
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, after) = split_field(rest)?;
            // Only an unescaped asterisk stands for everything.
            if field != "*" && unescape(field) != wanted {
                return None;
            }
            rest = after;
        }
        // What follows an unescaped colon is not part of the password.
        let password = unescape(split_field(rest).map_or(rest, |(field, _)| field));
        (!password.is_empty()).then(|| SecretString::from(password))
    })
}

/// libpq writes `localhost` for the socket directory it was built with: on Debian the first, elsewhere the second.
fn is_default_socket(host: &str) -> bool {
    matches!(host, "/var/run/postgresql" | "/run/postgresql" | "/tmp")
}

/// Up to the first colon that no backslash escapes, and what follows it.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // A backslash at the end means itself, as in libpq.
            '\\' => plain.push(characters.next().unwrap_or('\\')),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    fn found(content: &str, host: &str) -> Option<String> {
        let options = ConnectOptions::new(host, 5432, "user", "data:base");
        find(content, &options).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        for (content, password) in [
            ("", None),
            ("db:5432:data\\:base:user:one", Some("one")),
            ("db:5432:data\\:base:user:one\r\n", Some("one")),
            ("db:5433:*:*:one\n*:*:*:user:two\n*:*:*:*:three\n", Some("two")),
            ("# db:*:*:*:no\ndb:*:*:*:a\\:b\\\\c", Some("a:b\\c")),
            ("db:*:*:*:a:b", Some("a")),
            ("db:*:*:*:", None),
            ("db:*:*:user", None),
            ("\\*:*:*:*:x", None),
            ("d\\b:*:*:*:x\\", Some("x\\")),
            ("db:*:*:*: x ", Some(" x ")),
            ("DB:*:*:*:x", None),
            ("db:*:*:*:pässwörd", Some("pässwörd")),
        ] {
            assert_eq!(found(content, "db").as_deref(), password, "{content}");
        }
    }

    #[test]
    fn a_socket_is_localhost_or_its_directory() {
        assert_eq!(found("localhost:*:*:*:x", "/var/run/postgresql").as_deref(), Some("x"));
        assert_eq!(found("localhost:*:*:*:x", "/srv/pg"), None);
        assert_eq!(found("/srv/pg:*:*:*:x", "/srv/pg").as_deref(), Some("x"));
    }

    #[test]
    fn a_file_that_others_read_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        let options = ConnectOptions::new("db", 5432, "user", "d");
        let absent = lookup(&path, &options);
        assert!(absent.password.is_none() && absent.warning.is_none());
        std::fs::write(&path, "*:*:*:*:hunter2\n").unwrap();
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let result = lookup(&path, &options);
            assert_eq!(result.password.is_some(), usable, "{mode:o}");
            assert_eq!(result.warning.is_some(), !usable, "{mode:o}");
            assert!(!format!("{result:?}").contains("hunter2"));
        }
        assert!(lookup(dir.path(), &options).warning.is_some());
    }
}
