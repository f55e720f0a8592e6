//! The way on after a lost slot, a changed shape, a stopped table: what a person decides, carried out step by step so
//! that a crash in between leaves a stream that stops and says so, never one with a gap.

use crate::apply::checkpoint::{self, Checkpoint, StateError, TableRecord, TableState};
use crate::apply::parked_store;
use crate::capture::setup;
use crate::catalog::read_table;
use crate::copy::target::hindrance;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::hold::hold_stream;
use crate::flow::options::StreamOptions;
use crate::flow::own_rights;
use crate::flow::plugin;
use crate::flow::queue_setup;
use crate::flow::queues;
use crate::flow::resolve::{self, Configured, configured};
use crate::flow::start::{SlotFacts, SlotPlace, StopReason, SystemFacts};
use crate::flow::stream::{connect_source, connect_target};
use crate::model::{Events, Lsn, TableName};
use crate::pg::Session;
use crate::pg::replication::ReplicationClient;

/// What a person chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Empty the target and copy the rows again.
    Recopy,
    /// Keep the target's rows and go on from here.
    AcceptTarget,
    /// Take the source for the same one although its identity is another.
    AcceptSystem,
}

impl Choice {
    /// All of them.
    pub const ALL: [Choice; 3] = [Choice::Recopy, Choice::AcceptTarget, Choice::AcceptSystem];

    /// As the command line's option, without the dashes.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Recopy => "recopy",
            Choice::AcceptTarget => "accept-target",
            Choice::AcceptSystem => "accept-system",
        }
    }
}

/// For which tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The stream as a whole.
    All,
    /// These, by the name of the source or the target table.
    Tables(Vec<TableName>),
}

/// One table a reset speaks of.
#[derive(Debug, Clone, PartialEq)]
struct Affected {
    target: TableName,
    source: TableName,
    mode: &'static str,
    record: Option<TableRecord>,
    /// Why it cannot be copied again.
    hindrance: Option<String>,
}

/// A stream that is held (nobody else runs it), with what is known of it.
#[derive(Debug)]
pub struct Reset<'a> {
    options: &'a StreamOptions,
    scope: &'a Scope,
    events: &'a Events,
    source: Session,
    target: Session,
    checkpoint: Option<Checkpoint>,
    slot: Option<SlotFacts>,
    system: SystemFacts,
    tables: Vec<Affected>,
}

fn refused(text: String) -> FlowError {
    FlowError::Refused(vec![text])
}

