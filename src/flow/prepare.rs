//! Carries out the steps that `start` decides, until the stream can begin.

use std::collections::BTreeMap;

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::apply::route::{RouteTable, ShapeFingerprint};
use crate::apply::target_relation;
use crate::apply::writers;
use crate::capture::publish::{self, WantedTable};
use crate::capture::setup::{self, LockLimits};
use crate::capture::trigger::StreamTable;
use crate::flow::control;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::first_rows::{self, CopyFailed, FirstRows};
use crate::flow::followed;
use crate::flow::hold::hold_stream_again;
use crate::flow::join::{Joining, temporary_slot};
use crate::flow::leaves;
use crate::flow::options::StreamOptions;
use crate::flow::own_rights;
use crate::flow::queue_rights;
use crate::flow::queue_setup;
use crate::flow::queues;
use crate::flow::remade;
use crate::flow::replaced;
use crate::flow::slot::{self, Making, SlotKind};
use crate::flow::start::{Facts, Step, SystemFacts, TableFact, next_step};
use crate::flow::work::{TableWork, new_record};
use crate::model::{Events, Lsn, TableName};
use crate::pg::Session;
use crate::pg::replication::ReplicationClient;

/// A stream that can begin.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) routes: RouteTable,
    pub(crate) from: Lsn,
    pub(crate) confirmed: Lsn,
    pub(crate) publications: Vec<String>,
    pub(crate) replica_role: bool,
    pub(crate) generation: i64,
    /// What is read of the queues, by triggers.
    pub(crate) tables: Vec<StreamTable>,
    /// Tables whose triggers are to be made while the others stream, and what is wanted of them.
    pub(crate) waiting: (Vec<TableWork>, Vec<WantedTable>),
    pub(crate) work: Vec<TableWork>,
    /// Tables to copy while the others stream.
    pub(crate) joining: Vec<Joining>,
    /// Shapes to be recorded once the changes on their way have passed.
    pub(crate) shapes: Shapes,
    /// Tables whose rows were copied by this preparation.
    pub(crate) fresh: Vec<TableName>,
    /// Target tables of a wildcard that the mode cannot take.
    pub(crate) left_out: Vec<TableName>,
    /// Target tables that entries name, whose source table is gone.
    pub(crate) gone: Vec<TableName>,
}

/// The source's columns as they were when everything up to `at` was written.
#[derive(Debug)]
pub(crate) struct Shapes {
    pub(crate) at: Lsn,
    pub(crate) tables: Vec<(TableName, Vec<ShapeFingerprint>)>,
}

/// What a process holds while it prepares.
pub(crate) struct Preparation<'a> {
    pub(crate) options: &'a StreamOptions,
    pub(crate) source: &'a Session,
    /// Holds the advisory lock; commits synchronously.
    pub(crate) target: &'a Session,
    making: &'a Making,
    pub(crate) events: &'a Events,
    pub(crate) view: &'a crate::flow::status::Board,
    /// `None` with triggers.
    pub(crate) replication: Option<ReplicationClient>,
    system: SystemFacts,
    pub(crate) replica_role: bool,
    pub(crate) work: Vec<TableWork>,
    pub(crate) wanted: Vec<WantedTable>,
    pub(crate) published: bool,
    publications: Vec<String>,
    pub(crate) snapshot: Option<FirstRows>,
    begun: Vec<TableName>,
    fresh: Vec<TableName>,
    pub(crate) joining: Vec<Joining>,
    /// By triggers: target tables that join once their triggers are made.
    pub(crate) waiting: Vec<TableName>,
    /// Whether a target table holds rows although nothing is recorded of it. Asked once: the facts are read before
    /// every step, and there is a step a table.
    pub(crate) rows_before: BTreeMap<TableName, bool>,
    /// New tables that the running stream cannot take, and why.
    pub(crate) unfit: Vec<(TableName, String)>,
    pub(crate) left_out: Vec<TableName>,
    /// Source and target tables of entries, where the source table was followed and is gone.
    pub(crate) gone: Vec<(TableName, TableName)>,
    /// Generated columns that target tables lack, in words.
    pub(crate) generated: Vec<String>,
}

