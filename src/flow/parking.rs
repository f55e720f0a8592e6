//! Tables that wait beside the stream: which ones, since when, and how they come back.
//!
//! A table that is stopped is marked in `repcloud.table_state`, with those that foreign keys tie to it, and the stream begins
//! again at its position: from there on the changes of the marked tables go into `repcloud.parked`. Nothing is decided in
//! memory, so a crash between any two steps changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::apply::ApplyError;
use crate::apply::checkpoint::{self, StateError, StreamKey, TableRecord, TableState};
use crate::apply::error::reset_command;
use crate::apply::parked_store::{self, ParkLimits};
use crate::apply::plan::PlanError;
use crate::capture::CaptureError;
use crate::capture::trigger::QueueError;
use crate::catalog::read_table;
use crate::flow::error::FlowError;
use crate::flow::status::Board;
use crate::flow::work::TableWork;
use crate::model::name::parse_table_name;
use crate::model::{Events, TableName};
use crate::pg::Session;

/// When parked changes are tried again: at the start of a process, then after growing pauses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    at: Instant,
    pause: Duration,
    first: Duration,
}

impl Retry {
    /// The longest pause, in first ones.
    const LONGEST: u32 = 20;

    pub(crate) fn new(first: Duration) -> Self {
        Retry { at: Instant::now(), pause: first, first }
    }

    /// The time has come.
    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    /// It was tried.
    pub(crate) fn tried(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.first * Retry::LONGEST);
    }

    /// Something is to be applied for certain.
    pub(crate) fn now(&mut self) {
        self.at = Instant::now();
    }

    /// Another table was parked just now: what stopped it is still there.
    pub(crate) fn parked(&mut self) {
        *self = Retry { at: Instant::now() + self.first, ..Retry::new(self.first) };
    }
}

/// What becomes of a table that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its changes wait.
    Park,
    /// Waiting would not help.
    NeedsCopy,
}

/// The target table that an error is about, when it is about one.
pub(crate) fn culprit(error: &FlowError, work: &[TableWork]) -> Option<(TableName, Verdict)> {
    let fed_by =
        |source: &TableName| work.iter().find(|w| w.source.name == *source).map(|w| w.target.clone());
    let error = match error {
        FlowError::Apply(error) => error,
        FlowError::PartitionsChanged { target_table, .. }
        | FlowError::Replaced { target_table, .. }
        | FlowError::Remade { target_table, .. }
        | FlowError::SourceGone { target_table, .. } => {
            return Some((target_table.clone(), Verdict::NeedsCopy));
        }
        _ => return None,
    };
    match error {
        ApplyError::Rejected { table, .. } | ApplyError::Conflict { table, .. } => {
            Some((table.clone(), Verdict::Park))
        }
        ApplyError::RejectedAtCommit { table, .. } => Some((table.clone()?, Verdict::Park)),
        ApplyError::Plan(PlanError::Shape(error)) => Some((error.target().clone(), Verdict::Park)),
        ApplyError::Plan(PlanError::NoIdentity(source)) => Some((fed_by(source)?, Verdict::Park)),
        ApplyError::Plan(PlanError::LeafTruncated(source)) => Some((fed_by(source)?, Verdict::NeedsCopy)),
        _ => None,
    }
}

/// The source table of which queued changes may be missing, or cannot be read: a copy alone helps.
fn gap(error: &FlowError) -> Option<&TableName> {
    match error {
        FlowError::Capture(CaptureError::Queue(
            QueueError::Reshaped { table } | QueueError::Mixed { table },
        )) => Some(table),
        _ => None,
    }
}

/// The error is about a table, or about some, that others need not wait for.
pub(crate) fn is_of_tables(error: &FlowError, work: &[TableWork]) -> bool {
    gap(error).is_some() || culprit(error, work).is_some()
}

/// Marks tables. All of it commits durably.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parking<'a> {
    pub(crate) target: &'a Session,
    pub(crate) key: &'a StreamKey,
    pub(crate) work: &'a [TableWork],
    pub(crate) events: &'a Events,
}

