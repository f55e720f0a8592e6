//! Values with a form of their own: sizes, names, grants.

use std::time::Duration;

use super::settings::Grant;
use crate::model::name::parse_identifier;

/// Bytes: a number, with `B`, `kB`, `MB`, `GB` or `TB` (1024 each, as PostgreSQL counts). Above zero.
pub(crate) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|&bytes| bytes > 0)
}

/// A time above zero: a number and `ms`, `s`, `min`, `h` or `d`, as PostgreSQL writes them; a number alone counts
/// `plain` units. At most a year.
pub(super) fn duration(text: &str, plain: Duration) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" => plain,
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    let time = unit.checked_mul(number.parse().ok()?)?;
    (!time.is_zero() && time <= Duration::from_secs(366 * 86_400)).then_some(time)
}

/// A size of memory with its unit, as SET takes it: `1048576kB`. From 1 MB on, as `maintenance_work_mem` demands.
pub(super) fn memory(text: &str) -> Option<String> {
    // Without a unit PostgreSQL would count kilobytes and we bytes: nobody should have to know.
    let kilobytes = size(text).filter(|_| text.ends_with('B'))? / 1024;
    (1024..=i32::MAX as u64).contains(&kilobytes).then(|| format!("{kilobytes}kB"))
}

/// The name of a connection: `[a-z][a-z0-9_]{0,23}` without `__`, so that `repcloud_<source>__<target>` is a
/// slot name (at most 63 characters) that reads back in one way only (the target begins with a letter).
pub(super) fn is_connection_name(name: &str) -> bool {
    (1..=24).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !name.contains("__")
}

/// A slot's name, as the server demands it.
pub(super) fn slot_name(name: &str) -> Option<String> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    fits.then(|| name.to_owned())
}

/// An SQL identifier: folded to lower case unless in double quotes.
pub(super) fn identifier(text: &str) -> Option<String> {
    parse_identifier(text).ok()
}

const PRIVILEGES: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN", "ALL"];

/// `select, insert to analysts`, or `all to public`. Privileges are known words, the role is an identifier, so
/// that a GRANT can be written from it without a surprise.
pub(super) fn grant(text: &str) -> Option<Grant> {
    let at = text.to_ascii_lowercase().find(" to ")?;
    let (privileges, role) = (text.get(..at)?, text.get(at + " to ".len()..)?.trim());
    let privileges = privileges
        .split(',')
        .map(|word| PRIVILEGES.iter().copied().find(|known| known.eq_ignore_ascii_case(word.trim())))
        .collect::<Option<Vec<_>>>()?;
    if privileges.len() > 1 && privileges.contains(&"ALL") {
        return None;
    }
    let role = if role.eq_ignore_ascii_case("public") { None } else { Some(identifier(role)?) };
    Some(Grant { privileges, role })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_as_postgresql_counts() {
        for (text, bytes) in
            [("1", 1), ("512kB", 512 << 10), ("20GB", 20 << 30), ("1 TB", 1 << 40), ("3MB", 3 << 20)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "0", "GB", "-1GB", "1gb", "1.5GB", "99999999999999TB", "1 G B"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn times_have_postgresql_s_units() {
        let ms = Duration::from_millis(1);
        for (text, expected) in [
            ("500ms", 500),
            ("3s", 3_000),
            ("10", 10),
            ("2 min", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text, ms), Some(expected * ms), "{text}");
        }
        for text in ["", "0", "0s", "s", "-1s", "1.5s", "1m", "500d", "99999999999999999999s"] {
            assert_eq!(duration(text, ms), None, "{text}");
        }
    }

    #[test]
    fn memory_needs_its_unit() {
        assert_eq!(memory("1GB").as_deref(), Some("1048576kB"));
        assert_eq!(memory("64 MB").as_deref(), Some("65536kB"));
        for text in ["1024", "1kB", "3TB", "1gb", "512B"] {
            assert_eq!(memory(text), None, "{text}");
        }
    }

    #[test]
    fn connection_names_make_slot_names() {
        for good in ["a", "prod", "eu_west1", "a_", &"a".repeat(24)] {
            assert!(is_connection_name(good), "{good}");
        }
        for bad in ["", "1a", "_a", "Prod", "a-b", "a__b", "ä", &"a".repeat(25)] {
            assert!(!is_connection_name(bad), "{bad}");
        }
        assert_eq!(slot_name("_1a"), Some("_1a".to_owned()));
        for bad in ["", "A", "a-b", &"a".repeat(64)] {
            assert_eq!(slot_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn grants_hold_known_words_only() {
        let select = |role: Option<&str>| Grant { privileges: vec!["SELECT"], role: role.map(str::to_owned) };
        assert_eq!(grant("select to analysts"), Some(select(Some("analysts"))));
        assert_eq!(grant("SELECT TO Public"), Some(select(None)));
        assert_eq!(grant("select to \"a to b\""), Some(select(Some("a to b"))));
        assert_eq!(grant("select to \"Big Role\""), Some(select(Some("Big Role"))));
        assert_eq!(grant("insert, update to w").map(|g| g.privileges), Some(vec!["INSERT", "UPDATE"]));
        for bad in
            ["", "select", "select analysts", "drop to x", "select to x; drop table y", "all, select to x"]
        {
            assert_eq!(grant(bad), None, "{bad}");
        }
    }
}
