//! Where the changes of each table go now: into it, aside, or nowhere; and which tables come back.

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::apply::error::reset_command;
use crate::apply::parked_store;
use crate::apply::route::{ParkedRoute, Route, RouteTable};
use crate::catalog::{TableDef, read_table};
use crate::flow::casts;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::join::Joining;
use crate::flow::parking::{Parking, Verdict, culprit, groups, with_hint};
use crate::flow::prepare::{Preparation, Shapes};
use crate::flow::queues;
use crate::flow::start::TableFact;
use crate::flow::unpark::unpark;
use crate::flow::work::{self, TableWork, TargetFinding};
use crate::model::name::parse_table_name;
use crate::model::{Lsn, TableName};

impl Preparation<'_> {
    pub(crate) fn parking(&self) -> Parking<'_> {
        Parking { target: self.target, key: &self.options.key, work: &self.work, events: self.events }
    }

    /// Sets aside what no longer fits, gives up what waits for too long a list, and, with `try_parked`, lets those come back
    /// that can.
    pub(crate) async fn settle(&mut self, generation: i64, try_parked: bool) -> Result<(), FlowError> {
        self.parking().enforce(self.options.park).await?;
        let given_up: Vec<String> = checkpoint::read_tables(self.target, &self.options.key)
            .await?
            .into_iter()
            .filter(|r| r.state == TableState::NeedsCopy)
            .map(|r| r.target_table)
            .collect();
        self.joining.retain(|j| !given_up.contains(&j.table.to_string()));
        let parking = self.parking();
        // What an earlier attempt kept is in the rows that will be copied.
        let names: Vec<String> = self.joining.iter().map(|j| j.table.to_string()).collect();
        parked_store::forget(self.target, &self.options.key, &names).await?;
        for work in &self.work {
            let record = self.record(work).await?;
            if record.as_ref().is_some_and(|r| r.state == TableState::Streaming)
                && let Err(error) = self.fit(work, record.as_ref()).await?
            {
                parking.park(&work.target, &error.to_string()).await?;
            }
        }
        if !try_parked {
            return Ok(());
        }
        let records = checkpoint::read_tables(self.target, &self.options.key).await?;
        for (_, group) in groups(&records) {
            self.bring_back(generation, &group).await?;
        }
        Ok(())
    }

    /// Applies what waits for a group of tables, or says anew why that cannot be.
    async fn bring_back(&self, generation: i64, group: &[&TableRecord]) -> Result<(), FlowError> {
        let (key, parking) = (&self.options.key, self.parking());
        let names = parking.names(group);
        let mut routes = Vec::with_capacity(names.len());
        for work in self.work.iter().filter(|w| names.contains(&w.target)) {
            let record = group.iter().find(|r| r.target_table == work.target.to_string());
            match self.fit(work, record.copied()).await? {
                Ok((route, _)) => routes.push(route),
                Err(error) => {
                    self.events.warning(format!("target table {} stays parked: {error}", work.target));
                    let why = error.to_string();
                    return Ok(parked_store::park(self.target, key, &names, &work.target, &why).await?);
                }
            }
        }
        if routes.is_empty() {
            return Ok(());
        }
        let list = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let waiting: i64 = group.iter().map(|r| r.parked_changes).sum();
        self.events.info(format!("applying {waiting} changes that waited for {list}"));
        let error = match unpark(self.options, self.target, generation, self.replica_role, routes).await {
            Ok(()) => {
                self.events.info(format!("{list}: everything that waited is applied"));
                return Ok(());
            }
            Err(error) => error,
        };
        let why = with_hint(&error, key);
        match culprit(&error, &self.work) {
            Some((table, Verdict::Park)) => {
                self.events.warning(format!("target table {table} stays parked: {why}"));
                Ok(parked_store::park(self.target, key, &names, &table, &why).await?)
            }
            Some((table, Verdict::NeedsCopy)) => parking.give_up(&[table], &why).await,
            None => Err(error),
        }
    }

    /// The route of a table with its definition, or why the target does not fit. The outer error is another one.
    async fn fit(
        &self,
        work: &TableWork,
        record: Option<&TableRecord>,
    ) -> Result<Result<(Route, TableDef), FlowError>, FlowError> {
        let Some(target) = read_table(self.target, &work.target).await? else {
            let gone = TargetFinding {
                table: work.target.clone(),
                problem: format!(
                    "it has gone; give it its name back where it was renamed, or have it copied again; {}",
                    reset_command(&self.options.key.source, &work.target, "recopy")
                ),
                help: None,
            };
            return Ok(Err(FlowError::refused_by_target(&[gone])));
        };
        let casts = casts::findings(self.target, &target).await?;
        if !casts.is_empty() {
            return Ok(Err(FlowError::refused_by_target(&casts)));
        }
        Ok(match work::route(work, &target, record, self.replica_role) {
            Ok(route) => Ok((route, target)),
            Err(findings) => Err(FlowError::refused_by_target(&findings)),
        })
    }

    /// Tables to copy are copied beside the stream where others stream already. Not where foreign keys stay awake: there
    /// rows must come in the order of the references.
    pub(crate) fn put_aside_joining(
        &mut self,
        ready: bool,
        records: &[TableRecord],
        tables: &mut [(TableName, TableFact)],
    ) {
        let streams = |r: &TableRecord| matches!(r.state, TableState::Streaming | TableState::Parked);
        let ours = |r: &TableRecord| tables.iter().any(|(name, _)| name.to_string() == r.target_table);
        // Under a snapshot that this process holds, it is copied at once.
        if !ready
            || !self.replica_role
            || self.snapshot.is_some()
            || !records.iter().any(|r| streams(r) && ours(r))
        {
            return;
        }
        self.joining.clear();
        for (table, fact) in tables {
            let empty = match fact {
                TableFact::New { rows: false, copy: true } => false,
                TableFact::CopyCutOff => true,
                _ => continue,
            };
            self.joining.push(Joining { table: table.clone(), empty });
            *fact = TableFact::Aside;
        }
    }

    async fn record(&self, work: &TableWork) -> Result<Option<TableRecord>, FlowError> {
        let records = checkpoint::read_tables(self.target, &self.options.key).await?;
        Ok(records.into_iter().find(|r| r.target_table == work.target.to_string()))
    }

    /// A position behind which nothing lies that has committed by now.
    async fn here(&self) -> Result<Lsn, FlowError> {
        match self.options.by_triggers() {
            true => queues::next_tick(self.source, self.options).await,
            false => facts::source_end(self.source).await,
        }
    }

    /// All routes, by the states of the tables, and the shapes to record later.
    pub(crate) async fn routes(&self) -> Result<(RouteTable, Shapes), FlowError> {
        let mut shapes = Shapes { at: self.here().await?, tables: Vec::new() };
        let (mut routes, mut parked) = (Vec::with_capacity(self.work.len()), Vec::new());
        for work in self.work.iter().filter(|w| !self.waiting.contains(&w.target)) {
            let record = self.record(work).await?;
            let joins = self.joining.iter().any(|j| j.table == work.target);
            match record.as_ref().map(|r| r.state) {
                state if joins || state == Some(TableState::Parked) => parked.push(ParkedRoute {
                    key: self.options.key.clone(),
                    published: work.published(),
                    target: work.target.clone(),
                }),
                Some(TableState::NeedsCopy | TableState::Failed) => {}
                _ => {
                    let (route, target) = self.fit(work, record.as_ref()).await??;
                    let known = record.as_ref().and_then(|r| r.known_columns.as_deref());
                    let now = work.fingerprint();
                    if known != Some(now.as_slice()) && work.is_settled(known, &target) {
                        shapes.tables.push((work.target.clone(), now));
                    }
                    routes.push(route);
                }
            }
        }
        parked.extend(self.parked_without_entry().await?);
        Ok((RouteTable::new(routes).with_parked(parked), shapes))
    }

    /// Tables that wait for their entry of the configuration.
    async fn parked_without_entry(&self) -> Result<Vec<ParkedRoute>, FlowError> {
        let key = &self.options.key;
        let mut parked = Vec::new();
        for record in checkpoint::read_tables(self.target, key).await? {
            let ours = self.work.iter().any(|w| w.target.to_string() == record.target_table);
            let Ok(target) = parse_table_name(&record.target_table) else { continue };
            if record.state == TableState::Parked && !ours {
                let published = checkpoint::known_storage(self.target, key, &record).await?;
                parked.push(ParkedRoute { key: key.clone(), published, target });
            }
        }
        Ok(parked)
    }
}
