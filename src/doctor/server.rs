//! The server as a whole. Pure.

use std::collections::BTreeMap;

use super::finding::{Check, Remedy};
use super::platform::Platform;
use crate::model::quote_ident;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServerFacts {
    /// `server_version_num`; 0 when it is unknown.
    pub(super) version: u32,
    pub(super) is_tls: bool,
    /// `current_user`.
    pub(super) role: String,
    pub(super) database: String,
    pub(super) superuser: bool,
    pub(super) in_recovery: bool,
    pub(super) encoding: String,
    /// CREATE on the database.
    pub(super) may_create: bool,
    pub(super) slots_used: i64,
    pub(super) senders_used: i64,
    /// Those that the version has, as `pg_settings` writes them.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) platform: Platform,
    /// Seconds that its clock is ahead of ours.
    pub(super) skew: f64,
}

/// What the configured work wants of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Changes are read here.
    pub(super) reads: bool,
    /// Slots that have to be made for it.
    pub(super) new_slots: i64,
    /// Rows are written here.
    pub(super) writes: bool,
    /// The connection goes over a Unix socket.
    pub(super) local: bool,
}

impl ServerFacts {
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }
}

/// Everything that does not depend on tables.
pub(super) fn judge(facts: &ServerFacts, wanted: Wanted) -> Vec<Check> {
    let mut checks = vec![tls(facts, wanted), version(facts), platform(facts), role(facts), clock(facts)];
    checks.push(primary(facts));
    if wanted.reads {
        checks.push(wal_level(facts));
        checks.extend(room(facts, wanted.new_slots));
        checks.push(retention(facts));
        checks.extend(slot_timeouts(facts));
        checks.push(failover(facts));
    }
    checks.extend(transaction_timeout(facts));
    checks
}

fn tls(facts: &ServerFacts, wanted: Wanted) -> Check {
    const NAME: &str = "tls";
    match (facts.is_tls, wanted.local) {
        (true, _) => Check::ok(NAME, "the connection is encrypted"),
        (false, true) => Check::ok(NAME, "a Unix socket needs none"),
        (false, false) => {
            Check::warn(NAME, "the connection is not encrypted: rows and password are readable on the way")
                .help(Remedy::note(
                    "set sslmode = \"verify-full\" and sslrootcert; the server needs ssl = on",
                ))
        }
    }
}

fn version(facts: &ServerFacts) -> Check {
    const OLDEST: u32 = 140_000;
    let shown = format!("PostgreSQL {}.{}", facts.version / 10_000, facts.version % 10_000);
    match facts.version {
        0 => Check::warn("version", "the server does not say which version it is"),
        OLDEST.. => Check::ok("version", shown),
        _ => {
            Check::fail("version", format!("{shown} is too old")).help(Remedy::note("upgrade to 14 or later"))
        }
    }
}

fn platform(facts: &ServerFacts) -> Check {
    Check::ok("platform", facts.platform.as_str())
}

fn role(facts: &ServerFacts) -> Check {
    let role = quote_ident(&facts.role);
    match facts.superuser {
        false => Check::ok("role", format!("{role}, no superuser")),
        true => Check::warn("role", format!("{role} is a superuser, which nothing here needs"))
            .help(Remedy::note("use a role with LOGIN, the rights that these checks name, and nothing more")),
    }
}

fn clock(facts: &ServerFacts) -> Check {
    const MUCH: f64 = 2.0;
    let text = format!("the server's clock is {:+.1} s from ours", facts.skew);
    match facts.skew.abs() > MUCH {
        true => Check::warn("clock", format!("{text}: lag and ages are shown wrong by that"))
            .help(Remedy::note("let both machines take their time from NTP")),
        false => Check::ok("clock", text),
    }
}

fn primary(facts: &ServerFacts) -> Check {
    match facts.in_recovery {
        false => Check::ok("primary", "a primary"),
        true => {
            Check::fail("primary", "it is a standby: nothing can be written to it, not even a publication")
                .help(Remedy::note("connect to the primary"))
        }
    }
}

fn wal_level(facts: &ServerFacts) -> Check {
    let level = facts.setting("wal_level").unwrap_or("unknown");
    match level {
        "logical" => Check::ok("wal_level", "logical"),
        level => Check::fail("wal_level", format!("{level}, and a slot needs logical"))
            .help(facts.platform.logical_decoding()),
    }
}

fn room(facts: &ServerFacts, new: i64) -> Vec<Check> {
    let one = |name: &str, used: i64, what: &str| {
        let limit = facts.number(name).unwrap_or(0);
        let free = limit - used;
        let text = format!("{used} of {limit} {what} in use, {new} more wanted");
        match free >= new {
            true => Check::ok(name, text),
            false => Check::fail(name, text).help(facts.platform.setting(
                name,
                &(used + new + 5).to_string(),
                true,
            )),
        }
    };
    vec![
        one("max_replication_slots", facts.slots_used, "slots"),
        one("max_wal_senders", facts.senders_used, "walsenders"),
    ]
}

/// A slot that nobody reads keeps WAL until the disk is full, or until this limit takes the slot.
fn retention(facts: &ServerFacts) -> Check {
    const NAME: &str = "max_slot_wal_keep_size";
    match facts.number(NAME) {
        Some(megabytes @ 0..) => Check::ok(
            NAME,
            format!("{megabytes} MB: a stream that stands still for longer than that takes loses its slot"),
        ),
        _ => Check::warn(
            NAME,
            "no limit: while a stream stands still the server keeps all WAL, until the disk is full",
        )
        .help(facts.platform.setting(NAME, "50GB", false)),
    }
}