impl<'a> Preparation<'a> {
    /// Connects in replication mode, resolves the entries into tables and runs every check that changes nothing.
    pub(crate) async fn new(
        options: &'a StreamOptions,
        source: &'a Session,
        target: &'a Session,
        making: &'a Making,
        (events, view): (&'a Events, &'a crate::flow::status::Board),
    ) -> Result<Self, FlowError> {
        own_rights::check(target).await?;
        if options.by_triggers() {
            queue_rights::check_schema(source).await?;
        }
        let slot_there = facts::read_place(source, options).await?.is_some();
        let (replication, system) = facts::connect(options, source, slot_there).await?;
        let replica_role = facts::may_use_replica_role(target).await?;
        let mut this = Preparation {
            options,
            source,
            target,
            making,
            events,
            view,
            replication,
            system,
            replica_role,
            work: Vec::new(),
            wanted: Vec::new(),
            published: false,
            publications: Vec::new(),
            snapshot: None,
            begun: Vec::new(),
            fresh: Vec::new(),
            joining: Vec::new(),
            waiting: Vec::new(),
            rows_before: BTreeMap::new(),
            unfit: Vec::new(),
            left_out: Vec::new(),
            gone: Vec::new(),
            generated: Vec::new(),
        };
        followed::withdraw(source, options, events).await?;
        if options.by_triggers() {
            queues::refuse_change_of_capture(source, options).await?;
        }
        this.resolve().await?;
        this.check_plugin(slot_there).await?;
        this.check_publication().await?;
        this.check_targets().await?;
        this.refuse_to_begin().await?;
        this.show(&[]);
        Ok(this)
    }

    /// Steps until the stream can begin. `owned`: the generation as which this process streamed before it lost a
    /// connection. With `try_parked`, changes that wait are applied where that is possible now.
    pub(crate) async fn run(
        mut self,
        owned: Option<i64>,
        try_parked: bool,
    ) -> Result<(Ready, Option<ReplicationClient>), FlowError> {
        checkpoint::ensure_schema(self.target).await?;
        self.view.update(|view| view.held = false);
        hold_stream_again(self.target, &self.options.key, owned).await?;
        if self.options.by_triggers() {
            // An earlier process's reader writes no tick any more.
            writers::end_writers(self.source, &self.options.key).await?;
        }
        if owned.is_none() {
            control::forget(self.target, self.options).await?;
            self.generated.drain(..).for_each(|told| self.events.warning(told));
        }
        // From here on requests and the status file are ours.
        self.view.update(|view| view.held = true);
        self.leave_out_gone().await?;
        for error in leaves::changed(self.target, &self.options.key, &self.work).await? {
            self.parking().set_aside(&error).await?;
        }
        for error in replaced::find((self.source, self.target), &self.options.key, &self.work).await? {
            self.parking().set_aside(&error).await?;
        }
        for error in remade::find(self.target, &self.options.key, &self.work).await? {
            self.parking().set_aside(&error).await?;
        }
        // Where the stream begins anew, what passed by is in the copy, or a person has accepted the gap.
        if checkpoint::read(self.target, &self.options.key).await?.is_some_and(|c| c.ready) {
            followed::mark_gaps(self.source, self.target, self.options, &self.work, self.events).await?;
            if self.options.by_triggers() {
                queues::mark_gaps(self.source, self.target, self.options, &self.work, self.events).await?;
            }
        }
        self.take_in_again().await?;
        self.leave_out_unfit().await?;
        self.let_wait().await?;
        loop {
            let facts = self.facts().await?;
            match next_step(&facts) {
                Step::Stream { from, new_timeline } => {
                    if let Some(timeline) = new_timeline {
                        let key = &self.options.key;
                        checkpoint::record_system(self.target, key, &self.system.system_id, timeline).await?;
                    }
                    let confirmed = facts.slot.map_or(from, |s| s.confirmed);
                    let (generation, from) = self.take_over(from).await?;
                    self.settle(generation, try_parked).await?;
                    self.show(&checkpoint::read_tables(self.target, &self.options.key).await?);
                    let (routes, shapes) = self.routes().await?;
                    let tables = self.queued_tables().await?;
                    let waits = |w: &&TableWork| self.waiting.contains(&w.target);
                    let waiting = self.work.iter().filter(waits).cloned().collect();
                    let ready = Ready {
                        routes,
                        shapes,
                        from,
                        confirmed,
                        publications: self.publications,
                        replica_role: self.replica_role,
                        tables,
                        waiting: (waiting, self.wanted),
                        generation,
                        work: self.work,
                        fresh: self.fresh,
                        joining: self.joining,
                        left_out: self.left_out,
                        gone: self.gone.into_iter().map(|(_, target)| target).collect(),
                    };
                    return Ok((ready, self.replication));
                }
                Step::Stop(reason) => return Err(FlowError::Stopped(reason)),
                step => self.perform(step).await?,
            }
        }
    }

