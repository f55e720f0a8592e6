//! What earlier runs have left that no configured work takes up again.

use std::collections::BTreeSet;

use super::finding::{Check, Remedy};
use crate::capture::trigger::stream_ticks;
use crate::model::{quote_ident, quote_literal};
use crate::pg::{PgError, Session};

/// Something of ours that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leftover {
    /// A slot, with the bytes of WAL that are kept for it.
    Slot {
        name: String,
        retained: i64,
    },
    Publication(String),
    /// A table of a repack in schema repcloud_new, or an old one in repcloud_old.
    Table(String),
    /// A stream by triggers, as it is called where its queues are, and how many it has.
    Reader {
        name: String,
        queues: i64,
    },
}

const SLOTS: &str = "\
SELECT slot_name::text, coalesce(pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END,
           restart_lsn), 0)::int8
  FROM pg_catalog.pg_replication_slots
 WHERE slot_name LIKE 'repcloud\\_%' AND slot_type = 'logical' AND database = current_database() AND NOT active AND NOT temporary
 ORDER BY 1";

const PUBLICATIONS: &str = "\
SELECT pubname::text FROM pg_catalog.pg_publication WHERE pubname LIKE 'repcloud\\_%' ORDER BY 1";

const TABLES: &str = "\
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('repcloud_new', 'repcloud_old') AND c.relkind IN ('r', 'p') ORDER BY 1";

/// Reads them. Schema `repcloud` must be ours to use, or not be there.
pub(super) async fn read(session: &Session) -> Result<Vec<Leftover>, PgError> {
    let mut found = Vec::new();
    for row in session.query(SLOTS, &[]).await? {
        found.push(Leftover::Slot { name: row.try_get(0)?, retained: row.try_get(1)? });
    }
    for row in session.query(PUBLICATIONS, &[]).await? {
        found.push(Leftover::Publication(row.try_get(0)?));
    }
    for row in session.query(TABLES, &[]).await? {
        found.push(Leftover::Table(row.try_get(0)?));
    }
    let readers = stream_ticks::readers(session).await?;
    found.extend(readers.into_iter().map(|(name, queues)| Leftover::Reader { name, queues }));
    Ok(found)
}

/// What is configured, or unfinished, is none. `slots`: those that some work has, whose publications have the same name;
/// `connection` for the command that undoes a repack. Pure.
pub(super) fn judge(
    found: &[Leftover],
    slots: &BTreeSet<String>,
    unfinished_repacks: bool,
    connection: &str,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let ours = |name: &str| slots.contains(name) || slots.contains(name.strip_suffix("_ins").unwrap_or(name));
    for leftover in found {
        match leftover {
            Leftover::Slot { name, retained } if !ours(name) => {
                let text = format!(
                    "nothing that is configured reads it, and the server keeps {} MB of WAL for it",
                    retained >> 20
                );
                let drop = format!("SELECT pg_catalog.pg_drop_replication_slot({})", quote_literal(name));
                checks.push(Check::warn(&format!("slot {name}"), text).help(Remedy::run([drop])));
            }
            Leftover::Publication(name) if !ours(name) => {
                let drop = format!("DROP PUBLICATION {}", quote_ident(name));
                let text =
                    "nothing that is configured reads it; its tables cannot lose their replica identity";
                checks.push(Check::warn(&format!("publication {name}"), text).help(Remedy::run([drop])));
            }
            Leftover::Table(name) if !unfinished_repacks => {
                let drop = Remedy::note(format!("repcloud drop-schema --connection {connection}"));
                checks.push(Check::warn(&format!("table {name}"), "a repack has left it").help(drop));
            }
            Leftover::Reader { name, queues } if !slots.contains(name) => {
                let text = format!(
                    "triggers fill queues of {queues} tables for it, which every write pays for, and nothing that is configured reads them"
                );
                let help =
                    "put its [[replicate]] entry back, then repcloud drop-table for each of its tables";
                checks.push(Check::warn(&format!("stream {name}"), text).help(Remedy::note(help)));
            }
            Leftover::Slot { .. }
            | Leftover::Publication(_)
            | Leftover::Table(_)
            | Leftover::Reader { .. } => {}
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("leftovers", "none"));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn only_what_nobody_takes_up_again_is_left_over() {
        let found = [
            Leftover::Slot { name: "repcloud_a__b".into(), retained: 3 << 20 },
            Leftover::Publication("repcloud_a__b".into()),
            Leftover::Publication("repcloud_a__b_ins".into()),
            Leftover::Table("repcloud_new.t".into()),
            Leftover::Reader { name: "repcloud_a__b".into(), queues: 2 },
        ];
        let slots = ["repcloud_a__b".to_owned()].into();
        let judged = judge(&found, &slots, true, "prod");
        assert_eq!((judged.len(), judged[0].level), (1, Level::Ok));
        let judged = judge(&found, &BTreeSet::new(), false, "prod");
        assert_eq!(judged.iter().filter(|c| c.level == Level::Warn).count(), 5);
        assert!(judged[0].detail.contains("3 MB"), "{judged:?}");
    }
}
