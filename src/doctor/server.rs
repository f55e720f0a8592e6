//! The server as a whole. Pure.

use std::collections::BTreeMap;

use super::finding::{Check, Remedy};
use super::platform::Platform;
use super::remedies::{Need, remedy};
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
    /// `default_transaction_read_only`, for our role in this database.
    pub(super) read_only: bool,
    pub(super) slots_used: i64,
    pub(super) senders_used: i64,
    /// Those that the version has, as `pg_settings` writes them.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) platform: Platform,
    /// Roles that are superusers.
    pub(super) superusers: Vec<String>,
    /// Seconds that its clock is ahead of ours.
    pub(super) skew: f64,
}

impl ServerFacts {
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.setting(name)?.parse().ok()
    }

    /// What mends it on this platform.
    pub(super) fn mend(&self, need: &Need) -> Remedy {
        remedy(self.platform, need)
    }

    /// Whoever is given this role's rights is given the whole server.
    pub(super) fn is_superuser(&self, role: &str) -> bool {
        self.superusers.iter().any(|name| name == role)
    }

    /// A slot can be made here, if our role may.
    pub(super) fn decodes(&self) -> bool {
        !self.in_recovery && self.setting("wal_level") == Some("logical")
    }
}

/// What every kind of work needs. `local`: the connection goes over a Unix socket.
pub(super) fn judge(facts: &ServerFacts, local: bool) -> Vec<Check> {
    let mut checks = vec![tls(facts, local), version(facts), platform(facts), role(facts), clock(facts)];
    checks.push(primary(facts));
    checks.extend(read_only(facts));
    checks
}

/// What slots need; `new` of them have to be made.
pub(super) fn judge_slots(facts: &ServerFacts, new: i64) -> Vec<Check> {
    let mut checks = vec![wal_level(facts)];
    checks.extend(room(facts, new));
    checks.push(retention(facts));
    checks.extend(slot_timeouts(facts));
    checks.push(failover(facts));
    checks
}

fn tls(facts: &ServerFacts, local: bool) -> Check {
    const NAME: &str = "tls";
    match (facts.is_tls, local) {
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

fn read_only(facts: &ServerFacts) -> Option<Check> {
    const NAME: &str = "default_transaction_read_only";
    let statement = format!(
        "ALTER ROLE {} IN DATABASE {} SET {NAME} = off",
        quote_ident(&facts.role),
        quote_ident(&facts.database)
    );
    // Not overruled: it may be there to keep a full disk from filling up.
    facts.read_only.then(|| {
        let text = "on: our transactions could write nothing, not even what they remember";
        Check::fail(NAME, text).help(
            Remedy::run([statement])
                .and("once there is room: managed services turn it on when the disk is nearly full"),
        )
    })
}

fn wal_level(facts: &ServerFacts) -> Check {
    let level = facts.setting("wal_level").unwrap_or("unknown");
    match level {
        "logical" => Check::ok("wal_level", "logical"),
        level => Check::fail("wal_level", format!("{level}, and a slot needs logical"))
            .help(facts.mend(&Need::LogicalDecoding)),
    }
}

fn room(facts: &ServerFacts, new: i64) -> Vec<Check> {
    let one = |name: &'static str, used: i64, what: &str| {
        let limit = facts.number(name).unwrap_or(0);
        let free = limit - used;
        let text = format!("{used} of {limit} {what} in use, {new} more wanted");
        match free >= new {
            true => Check::ok(name, text),
            false => Check::fail(name, text).help(facts.mend(&Need::number(name, used + new + 5, true))),
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
        .help(facts.mend(&Need::measure(NAME, "50GB", 51_200))),
    }
}

fn slot_timeouts(facts: &ServerFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    const SENDER: &str = "wal_sender_timeout";
    const SHORTEST: i64 = 10_000;
    checks.push(match facts.number(SENDER) {
        Some(0) => {
            Check::warn(SENDER, "0: the server never notices that we are gone, and the slot stays taken")
                .help(facts.mend(&Need::measure(SENDER, "60s", 60_000)))
        }
        Some(ms) if ms < SHORTEST => {
            Check::warn(SENDER, format!("{ms} ms: a short pause of the network ends the stream"))
                .help(facts.mend(&Need::measure(SENDER, "60s", 60_000)))
        }
        ms => Check::ok(SENDER, format!("{} s", ms.unwrap_or(60_000) / 1000)),
    });
    const IDLE: &str = "idle_replication_slot_timeout";
    match facts.number(IDLE) {
        None => {}
        Some(0) => checks.push(Check::ok(IDLE, "no limit")),
        Some(_) => checks.push(
            Check::warn(IDLE, "a stream that is stopped for longer than this loses its slot")
                .help(facts.mend(&Need::measure(IDLE, "0", 0))),
        ),
    }
    checks
}

fn failover(facts: &ServerFacts) -> Check {
    const FIRST: u32 = 170_000;
    match facts.version >= FIRST {
        true => Check::ok(
            "failover",
            "the slot is made with failover: a standby that synchronises slots can go on with it",
        ),
        false => Check::warn("failover", "slots do not outlive a failover before PostgreSQL 17").help(
            Remedy::note("after a failover, for each source: repcloud reset --source SOURCE --all --recopy"),
        ),
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
            read_only: false,
            slots_used: 0,
            senders_used: 0,
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            platform: Platform::Plain,
            superusers: vec!["postgres".into()],
            skew: 0.1,
        }
    }

    fn all(facts: &ServerFacts) -> Vec<Check> {
        judge(facts, false).into_iter().chain(judge_slots(facts, 1)).collect()
    }

    fn not_ok(facts: &ServerFacts) -> Vec<(String, Level)> {
        all(facts).into_iter().filter(|c| c.level != Level::Ok).map(|c| (c.check, c.level)).collect()
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
            (
                ServerFacts { read_only: true, version: 180_000, ..facts() },
                "default_transaction_read_only",
                Level::Fail,
            ),
            (ServerFacts { in_recovery: true, version: 180_000, ..facts() }, "primary", Level::Fail),
            (ServerFacts { is_tls: false, version: 180_000, ..facts() }, "tls", Level::Warn),
            (ServerFacts { superuser: true, version: 180_000, ..facts() }, "role", Level::Warn),
            (ServerFacts { skew: -7.0, version: 180_000, ..facts() }, "clock", Level::Warn),
        ] {
            assert_eq!(not_ok(&facts), [(check.to_owned(), level)]);
            assert!(all(&facts).iter().all(|c| c.level == Level::Ok || c.remedy.is_some()), "{check}");
        }
    }

    #[test]
    fn without_slots_their_settings_do_not_count() {
        let facts = ServerFacts { settings: BTreeMap::new(), ..facts() };
        let checks = judge(&facts, true);
        assert!(checks.iter().all(|c| c.level == Level::Ok), "{checks:?}");
    }
}
