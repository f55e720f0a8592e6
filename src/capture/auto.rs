//! Which way changes are read: by trying, because managed services grant slots in ways that no catalog tells.

use std::fmt;
use std::time::Duration;

use crate::capture::reading::{Plugin, is_unknown_option};
use crate::decode::wal2json::NUMBERS_AS_STRINGS;
use crate::model::{Lsn, quote_ident};
use crate::pg::replication::{ReplicationClient, SlotRequest, Snapshot};
use crate::pg::{ConnectOptions, PgError};

/// A slot that may not be made is refused at once. One that is not refused within this time is allowed: it only waits for
/// transactions that run, and is cancelled.
pub const TRIAL: Duration = Duration::from_secs(2);

/// One way to read changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a slot, with this plugin.
    Slot(Plugin),
    /// From queues that triggers fill.
    Triggers,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Slot(plugin) => write!(f, "a slot with {}", plugin.as_str()),
            Way::Triggers => f.write_str("triggers"),
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Asked {
    /// What works.
    #[default]
    Auto,
    /// A slot, or nothing.
    Slot,
    /// Triggers, whatever a slot would do.
    Trigger,
}

/// How a connection's changes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptureOptions {
    /// `capture`.
    pub asked: Asked,
    /// `plugin`; `None`: not said.
    pub plugin: Option<Plugin>,
    /// `allow_lossy_numbers`.
    pub allow_lossy_numbers: bool,
}

impl CaptureOptions {
    /// The ways to try, the best first. Pure.
    pub fn ways(&self) -> Vec<Way> {
        match (self.asked, self.plugin) {
            (Asked::Trigger, _) => vec![Way::Triggers],
            (Asked::Slot, plugin) => vec![Way::Slot(plugin.unwrap_or_default())],
            (Asked::Auto, Some(plugin)) => vec![Way::Slot(plugin), Way::Triggers],
            (Asked::Auto, None) => {
                vec![Way::Slot(Plugin::Pgoutput), Way::Slot(Plugin::Wal2json), Way::Triggers]
            }
        }
    }
}

/// A way that cannot be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub way: Way,
    /// What the server says.
    pub why: String,
    /// A statement that opens it, where there is one.
    pub remedy: Option<String>,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way, self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; run: {remedy};"),
            None => Ok(()),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The first way that can be gone; `None`: none.
    pub way: Option<Way>,
    /// Those before it.
    pub passed_over: Vec<PassedOver>,
}

/// Chooses the first of `ways` that can be gone. A slot is tried, where there is a choice; triggers are not.
///
/// An error is one that says nothing about what is allowed: a server that cannot be reached.
pub async fn choose(connect: &ConnectOptions, ways: &[Way]) -> Result<Choice, PgError> {
    let mut passed_over = Vec::new();
    for (index, way) in ways.iter().enumerate() {
        let last = index + 1 == ways.len();
        let refused = match way {
            // Whoever makes it tells what is wrong with it.
            Way::Slot(_) if last && index == 0 => None,
            Way::Slot(plugin) => try_slot(connect, *plugin).await?.err(),
            Way::Triggers => None,
        };
        match refused {
            None => return Ok(Choice { way: Some(*way), passed_over }),
            Some(refused) => passed_over.push(refused),
        }
    }
    Ok(Choice { way: None, passed_over })
}

/// How the trial of a slot went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It was made and dropped.
    Made,
    /// It is allowed, and waits for running transactions.
    Waits,
}

fn request(name: String, plugin: Plugin) -> SlotRequest {
    SlotRequest {
        name,
        plugin: plugin.as_str().to_owned(),
        temporary: true,
        snapshot: Snapshot::Nothing,
        two_phase: false,
        failover: false,
    }
}

/// Makes a temporary slot and drops it. The inner error is the server's refusal.
pub async fn try_slot(
    connect: &ConnectOptions,
    plugin: Plugin,
) -> Result<Result<Tried, PassedOver>, PgError> {
    let refused = |error: PgError| judge(plugin, &connect.user, error);
    let mut replication = match ReplicationClient::connect(connect).await {
        Ok(replication) => replication,
        Err(error) => return refused(error).map(Err),
    };
    let name = format!("repcloud_trial_{}", replication.backend_pid());
    let tried = match replication.create_slot(&request(name.clone(), plugin), TRIAL).await {
        Ok(_) => {
            // At once, so that its place is free again when it is wanted.
            replication.drop_slot(&name, false).await?;
            Tried::Made
        }
        Err(PgError::Timeout { .. }) => Tried::Waits,
        Err(error) => return refused(error).map(Err),
    };
    replication.close().await?;
    Ok(Ok(tried))
}