impl Parking<'_> {
    /// Sets the table aside that `error` is about. `false`: it is about none, or about one that is set aside already.
    pub(crate) async fn set_aside(&self, error: &FlowError) -> Result<bool, FlowError> {
        if let Some(source) = gap(error) {
            return self.give_up_gap(source, error).await;
        }
        let Some((table, verdict)) = culprit(error, self.work) else { return Ok(false) };
        let name = table.to_string();
        let records = checkpoint::read_tables(self.target, self.key).await?;
        // What waits is lost for a table that needs another copy.
        let follows = |state: TableState| match verdict {
            Verdict::Park => state == TableState::Streaming,
            Verdict::NeedsCopy => matches!(state, TableState::Streaming | TableState::Parked),
        };
        if !records.iter().any(|r| r.target_table == name && follows(r.state)) {
            return Ok(false);
        }
        let why = with_hint(error, self.key);
        match verdict {
            Verdict::Park => self.park(&table, &why).await?,
            Verdict::NeedsCopy => self.give_up(std::slice::from_ref(&table), &why).await?,
        }
        Ok(true)
    }

    /// Every target that `source` feeds needs another copy, also one whose changes wait. `false`: none is left that was followed.
    async fn give_up_gap(&self, source: &TableName, error: &FlowError) -> Result<bool, FlowError> {
        let mut fed = Vec::new();
        for record in checkpoint::read_tables(self.target, self.key).await? {
            let tables = checkpoint::known_storage(self.target, self.key, &record).await?;
            let follows = matches!(record.state, TableState::Streaming | TableState::Parked);
            if follows && tables.contains(source) {
                fed.extend(parse_table_name(&record.target_table));
            }
        }
        for table in &fed {
            let why = with_hint(error, self.key);
            self.give_up(std::slice::from_ref(table), &why).await?;
        }
        Ok(!fed.is_empty())
    }

    /// From the next start of the stream on, changes of `table` and of those tied to it wait.
    pub(crate) async fn park(&self, table: &TableName, why: &str) -> Result<(), FlowError> {
        let mut edges = Vec::new();
        for work in self.work {
            let constraints = read_table(self.target, &work.target).await?.map(|d| d.constraints);
            for other in constraints.unwrap_or_default().into_iter().filter_map(|c| c.references) {
                edges.push((work.target.clone(), other));
            }
        }
        let tied = tied(&edges, table);
        parked_store::park(self.target, self.key, &tied, table, why).await?;
        let with: Vec<String> = tied.iter().filter(|t| *t != table).map(ToString::to_string).collect();
        let with =
            if with.is_empty() { String::new() } else { format!(" (and {}, tied to it)", with.join(", ")) };
        self.events.warning(format!(
            "target table {table}{with} is parked, its changes wait in repcloud.parked, the other tables go on: {why}"
        ));
        Ok(())
    }

    /// The tables need another copy.
    pub(crate) async fn give_up(&self, tables: &[TableName], why: &str) -> Result<(), FlowError> {
        parked_store::give_up(self.target, self.key, tables, why).await?;
        for table in tables {
            self.events.warning(format!(
                "target table {table} is given up and needs another copy, the other tables go on: {why}"
            ));
        }
        Ok(())
    }

    /// Gives up what waits for too long a list of changes.
    pub(crate) async fn enforce(&self, limits: ParkLimits) -> Result<(), FlowError> {
        let records = checkpoint::read_tables(self.target, self.key).await?;
        let joining = records.iter().filter(|r| r.state == TableState::Copying).map(|r| vec![r]);
        for group in groups(&records).into_iter().map(|(_, group)| group).chain(joining) {
            let Some(over) = group.iter().find(|r| is_over(r, limits)) else { continue };
            let why = format!(
                "more changes waited for {} than repcloud keeps ({} changes or {} MB): {} changes, {} MB; they are deleted{}",
                over.target_table,
                limits.changes,
                limits.bytes >> 20,
                over.parked_changes,
                over.parked_bytes >> 20,
                over.error.as_ref().map(|e| format!(". It was stopped because: {e}")).unwrap_or_default(),
            );
            let why = format!("{why}; {}", reset_command(&self.key.source, &over.target_table, "recopy"));
            // Also those that are not configured any more.
            let names: Vec<TableName> =
                group.iter().filter_map(|r| parse_table_name(&r.target_table).ok()).collect();
            self.give_up(&names, &why).await?;
        }
        Ok(())
    }

    /// The target tables of these records that are configured.
    pub(crate) fn names(&self, records: &[&TableRecord]) -> Vec<TableName> {
        let targets = self.work.iter().map(|w| w.target.clone());
        targets.filter(|t| records.iter().any(|r| r.target_table == t.to_string())).collect()
    }
}