fn slot_timeouts(facts: &ServerFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    const SENDER: &str = "wal_sender_timeout";
    const SHORTEST: i64 = 10_000;
    checks.push(match facts.number(SENDER) {
        Some(0) => {
            Check::warn(SENDER, "0: the server never notices that we are gone, and the slot stays taken")
                .help(facts.platform.setting(SENDER, "60s", false))
        }
        Some(ms) if ms < SHORTEST => {
            Check::warn(SENDER, format!("{ms} ms: a short pause of the network ends the stream"))
                .help(facts.platform.setting(SENDER, "60s", false))
        }
        ms => Check::ok(SENDER, format!("{} s", ms.unwrap_or(60_000) / 1000)),
    });
    const IDLE: &str = "idle_replication_slot_timeout";
    match facts.number(IDLE) {
        None => {}
        Some(0) => checks.push(Check::ok(IDLE, "no limit")),
        Some(_) => checks.push(
            Check::warn(IDLE, "a stream that is stopped for longer than this loses its slot")
                .help(facts.platform.setting(IDLE, "0", false)),
        ),
    }
    checks
}

/// From version 17 on; every other limit of sessions is pinned by ours.
fn transaction_timeout(facts: &ServerFacts) -> Option<Check> {
    const NAME: &str = "transaction_timeout";
    match facts.number(NAME)? {
        0 => Some(Check::ok(NAME, "no limit")),
        ms => {
            let statement = format!("ALTER ROLE {} SET {NAME} = 0", quote_ident(&facts.role));
            let text =
                format!("{ms} ms: the transaction that holds the copy's snapshot would be ended by it");
            Some(Check::fail(NAME, text).help(Remedy::run([statement])))
        }
    }
}

fn failover(facts: &ServerFacts) -> Check {
    const FIRST: u32 = 170_000;
    match facts.version >= FIRST {
        true => Check::ok(
            "failover",
            "the slot is made with failover: a standby that synchronises slots can go on with it",
        ),
        false => Check::warn("failover", "slots do not outlive a failover before PostgreSQL 17")
            .help(Remedy::note("after a failover: repcloud reset --all --recopy")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    pub(in crate::doctor) fn facts() -> ServerFacts {
        let settings = [
            ("wal_level", "logical"),
            ("max_replication_slots", "10"),
            ("max_wal_senders", "10"),
            ("max_slot_wal_keep_size", "1024"),
            ("wal_sender_timeout", "60000"),
        ];
        ServerFacts {
            version: 150_018,
            is_tls: true,
            role: "app".into(),
            database: "shop".into(),
            superuser: false,
            in_recovery: false,
            encoding: "UTF8".into(),
            may_create: true,
            slots_used: 0,
            senders_used: 0,
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            platform: Platform::Plain,
            skew: 0.1,
        }
    }

    fn reads() -> Wanted {
        Wanted { reads: true, new_slots: 1, ..Wanted::default() }
    }

    fn not_ok(facts: &ServerFacts) -> Vec<(String, Level)> {
        judge(facts, reads())
            .into_iter()
            .filter(|c| c.level != Level::Ok)
            .map(|c| (c.check, c.level))
            .collect()
    }

    #[test]
    fn a_good_server_has_nothing_but_what_its_version_lacks() {
        assert_eq!(not_ok(&facts()), [("failover".to_owned(), Level::Warn)]);
        let newer = ServerFacts { version: 180_004, ..facts() };
        assert_eq!(not_ok(&newer), []);
    }

    #[test]
    fn each_thing_that_is_wrong_is_said_with_what_mends_it() {
        let set = |name: &str, value: &str| {
            let mut facts = ServerFacts { version: 180_004, ..facts() };
            facts.settings.insert(name.to_owned(), value.to_owned());
            facts
        };
        for (facts, check, level) in [
            (set("wal_level", "replica"), "wal_level", Level::Fail),
            (set("max_replication_slots", "0"), "max_replication_slots", Level::Fail),
            (set("max_wal_senders", "0"), "max_wal_senders", Level::Fail),
            (set("max_slot_wal_keep_size", "-1"), "max_slot_wal_keep_size", Level::Warn),
            (set("wal_sender_timeout", "0"), "wal_sender_timeout", Level::Warn),
            (set("wal_sender_timeout", "500"), "wal_sender_timeout", Level::Warn),
            (set("idle_replication_slot_timeout", "60"), "idle_replication_slot_timeout", Level::Warn),
            (set("transaction_timeout", "1000"), "transaction_timeout", Level::Fail),
            (ServerFacts { in_recovery: true, version: 180_000, ..facts() }, "primary", Level::Fail),
            (ServerFacts { is_tls: false, version: 180_000, ..facts() }, "tls", Level::Warn),
            (ServerFacts { superuser: true, version: 180_000, ..facts() }, "role", Level::Warn),
            (ServerFacts { skew: -7.0, version: 180_000, ..facts() }, "clock", Level::Warn),
        ] {
            assert_eq!(not_ok(&facts), [(check.to_owned(), level)]);
            assert!(
                judge(&facts, reads()).iter().all(|c| c.level == Level::Ok || c.remedy.is_some()),
                "{check}"
            );
        }
    }

    #[test]
    fn a_database_that_is_only_written_to_needs_no_slot() {
        let facts = ServerFacts { settings: BTreeMap::new(), ..facts() };
        let checks = judge(&facts, Wanted { writes: true, ..Wanted::default() });
        assert!(checks.iter().all(|c| c.level == Level::Ok), "{checks:?}");
    }
}
