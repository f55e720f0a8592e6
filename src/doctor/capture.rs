//! Which way changes can be read: tried.

use super::finding::{Check, Level, Remedy};
use super::platform::{Platform, list_names};
use super::remedies::Need;
use super::server::ServerFacts;
use crate::capture::Plugin;
use crate::capture::auto::{self, Tried, Way};
use crate::pg::{ConnectOptions, PgError};

/// The setting that lists the plugins a server loads, from the minor versions of August 2026 on.
const PLUGINS: &str = "output_plugin_libraries";

/// Tries the ways in order, up to the first that works, and gives a check a way.
pub(super) async fn try_ways(
    connect: &ConnectOptions,
    ways: &[Way],
    facts: &ServerFacts,
) -> Result<(Option<Way>, Vec<Check>), PgError> {
    let mut checks = Vec::new();
    for way in ways {
        let name = way.to_string();
        let found = match way {
            Way::Slot(plugin) => auto::try_slot(connect, *plugin)
                .await?
                .map(|tried| made(&name, tried))
                .map_err(|refused| judge(&name, *plugin, &refused.why, facts)),
            Way::Triggers => Ok(Check::ok(
                &name,
                "may be made by a role with TRIGGER and SELECT on a stream's tables, or that owns a table to repack; no slot is needed",
            )),
        };
        match found {
            Ok(check) => {
                soften(&mut checks);
                checks.push(check);
                return Ok((Some(*way), checks));
            }
            Err(check) => checks.push(check),
        }
    }
    Ok((None, checks))
}

fn made(name: &str, tried: Tried) -> Check {
    match tried {
        Tried::Made => Check::ok(name, "a temporary one was made and dropped"),
        Tried::Waits => {
            Check::warn(name, "allowed, but it waits for transactions that have been open for a while")
                .help(Remedy::note("end old transactions, prepared ones too, or start when they have ended"))
        }
    }
}

/// A way that is passed over is no obstacle once another one works.
fn soften(checks: &mut [Check]) {
    for check in checks.iter_mut().filter(|c| c.level == Level::Fail) {
        check.level = Level::Warn;
    }
}

/// A refusal, with what opens the way on this platform. Pure.
fn judge(name: &str, plugin: Plugin, why: &str, facts: &ServerFacts) -> Check {
    let check = Check::fail(name, why);
    if why.contains(PLUGINS) {
        return check.help(listed(plugin, facts));
    }
    if why.contains("may not use replication slots") {
        return check.help(facts.mend(&Need::Replication(facts.role.clone())));
    }
    if why.contains("has no output plugin") {
        let package = match facts.platform {
            Platform::Plain => format!(
                "install it on the server (Debian: postgresql-{}-{})",
                facts.version / 10_000,
                plugin.as_str()
            ),
            other => format!("{} has to offer it", other.as_str()),
        };
        return check.help(Remedy::note(package));
    }
    // Slots and walsenders have checks of their own, with what raises them.
    check.help(Remedy::note("see the checks of wal_level, max_replication_slots and max_wal_senders"))
}

/// Adds the plugin to the list: with the names that are there, and each a literal of its own. A name with a comma in it is what
/// one literal for several names has made: it is taken apart.
fn listed(plugin: Plugin, facts: &ServerFacts) -> Remedy {
    let shown = list_names(facts.setting(PLUGINS).unwrap_or_default());
    let mut names: Vec<String> = Vec::new();
    for name in shown.iter().flat_map(|name| name.split(',')).map(str::trim).chain([plugin.as_str()]) {
        if !name.is_empty() && !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    facts.mend(&Need::List { name: PLUGINS, names })
}

#[cfg(test)]
mod tests {
    use super::super::server::tests::facts;
    use super::*;

    fn with_list(shown: &str) -> ServerFacts {
        let mut facts = facts();
        facts.settings.insert(PLUGINS.to_owned(), shown.to_owned());
        facts
    }

    fn statement(plugin: Plugin, shown: &str) -> String {
        let why = "the server's output_plugin_libraries does not list it";
        judge("a slot", plugin, why, &with_list(shown)).remedy.unwrap().statements[0].clone()
    }

    #[test]
    fn the_list_keeps_its_names_each_in_a_literal_of_its_own() {
        assert_eq!(
            statement(Plugin::Wal2json, "pgoutput, test_decoding"),
            "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'wal2json'"
        );
        // What `= 'pgoutput, wal2json'` has stored: one name, which no plugin has.
        assert_eq!(
            statement(Plugin::Pgoutput, "\"pgoutput, wal2json\""),
            "ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'wal2json'"
        );
    }

    #[test]
    fn a_role_without_the_right_is_told_what_its_platform_grants() {
        let why = "role app may not use replication slots";
        let told = |platform| {
            let facts = ServerFacts { platform, ..facts() };
            judge("a slot", Plugin::Pgoutput, why, &facts).remedy.unwrap().statements
        };
        assert_eq!(told(Platform::Plain), ["ALTER ROLE app REPLICATION"]);
        assert_eq!(told(Platform::Aurora), ["GRANT rds_replication TO app"]);
        assert_eq!(told(Platform::Heroku), Vec::<String>::new());
    }
}