impl<'a> Reset<'a> {
    /// Takes the stream's lock and reads what is there; nothing is changed but that schema `repcloud` is made where it
    /// is missing. Fails while another process runs the stream.
    pub async fn open(
        options: &'a StreamOptions,
        scope: &'a Scope,
        events: &'a Events,
    ) -> Result<Reset<'a>, FlowError> {
        let target = connect_target(options).await?;
        own_rights::check(&target).await?;
        checkpoint::ensure_schema(&target).await?;
        hold_stream(&target, &options.key).await?;
        let source = connect_source(options).await?;
        let by_triggers = options.by_triggers() || plugin::as_it_reads(options, &source).await?.by_triggers();
        let (system, slot) = if by_triggers {
            (queues::read_system(&source).await?, queues::read_standing(&source, options).await?)
        } else {
            let connected = ReplicationClient::connect(&options.source).await;
            let mut replication = connected.map_err(FlowError::Source)?;
            let system = facts::read_system(&mut replication).await?;
            (system, facts::read_slot(&source, &options.slot()).await?)
        };
        // Another database's is none of this stream's.
        let slot = slot.map(|s| s.facts).filter(|s| s.place == SlotPlace::Here);
        let checkpoint = checkpoint::read(&target, &options.key).await?;
        let mut this =
            Reset { options, scope, events, source, target, checkpoint, slot, system, tables: Vec::new() };
        this.tables = this.affected().await?;
        Ok(this)
    }

    /// True when the stream feeds at least one of the tables asked for.
    pub fn concerns_a_table(&self) -> bool {
        *self.scope == Scope::All || !self.tables.is_empty()
    }

    /// True when `name` is a table it speaks of.
    pub fn knows(&self, name: &TableName) -> bool {
        self.tables.iter().any(|t| t.source == *name || t.target == *name)
    }

    /// The configured tables the scope asks for, with what the target knows of them.
    async fn affected(&self) -> Result<Vec<Affected>, FlowError> {
        let records = checkpoint::read_tables(&self.target, &self.options.key).await?;
        let dropped = checkpoint::read_dropped(&self.target, &self.options.key).await?;
        let replica_role = facts::may_use_replica_role(&self.target).await?;
        let mut tables = Vec::new();
        for Configured { source, target, entry } in configured(&self.source, self.options).await? {
            let mode = entry.mode();
            let wanted = match self.scope {
                Scope::All => true,
                Scope::Tables(names) => names.contains(&source) || names.contains(&target),
            };
            if !wanted {
                continue;
            }
            let name = target.to_string();
            let record = records.iter().find(|r| r.target_table == name).cloned();
            // `schema.*` leaves out what the mode cannot take, or drop-table took out: a target table of that name is not ours to empty.
            if record.is_none() && !entry.names(&source) {
                let left_out = resolve::leaves_out(&self.source, self.options, entry, &source).await?;
                if *self.scope == Scope::All && dropped.contains(&name) || left_out {
                    continue;
                }
            }
            let hindrance = hindrance(&self.target, &target, replica_role).await?;
            tables.push(Affected { target, source, mode, record, hindrance });
        }
        Ok(tables)
    }

    /// What each choice would do now, one line each, for a person.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "stream {} → {}: {}",
            self.options.key.source,
            self.options.key.target,
            self.state()
        )];
        for choice in Choice::ALL {
            let name = choice.name();
            match self.effects(choice) {
                Ok(effects) => lines.extend(effects.into_iter().map(|e| format!("  --{name}: {e}"))),
                Err(error) => lines.push(format!("  --{name}: not possible, {error}")),
            }
        }
        lines
    }

    /// The stream's target connection.
    pub fn target_name(&self) -> &str {
        &self.options.key.target
    }

    /// Position and slot, in words.
    pub fn state(&self) -> String {
        let slot = self.options.slot();
        let position = match &self.checkpoint {
            None => "not begun".to_owned(),
            Some(c) if !c.ready => "being set up".to_owned(),
            Some(c) => format!("position {}", c.applied),
        };
        let slot = match &self.slot {
            None => format!("slot \"{slot}\" does not exist"),
            Some(s) if s.lost => format!("slot \"{slot}\" has lost WAL"),
            Some(s) => format!("slot \"{slot}\" is confirmed up to {}", s.confirmed),
        };
        format!("{position}, {slot}")
    }

    /// What `choice` does, or why it cannot be.
    pub fn effects(&self, choice: Choice) -> Result<Vec<String>, FlowError> {
        if let Some(pid) = self.slot.as_ref().and_then(|s| s.active_pid)
            && *self.scope == Scope::All
        {
            return Err(FlowError::Stopped(StopReason::SlotActive { slot: self.options.slot(), pid }));
        }
        if choice == Choice::Recopy {
            let hindrances = self.tables.iter().filter_map(|t| t.hindrance.clone()).collect::<Vec<_>>();
            if !hindrances.is_empty() {
                return Err(FlowError::Refused(hindrances));
            }
        }
        match (choice, self.scope) {
            (Choice::AcceptSystem, Scope::Tables(_)) => {
                Err(refused("--accept-system concerns the stream as a whole: use --all".to_owned()))
            }
            (Choice::AcceptSystem, Scope::All) => self.accept_system_effects(),
            (Choice::Recopy, Scope::Tables(_)) => Ok(self
                .tables
                .iter()
                .map(|t| format!("target table {} is emptied and copied again at the next start", t.target))
                .collect()),
            (Choice::AcceptTarget, Scope::Tables(_)) => self.tables.iter().map(accept_table).collect(),
            (Choice::Recopy, Scope::All) => {
                let mut effects = self.slot_effects();
                effects.extend(
                    self.tables
                        .iter()
                        .map(|t| format!("target table {} is emptied and copied again", t.target)),
                );
                Ok(effects)
            }
            (Choice::AcceptTarget, Scope::All) => self.accept_all_effects(),
        }
    }

    fn slot_effects(&self) -> Vec<String> {
        let slot = self.options.slot();
        if self.slot.as_ref().is_some_and(|s| s.plugin == queues::PLUGIN) {
            return vec![
                "triggers and queues that nobody else reads are dropped; the next start makes them anew"
                    .to_owned(),
            ];
        }
        match (&self.slot, &self.options.slot_name) {
            (_, Some(_)) => {
                vec![format!("slot \"{slot}\" is yours and stays; the stream begins where it is confirmed")]
            }
            (Some(_), None) => vec![format!("slot \"{slot}\" is dropped; the next start makes a new one")],
            (None, None) => vec![format!("the next start makes slot \"{slot}\" anew")],
        }
    }

    fn accept_all_effects(&self) -> Result<Vec<String>, FlowError> {
        if let Some(table) = self.unfinished() {
            return Err(refused(format!(
                "the first copy of target table {table} was not finished, its rows are not complete: --recopy"
            )));
        }
        if let (Some(_), Some(slot)) = (&self.options.slot_name, &self.slot)
            && !slot.lost
            && self.checkpoint.as_ref().is_some_and(|c| c.ready && slot.confirmed <= c.applied)
        {
            return Err(refused(format!(
                "slot \"{}\" can give everything since the target's position: start the stream",
                self.options.slot()
            )));
        }
        let mut effects = self.slot_effects();
        let since = self.checkpoint.as_ref().map_or(Lsn::INVALID, |c| c.applied);
        effects.push(format!(
            "the tables keep their rows; what the source wrote since {since} up to the new beginning is never applied (`repcloud verify` finds it, on_conflict says what becomes of rows that are missing)"
        ));
        Ok(effects)
    }

    fn unfinished(&self) -> Option<&TableName> {
        let copying = |t: &&Affected| t.record.as_ref().is_some_and(|r| r.state == TableState::Copying);
        self.tables.iter().find(copying).map(|t| &t.target)
    }

    fn accept_system_effects(&self) -> Result<Vec<String>, FlowError> {
        let slot = self.options.slot();
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|c| c.ready) else {
            return Err(refused("the stream has no position yet; start it".to_owned()));
        };
        let applied = checkpoint.applied;
        let now = &self.system;
        if (&checkpoint.system_id, checkpoint.timeline) == (&now.system_id, now.timeline) {
            return Err(refused(format!(
                "the source is the system it was ({}, timeline {})",
                now.system_id, now.timeline
            )));
        }
        match &self.slot {
            None => Err(FlowError::Stopped(StopReason::SlotMissing { slot, applied })),
            Some(s) if s.lost => Err(FlowError::Stopped(StopReason::SlotLost { slot, applied })),
            Some(s) if s.confirmed > applied => {
                Err(FlowError::Stopped(StopReason::SlotAhead { slot, confirmed: s.confirmed, applied }))
            }
            Some(_) => Ok(vec![format!(
                "the position {applied} is taken for one of system {}, timeline {} (was {}, timeline {}); only right when it is the same data",
                now.system_id, now.timeline, checkpoint.system_id, checkpoint.timeline
            )]),
        }
    }

    /// Does it. Durable when it returns.
    pub async fn carry_out(self, choice: Choice) -> Result<(), FlowError> {
        self.effects(choice)?;
        match (choice, self.scope) {
            (Choice::AcceptSystem, _) => {
                let key = &self.options.key;
                checkpoint::record_system(&self.target, key, &self.system.system_id, self.system.timeline)
                    .await?;
                // Another system may number its relations otherwise.
                for record in self.tables.iter().filter_map(|table| table.record.clone()) {
                    let record = TableRecord { source_oid: None, ..record };
                    checkpoint::write_table(&self.target, key, &record).await?;
                }
            }
            (Choice::Recopy, Scope::Tables(_)) => self.in_one_transaction(Self::mark_for_copy).await?,
            (Choice::AcceptTarget, Scope::Tables(_)) => self.in_one_transaction(Self::mark_accepted).await?,
            (Choice::Recopy, Scope::All) => {
                // The mark first: after a crash the stream is set up anew, whichever slot it finds.
                self.in_one_transaction(async |this| {
                    this.begin_anew().await?;
                    this.mark_for_copy().await
                })
                .await?;
                self.drop_slot().await?;
            }
            (Choice::AcceptTarget, Scope::All) => {
                // The slot first: with the old one the new beginning would repeat what is applied.
                self.drop_slot().await?;
                self.in_one_transaction(async |this| {
                    this.begin_anew().await?;
                    this.mark_accepted().await
                })
                .await?;
            }
        }
        self.target.close().await.map_err(FlowError::Target)
    }

    /// The session commits synchronously.
    async fn in_one_transaction(
        &self,
        work: impl AsyncFnOnce(&Self) -> Result<(), FlowError>,
    ) -> Result<(), FlowError> {
        let failed = |e: tokio_postgres::Error| FlowError::Target(e.into());
        self.target.batch_execute("BEGIN").await.map_err(failed)?;
        // An error ends the session, and with it the transaction.
        work(self).await?;
        self.target.batch_execute("COMMIT").await.map_err(failed)
    }

    async fn begin_anew(&self) -> Result<(), StateError> {
        let (key, slot) = (&self.options.key, self.options.slot());
        let (id, timeline) = (&self.system.system_id, self.system.timeline);
        match self.checkpoint {
            Some(_) => checkpoint::back_to_creating(&self.target, key, &slot, id, timeline).await,
            None => checkpoint::record_intention(&self.target, key, &slot, id, timeline).await,
        }
    }

    async fn drop_slot(&self) -> Result<(), FlowError> {
        if self.options.slot_name.is_none() && setup::drop_slot(&self.source, &self.options.slot()).await? {
            self.events.info(format!("slot \"{}\" dropped", self.options.slot()));
        }
        queue_setup::leave(self.options, &self.source, None, self.events).await
    }

    async fn mark_for_copy(&self) -> Result<(), FlowError> {
        for table in &self.tables {
            checkpoint::set_dropped(&self.target, &self.options.key, &table.target, false).await?;
            // A table that is neither known nor there is new: it is copied anyway.
            if table.record.is_none() && read_table(&self.target, &table.target).await?.is_none() {
                continue;
            }
            let record = TableRecord {
                state: TableState::Copying,
                error: None,
                rows_copied: 0,
                ..table.record.clone().unwrap_or_else(|| new_record(table))
            };
            let (client, key) = (&self.target, &self.options.key);
            checkpoint::write_table(client, key, &record).await?;
            // The rows will be copied as they are after all that waits.
            parked_store::forget(client, key, &[record.target_table]).await?;
        }
        Ok(())
    }

    async fn mark_accepted(&self) -> Result<(), FlowError> {
        for table in &self.tables {
            if read_table(&self.target, &table.target).await?.is_none() {
                match self.scope {
                    Scope::All => continue,
                    Scope::Tables(_) => {
                        return Err(refused(format!(
                            "target table {} does not exist, it cannot be accepted: --recopy makes and copies it",
                            table.target
                        )));
                    }
                }
            }
            checkpoint::set_dropped(&self.target, &self.options.key, &table.target, false).await?;
            let mut record = table.record.clone().unwrap_or_else(|| new_record(table));
            // What waits is still to be applied, which the next start does.
            let waits = record.state == TableState::Parked;
            record.state = if waits { TableState::Parked } else { TableState::Streaming };
            record.error = None;
            (record.source_oid, record.target_oid) = (None, None);
            record.known_columns.iter_mut().flatten().for_each(|column| column.accepted = true);
            if *self.scope == Scope::All && !waits {
                record.copied_at = Lsn::INVALID;
            }
            checkpoint::write_table(&self.target, &self.options.key, &record).await?;
        }
        Ok(())
    }
}

fn accept_table(table: &Affected) -> Result<String, FlowError> {
    match &table.record {
        Some(record) if record.state == TableState::Copying => Err(refused(format!(
            "the first copy of target table {} was not finished, its rows are not complete: --recopy",
            table.target
        ))),
        Some(record) if record.state == TableState::Parked => Ok(format!(
            "target table {} keeps its rows and columns as they are; the {} changes that wait for it are applied at the next start",
            table.target, record.parked_changes
        )),
        _ => Ok(format!("target table {} keeps its rows and columns as they are and goes on", table.target)),
    }
}

fn new_record(table: &Affected) -> TableRecord {
    TableRecord {
        target_table: table.target.to_string(),
        source_table: table.source.to_string(),
        source_oid: None,
        target_oid: None,
        mode: table.mode.to_owned(),
        state: TableState::Streaming,
        copied_at: Lsn::INVALID,
        made_by_us: false,
        known_columns: None,
        rows_copied: 0,
        rows_total: 0,
        error: None,
        parked_with: None,
        parked_changes: 0,
        parked_bytes: 0,
    }
}