    /// The generation, and the position as it stands now that nobody else can move it.
    async fn take_over(&self, decided: Lsn) -> Result<(i64, Lsn), FlowError> {
        let (generation, from) = checkpoint::take_over(self.target, &self.options.key).await?;
        if from < decided {
            return Err(FlowError::Internal(format!("the position went back from {decided} to {from}")));
        }
        Ok((generation, from))
    }

    async fn perform(&mut self, step: Step) -> Result<(), FlowError> {
        let key = self.options.key.clone();
        match step {
            Step::Publish => self.publish().await?,
            Step::RecordIntention => {
                let (id, timeline) = (&self.system.system_id, self.system.timeline);
                checkpoint::record_intention(self.target, &key, &self.options.slot(), id, timeline).await?;
            }
            Step::CreateSlot => {
                let at = self.make_slot(&self.options.slot(), false).await?;
                if !self.options.by_triggers() {
                    self.events.info(format!("slot \"{}\" made at {at}", self.options.slot()));
                }
            }
            Step::RecordSlot { at } => checkpoint::record_slot(self.target, &key, at).await?,
            Step::TakeSnapshot => {
                let name = temporary_slot(self.options);
                self.make_slot(&name, true).await?;
            }
            Step::BeginCopy { table, at, empty } => {
                let work = self.work_of(&table)?.clone();
                match first_rows::begin(self.target, self.source, &key, &work, at, empty, self.events).await {
                    Ok(()) => self.begun.push(table),
                    Err(error) => self.go_on_without(&table, error).await?,
                }
            }
            Step::CopyRows => {
                let Some(snapshot) = &self.snapshot else {
                    return Err(FlowError::Internal("a copy without a snapshot".into()));
                };
                let work: Vec<&TableWork> =
                    self.work.iter().filter(|w| self.begun.contains(&w.target)).collect();
                let copied = snapshot.copy(self.options, self.target, &work, self.events, self.view).await;
                match copied {
                    Ok(()) => self.fresh.append(&mut self.begun),
                    Err(CopyFailed { table: None, error }) => return Err(error),
                    Err(CopyFailed { table: Some(table), error }) => {
                        // What the others have so far counts as cut off.
                        self.begun.clear();
                        self.go_on_without(&table, error).await?;
                    }
                }
            }
            Step::Adopt { table } => {
                let work = self.work_of(&table)?;
                let record = new_record(work, TableState::Streaming, Lsn::INVALID);
                checkpoint::write_table(self.target, &key, &record).await?;
                target_relation::record(self.target, &key, &table, None).await?;
                leaves::record(self.target, &key, work).await?;
            }
            Step::ReleaseSnapshot => {
                if let Some(snapshot) = self.snapshot.take() {
                    snapshot.release().await?;
                }
            }
            Step::Stream { .. } | Step::Stop(_) => {}
        }
        Ok(())
    }

    pub(crate) fn work_of(&self, target: &TableName) -> Result<&TableWork, FlowError> {
        self.work
            .iter()
            .find(|w| w.target == *target)
            .ok_or_else(|| FlowError::Internal(format!("no entry feeds {target}")))
    }

    /// Whether everything wanted is published, or what stands in the way.
    async fn check_publication(&mut self) -> Result<publish::PublicationPlan, FlowError> {
        if self.options.by_triggers() {
            self.published = self.check_queues().await?;
            return Ok(publish::PublicationPlan::default());
        }
        let source = setup::read_source(self.source).await?;
        let facts = setup::read_table_facts(self.source, &self.wanted).await?;
        if let Some(given) = &self.options.publication {
            let existing = setup::read_publications(self.source, std::slice::from_ref(given)).await?;
            let findings = publish::check_ready_made(given, existing.first(), &source, &facts, &self.wanted);
            if !findings.is_empty() {
                return Err(FlowError::refused_by_source(&findings));
            }
            self.published = true;
            self.publications = vec![given.clone()];
            return Ok(publish::PublicationPlan::default());
        }
        let name = self.options.default_name();
        let names = [name.clone(), publish::insert_publication(&name)];
        let existing = setup::read_publications(self.source, &names).await?;
        let plan = publish::plan(&name, &source, &facts, &self.wanted, &existing)
            .map_err(|findings| FlowError::refused_by_source(&findings))?;
        self.published = plan.statements.is_empty();
        self.publications = plan.publications.clone();
        Ok(plan)
    }

