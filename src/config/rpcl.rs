//! Configurations written for rpcl, the Python program that came before: how one is told.

use toml::de::{DeTable, DeValue};

/// True when the file has the shape of rpcl's: keys that only rpcl had, or that only rpcl wrote as strings. Each
/// was mandatory there, so one is enough.
pub(super) fn is_rpcl(document: &DeTable<'_>) -> bool {
    let get = |table: &'_ DeTable<'_>, key: &str| table.iter().any(|(k, _)| k.get_ref() == key);
    let table = |key: &str| {
        document.iter().find(|(k, _)| k.get_ref() == key).and_then(|(_, v)| match v.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        })
    };
    get(document, "pid_dir")
        || table("notifier").is_some_and(|t| get(t, "enable_email"))
        || table("logging").is_some_and(|t| is_plain_number(t, "log_days_keep"))
        || table("connections").is_some_and(|connections| {
            connections.iter().any(|(_, connection)| match connection.get_ref() {
                DeValue::Table(t) => {
                    is_plain_number(t, "max_replay_rows") || is_plain_number(t, "check_time")
                }
                _ => false,
            })
        })
}

/// A number in quotes, without a unit.
fn is_plain_number(table: &DeTable<'_>, key: &str) -> bool {
    table.iter().any(|(k, v)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        k.get_ref() == key && v.get_ref().as_str().is_some_and(digits)
    })
}
