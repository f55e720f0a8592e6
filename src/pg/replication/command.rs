//! The texts of replication commands, by server version, and their answers. Pure.

use crate::model::Lsn;
use crate::pg::error::PgError;

/// What IDENTIFY_SYSTEM answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifies the cluster: made by initdb, the same on every standby.
    pub system_id: String,
    /// The current timeline; a promotion begins a new one.
    pub timeline: u32,
    /// How far the WAL is flushed.
    pub flushed: Lsn,
    /// The database we are connected to.
    pub database: String,
}

/// What CREATE_REPLICATION_SLOT does with the snapshot of the consistent point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Snapshot {
    /// Exports it: other sessions may import it until this session runs its next command or ends.
    Export,
    /// Makes none.
    Nothing,
}

/// A logical slot to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRequest {
    /// Its name: 1 to 63 of `a-z`, `0-9` and `_`.
    pub name: String,
    /// The output plugin.
    pub plugin: String,
    /// Dropped by the server when this session ends.
    pub temporary: bool,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Decode prepared transactions at PREPARE (PostgreSQL 15 and later).
    pub two_phase: bool,
    /// Synchronised to standbys (PostgreSQL 17 and later).
    pub failover: bool,
}

/// A logical slot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Its name.
    pub name: String,
    /// Where decoding begins: everything that commits after it is streamed, everything before is in the snapshot.
    pub consistent_point: Lsn,
    /// The exported snapshot's name, for `SET TRANSACTION SNAPSHOT`.
    pub snapshot_name: Option<String>,
}

/// Checks a slot's name as the server would, and its length as the server does not (it cuts silently).
pub(crate) fn check_slot_name(name: &str) -> Result<(), PgError> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(valid) {
        return Err(PgError::config(format!(
            "\"{name}\" cannot name a replication slot; use 1 to 63 of the characters a-z, 0-9 and _"
        )));
    }
    Ok(())
}

/// CREATE_REPLICATION_SLOT; from PostgreSQL 15 on with options in parentheses.
pub(crate) fn create_slot(request: &SlotRequest, server_version: u32) -> Result<String, PgError> {
    check_slot_name(&request.name)?;
    let needs = |what: &str, version: u32| {
        if server_version >= version * 10_000 {
            return Ok(());
        }
        Err(PgError::config(format!(
            "slot {}: {what} needs PostgreSQL {version} or later, and the server is older",
            request.name
        )))
    };
    if request.two_phase {
        needs("two_phase", 15)?;
    }
    if request.failover {
        needs("failover", 17)?;
    }
    let mut text = format!("CREATE_REPLICATION_SLOT {}", quoted_name(&request.name));
    if request.temporary {
        text.push_str(" TEMPORARY");
    }
    text.push_str(&format!(" LOGICAL {}", quoted_name(&request.plugin)));
    if server_version < 150_000 {
        text.push_str(match request.snapshot {
            Snapshot::Export => " EXPORT_SNAPSHOT",
            Snapshot::Nothing => " NOEXPORT_SNAPSHOT",
        });
        return Ok(text);
    }
    text.push_str(match request.snapshot {
        Snapshot::Export => " (SNAPSHOT 'export'",
        Snapshot::Nothing => " (SNAPSHOT 'nothing'",
    });
    for (wanted, option) in [(request.two_phase, ", TWO_PHASE true"), (request.failover, ", FAILOVER true")] {
        if wanted {
            text.push_str(option);
        }
    }
    text.push(')');
    Ok(text)
}

/// DROP_REPLICATION_SLOT.
pub(crate) fn drop_slot(name: &str, wait: bool) -> Result<String, PgError> {
    check_slot_name(name)?;
    Ok(format!("DROP_REPLICATION_SLOT {}{}", quoted_name(name), if wait { " WAIT" } else { "" }))
}

/// START_REPLICATION of a logical slot.
pub(crate) fn start(slot: &str, from: Lsn, options: &[(String, String)]) -> Result<String, PgError> {
    check_slot_name(slot)?;
    let mut text = format!("START_REPLICATION SLOT {} LOGICAL {from}", quoted_name(slot));
    if !options.is_empty() {
        let list: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{} {}", quoted_name(name), quoted_text(value)))
            .collect();
        text.push_str(&format!(" ({})", list.join(", ")));
    }
    Ok(text)
}