    async fn publish(&mut self) -> Result<(), FlowError> {
        let plan = self.check_publication().await?;
        if self.options.by_triggers() {
            let (options, source) = (self.options, self.source);
            queue_setup::subscribe(options, source, &self.work, &self.wanted, self.events).await?;
            self.published = true;
            return Ok(());
        }
        setup::apply_plan(self.source, &plan, &self.wanted, LockLimits::default()).await?;
        self.events.info(format!(
            "published {} tables as {}",
            plan.added.len(),
            self.publications.join(", ")
        ));
        self.published = true;
        Ok(())
    }

    pub(crate) async fn facts(&mut self) -> Result<Facts, FlowError> {
        let options = self.options;
        let (row, records) = self.recorded().await?;
        let runs = row.as_ref().is_some_and(|r| r.ready);
        self.look_for_rows(&records, runs).await?;
        let records = if runs { self.leave_out_full(records).await? } else { records };
        let mut tables = Vec::with_capacity(self.work.len());
        let targets: Vec<_> = self.work.iter().map(|w| (w.target.clone(), w.entry.copy)).collect();
        for (target, copy) in targets {
            let name = target.to_string();
            let fact = match records.iter().find(|r| r.target_table == name).map(|r| r.state) {
                Some(TableState::Streaming) => TableFact::Copied,
                Some(TableState::Copying) if self.begun.contains(&target) => TableFact::Copying,
                Some(TableState::Copying) => TableFact::CopyCutOff,
                Some(TableState::Parked | TableState::NeedsCopy | TableState::Failed) => TableFact::Aside,
                None => {
                    TableFact::New { rows: self.rows_before.get(&target).is_some_and(|rows| *rows), copy }
                }
            };
            tables.push((target, fact));
        }
        for (_, fact) in tables.iter_mut().filter(|(table, _)| self.waiting.contains(table)) {
            *fact = TableFact::Aside;
        }
        self.put_aside_joining(row.as_ref().is_some_and(|r| r.ready), &records, &mut tables);
        self.show(&records);
        Ok(Facts {
            system: self.system.clone(),
            slot_name: options.slot(),
            slot_is_given: options.slot_name.is_some(),
            slot: facts::read_place(self.source, options).await?.map(|s| s.facts),
            plugin: if options.by_triggers() { queues::PLUGIN } else { options.plugin().as_str() }.to_owned(),
            published: self.published,
            checkpoint: row.map(facts::of_checkpoint),
            snapshot: self.snapshot.as_ref().map(FirstRows::at),
            tables,
        })
    }

    /// Puts the tables on the board, with what was known of them before.
    fn show(&self, records: &[TableRecord]) {
        self.view.update(|view| {
            let before = std::mem::take(&mut view.tables);
            for work in &self.work {
                let name = work.target.to_string();
                let known = before.iter().find(|t| t.target_table == name).cloned();
                let mut table = known.unwrap_or_else(|| work.view());
                if let Some(record) = records.iter().find(|r| r.target_table == name) {
                    table.show(record);
                }
                view.tables.push(table);
            }
        });
    }

    /// Makes a slot and takes its snapshot over into a session that holds it.
    async fn make_slot(&mut self, name: &str, temporary: bool) -> Result<Lsn, FlowError> {
        let Some(replication) = &mut self.replication else {
            let snapshot = self.tick().await?;
            let at = snapshot.at();
            self.snapshot = Some(snapshot);
            return Ok(at);
        };
        let failover = !temporary && replication.server_version() >= 170_000;
        let kind = SlotKind { temporary, failover, plugin: self.options.plugin() };
        let slot = slot::create(replication, self.source, name, kind, self.making, self.events).await?;
        let exported = slot.snapshot_name.unwrap_or_default();
        self.snapshot = Some(FirstRows::hold(&self.options.source, &exported, slot.consistent_point).await?);
        if temporary {
            replication.drop_slot(name, false).await.map_err(FlowError::Source)?;
        }
        Ok(slot.consistent_point)
    }
}