/// Whether this server's wal2json can send numbers as strings, so that NaN and the infinities arrive; `None` when a slot to
/// ask it is not made in time. Read from a temporary slot.
pub async fn wal2json_keeps_numbers(connect: &ConnectOptions) -> Result<Option<bool>, PgError> {
    let mut replication = ReplicationClient::connect(connect).await?;
    let name = format!("repcloud_trial_{}", replication.backend_pid());
    match replication.create_slot(&request(name.clone(), Plugin::Wal2json), TRIAL).await {
        Ok(_) => {}
        Err(PgError::Timeout { .. }) => return Ok(None),
        Err(error) => return Err(error),
    }
    let options = [("format-version", "2"), (NUMBERS_AS_STRINGS, "true")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // The slot goes with the session, whichever way it ends.
    match replication.start_replication(&name, Lsn::INVALID, &options).await {
        Ok(stream) => stream.finish().await?.close().await.map(|()| Some(true)),
        Err(error) if is_unknown_option(&error) => Ok(Some(false)),
        Err(error) => Err(error),
    }
}

/// An answer of the server is a refusal; anything else says nothing about what is allowed.
fn judge(plugin: Plugin, user: &str, error: PgError) -> Result<PassedOver, PgError> {
    let Some(sqlstate) = error.sqlstate() else { return Err(error) };
    let role = quote_ident(user);
    let text = error.to_string();
    let name = plugin.as_str();
    let (why, remedy) = match sqlstate {
        // The same code for both: only the message tells a plugin that is not listed from a role without the right.
        "42501" if text.contains("output plugin") => (
            format!("the server's output_plugin_libraries does not list {name}"),
            // Which names are there already is not known here: `doctor` prints the whole statement.
            None,
        ),
        "42501" => (
            format!("role {role} may not use replication slots"),
            Some(format!("ALTER ROLE {role} REPLICATION")),
        ),
        "58P01" | "42704" | "42883" => (format!("the server has no output plugin {name}"), None),
        "53400" => ("every replication slot that max_replication_slots allows is in use".to_owned(), None),
        "53300" => ("max_wal_senders or a limit of connections is reached".to_owned(), None),
        // wal_level, or a standby that is too old; a login that is refused for replication alone.
        "55000" | "28000" => (text, None),
        // The server starts up, shuts down, or lost its disk: nothing about what is allowed.
        _ => return Err(error),
    };
    Ok(PassedOver { way: Way::Slot(plugin), why, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_way_comes_first_and_what_is_said_is_kept_to() {
        let ways = |asked, plugin| CaptureOptions { asked, plugin, allow_lossy_numbers: false }.ways();
        let (pgoutput, wal2json) = (Way::Slot(Plugin::Pgoutput), Way::Slot(Plugin::Wal2json));
        assert_eq!(ways(Asked::Auto, None), [pgoutput, wal2json, Way::Triggers]);
        assert_eq!(ways(Asked::Auto, Some(Plugin::Wal2json)), [wal2json, Way::Triggers]);
        assert_eq!(ways(Asked::Slot, None), [pgoutput]);
        assert_eq!(ways(Asked::Trigger, Some(Plugin::Wal2json)), [Way::Triggers]);
        assert_eq!(ways(Asked::Slot, Some(Plugin::Wal2json)), [wal2json]);
    }

    #[test]
    fn a_way_passed_over_says_what_opens_it() {
        let passed = PassedOver {
            way: Way::Slot(Plugin::Wal2json),
            why: "role app may not use replication slots".into(),
            remedy: Some("ALTER ROLE app REPLICATION".into()),
        };
        assert_eq!(
            passed.to_string(),
            "a slot with wal2json: role app may not use replication slots; run: ALTER ROLE app REPLICATION;"
        );
    }
}