/// Always quoted: the replication grammar folds case and has keywords of its own.
fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text of the replication grammar: a backslash means itself there.
fn quoted_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// One row of an answer, as text.
pub(crate) type TextRow = Vec<Option<String>>;

const ANSWER: &str = "reading the answer to a replication command";

fn cell(rows: &[TextRow], at: usize) -> Option<&str> {
    rows.first()?.get(at)?.as_deref()
}

fn required<T: std::str::FromStr>(rows: &[TextRow], at: usize, what: &str) -> Result<T, PgError> {
    cell(rows, at)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| PgError::protocol(ANSWER, format!("{what} is missing or unreadable")))
}

pub(crate) fn read_identity(rows: &[TextRow]) -> Result<SystemIdentity, PgError> {
    Ok(SystemIdentity {
        system_id: required(rows, 0, "the system identifier")?,
        timeline: required(rows, 1, "the timeline")?,
        flushed: required(rows, 2, "the flushed position")?,
        database: required(rows, 3, "the database")?,
    })
}

pub(crate) fn read_created_slot(rows: &[TextRow]) -> Result<CreatedSlot, PgError> {
    Ok(CreatedSlot {
        name: required(rows, 0, "the slot's name")?,
        consistent_point: required(rows, 1, "the consistent point")?,
        snapshot_name: cell(rows, 2).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SlotRequest {
        SlotRequest {
            name: "s_1".into(),
            plugin: "pgoutput".into(),
            temporary: false,
            snapshot: Snapshot::Export,
            two_phase: false,
            failover: false,
        }
    }

    #[test]
    fn slots_are_made_in_each_versions_words() {
        let all = SlotRequest {
            temporary: true,
            snapshot: Snapshot::Nothing,
            two_phase: true,
            failover: true,
            ..request()
        };
        for (request, version, text) in [
            (request(), 140_023, "CREATE_REPLICATION_SLOT \"s_1\" LOGICAL \"pgoutput\" EXPORT_SNAPSHOT"),
            (request(), 150_020, "CREATE_REPLICATION_SLOT \"s_1\" LOGICAL \"pgoutput\" (SNAPSHOT 'export')"),
            (
                all,
                170_000,
                "CREATE_REPLICATION_SLOT \"s_1\" TEMPORARY LOGICAL \"pgoutput\" \
                 (SNAPSHOT 'nothing', TWO_PHASE true, FAILOVER true)",
            ),
        ] {
            assert_eq!(create_slot(&request, version).unwrap(), text);
        }
        let failover = SlotRequest { failover: true, ..request() };
        assert!(create_slot(&failover, 160_000).unwrap_err().to_string().contains("PostgreSQL 17"));
    }

    #[test]
    fn names_and_values_cannot_leave_their_quotes() {
        for name in ["", "A", "a-b", "a\"b", "é", &"x".repeat(64)] {
            assert!(check_slot_name(name).is_err(), "{name}");
            assert!(drop_slot(name, true).is_err() && start(name, Lsn(0), &[]).is_err());
        }
        let options =
            [("proto_version".into(), "1".into()), ("publication_names".into(), "\"o'b\\\"".into())];
        assert_eq!(
            start("s", Lsn(0x1_0000_0002), &options).unwrap(),
            "START_REPLICATION SLOT \"s\" LOGICAL 1/2 (\"proto_version\" '1', \"publication_names\" '\"o''b\\\"')"
        );
        assert_eq!(start("s", Lsn(0), &[]).unwrap(), "START_REPLICATION SLOT \"s\" LOGICAL 0/0");
    }

    #[test]
    fn short_answers_are_errors() {
        assert!(read_identity(&[]).is_err());
        assert!(read_created_slot(&[vec![Some("s".into()), Some("x".into())]]).is_err());
        let row = vec![Some("s".into()), Some("0/1".into()), None, Some("pgoutput".into())];
        assert_eq!(
            read_created_slot(&[row]).unwrap(),
            CreatedSlot { name: "s".into(), consistent_point: Lsn(1), snapshot_name: None }
        );
    }
}