/// The error, with what can be done about it.
pub(crate) fn with_hint(error: &FlowError, key: &StreamKey) -> String {
    match error.hint(&key.source) {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn is_over(record: &TableRecord, limits: ParkLimits) -> bool {
    // The copy of a joining table may take long, and its end is certain.
    let factor = match record.state {
        TableState::Parked => 1,
        TableState::Copying => 10,
        _ => return false,
    };
    record.parked_changes > limits.changes * factor || record.parked_bytes > limits.bytes * factor
}

/// The parked tables, in groups that come back together.
pub(crate) fn groups(records: &[TableRecord]) -> Vec<(String, Vec<&TableRecord>)> {
    let mut groups: Vec<(String, Vec<&TableRecord>)> = Vec::new();
    for record in records.iter().filter(|r| r.state == TableState::Parked) {
        let with = record.parked_with.clone().unwrap_or_else(|| record.target_table.clone());
        match groups.iter_mut().find(|(name, _)| *name == with) {
            Some((_, group)) => group.push(record),
            None => groups.push((with, vec![record])),
        }
    }
    groups
}

/// `first` and all that foreign keys (`edges`) tie to it, in whatever direction and over however many steps.
fn tied(edges: &[(TableName, TableName)], first: &TableName) -> Vec<TableName> {
    let mut found = BTreeSet::from([first.clone()]);
    loop {
        let before = found.len();
        for (a, b) in edges {
            if found.contains(a) || found.contains(b) {
                found.extend([a.clone(), b.clone()]);
            }
        }
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// What is not in step when a stream ends, in words: one line a table. `gone`: target tables whose source table is not there.
pub(crate) fn unfinished(records: &[TableRecord], gone: &[String], key: &StreamKey) -> Vec<String> {
    let why = |r: &TableRecord| r.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
    let recopy = |r: &TableRecord| reset_command(&key.source, &r.target_table, "recopy");
    records
        .iter()
        .filter_map(|r| match r.state {
            TableState::Parked => {
                Some(format!("target table {} is parked, {} changes wait{}", r.target_table, r.parked_changes, why(r)))
            }
            // The reason says what can be done.
            TableState::NeedsCopy if gone.contains(&r.target_table) => {
                Some(format!("target table {} is not kept up{}", r.target_table, why(r)))
            }
            TableState::NeedsCopy | TableState::Failed => Some(format!(
                "target table {} needs another copy ({}, or --accept-target to go on with the rows that are there){}",
                r.target_table,
                recopy(r),
                why(r)
            )),
            TableState::Copying | TableState::Streaming => None,
        })
        .collect()
}

/// Until the stream should begin again for the sake of its parked tables: their changes are to be tried, or they are too
/// many. Shows meanwhile how many wait.
pub(crate) async fn until_due(
    target: &Session,
    key: &StreamKey,
    work: &[TableWork],
    (retry, limits): (Retry, ParkLimits),
    board: &Board,
) -> Result<(), StateError> {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    loop {
        let records = checkpoint::read_tables(target, key).await?;
        let ours = |r: &TableRecord| work.iter().any(|w| w.target.to_string() == r.target_table);
        let waits = records.iter().any(|r| r.state == TableState::Parked && ours(r));
        for record in &records {
            board.update_table(&record.target_table, |t| t.show(record));
        }
        if records.iter().any(|r| is_over(r, limits)) {
            return Ok(());
        }
        tokio::select! {
            () = sleep_until(retry.at), if waits => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_tie_tables_in_both_directions_and_over_others() {
        let t = |name: &str| TableName::new("public", name);
        let edges = [(t("line"), t("orders")), (t("orders"), t("customer")), (t("x"), t("y"))];
        assert_eq!(tied(&edges, &t("orders")), [t("customer"), t("line"), t("orders")]);
        assert_eq!(tied(&edges, &t("customer")), [t("customer"), t("line"), t("orders")]);
        assert_eq!(tied(&edges, &t("alone")), [t("alone")]);
    }
}
