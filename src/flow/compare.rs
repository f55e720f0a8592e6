//! `verify`: the tables of a stream, compared while it runs or while it rests.

use std::sync::Arc;
use std::time::Duration;

use crate::apply::checkpoint::{self, StreamKey, TableRecord, TableState};
use crate::apply::error::reset_command;
use crate::apply::route::Delivery;
use crate::apply::state_read;
use crate::capture::trigger::stream_ticks::{self, Standing};
use crate::catalog::read_table;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::options::StreamOptions;
use crate::flow::plugin;
use crate::flow::resolve::{Configured, configured, leaves_out};
use crate::flow::stream::connect_source;
use crate::flow::work::TableWork;
use crate::model::{Lsn, TableName};
use crate::pg::{self, PgError, Session};
use crate::verify::{self, Progress, VerifyOptions, VerifyOutcome, VerifySpec};

/// How often the target's position is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ready to compare.
#[derive(Debug)]
pub struct Compare<'a> {
    options: &'a StreamOptions,
    source: Session,
    target: Session,
    follow: Follow,
    /// What to compare, in the order of the entries.
    pub specs: Vec<VerifySpec>,
    /// What a person should know before reading the result.
    pub notes: Vec<String>,
    /// Tables that are not there to be compared, in words.
    pub missing: Vec<String>,
    /// Tables asked for that were dropped from the stream, and what is to be said of each.
    pub dropped: Vec<(TableName, String)>,
}

/// Waits for the stream's position, on a session of its own.
#[derive(Debug, Clone)]
struct Follow {
    session: Arc<Session>,
    key: StreamKey,
    begun: bool,
    /// Of a stream by triggers.
    queues: Option<Queues>,
}

/// Where the ticks are that a stream by triggers counts its position in.
#[derive(Debug, Clone)]
struct Queues {
    source: Arc<Session>,
    consumer: String,
}

impl Queues {
    async fn standing(&self) -> Result<Option<Standing>, PgError> {
        stream_ticks::standing(&self.source, &self.consumer).await
    }
}

async fn connect_target(options: &StreamOptions) -> Result<Session, FlowError> {
    pg::connect(&options.target).await.map_err(FlowError::Target)
}

impl<'a> Compare<'a> {
    /// Finds the tables of the stream; `names` are source or target tables, none means all.
    pub async fn open(options: &'a StreamOptions, names: &[TableName]) -> Result<Compare<'a>, FlowError> {
        let (source, target) = (connect_source(options).await?, connect_target(options).await?);
        let session = Arc::new(connect_target(options).await?);
        let known = checkpoint::schema_version(&session).await?.is_some();
        let records = match known {
            true => checkpoint::read_tables(&session, &options.key).await?,
            false => Vec::new(),
        };
        let position = match known {
            true => checkpoint::read(&session, &options.key).await?.filter(|c| c.ready).map(|c| c.applied),
            false => None,
        };
        let queues = match plugin::as_it_reads(options, &source).await?.by_triggers() {
            true => {
                Some(Queues { source: Arc::new(connect_source(options).await?), consumer: options.slot() })
            }
            false => None,
        };
        let follow = Follow { session, key: options.key.clone(), begun: position.is_some(), queues };
        let (specs, notes, missing, dropped) = Default::default();
        let mut this = Compare { options, source, target, follow, specs, notes, missing, dropped };
        this.notes.extend(this.note(position).await?);
        this.find(names, &records).await?;
        Ok(this)
    }

    /// Where no process runs the stream, changes on their way are differences.
    async fn note(&self, position: Option<Lsn>) -> Result<Option<String>, FlowError> {
        let StreamKey { source, target } = &self.options.key;
        if self.follow.is_running().await? {
            return Ok(None);
        }
        let Some(position) = position else {
            return Ok(Some(format!("the stream {source} → {target} has not begun")));
        };
        if let Some(queues) = &self.follow.queues {
            let waits = queues.standing().await.map_err(FlowError::Source)?;
            return Ok(waits.filter(|s| s.waiting_seconds > 0.0 || s.last > position.0).map(|_| {
                format!(
                    "no process runs the stream {source} → {target}; what waits in its queues shows as differences"
                )
            }));
        }
        let behind = facts::source_end(&self.source).await?.bytes_since(position);
        Ok((behind > 0).then(|| {
            format!(
                "no process runs the stream {source} → {target}; what the source wrote since {position} ({behind} bytes of WAL) shows as differences"
            )
        }))
    }

    async fn find(&mut self, names: &[TableName], records: &[TableRecord]) -> Result<(), FlowError> {
        let dropped = checkpoint::read_dropped(&self.target, &self.options.key).await?;
        let tables = configured(&self.source, self.options).await?;
        self.find_dropped(names, &dropped, &tables);
        let there: Vec<String> = tables.iter().map(|t| t.target.to_string()).collect();
        for table in tables {
            if !names.is_empty() && !names.contains(&table.source) && !names.contains(&table.target) {
                continue;
            }
            let by_name = table.entry.names(&table.source);
            let target_name = table.target.to_string();
            let record = records.iter().find(|r| r.target_table == target_name);
            if record.is_none() && dropped.contains(&target_name) {
                if names.is_empty() {
                    self.notes.push(self.was_dropped(&table.target, Some(by_name)));
                }
                continue;
            }
            if !by_name && record.is_none() {
                self.tell_waiting(&table, !names.is_empty(), !records.is_empty()).await?;
                continue;
            }
            self.notes.extend(record.and_then(standing));
            let source = read_table(&self.source, &table.source).await?;
            let target = read_table(&self.target, &table.target).await?;
            if record.is_none() && source.is_some() && target.is_none() && names.is_empty() {
                self.missing.push(waits(&table));
                continue;
            }
            let (source, target) = match (source, target) {
                (Some(source), Some(target)) => (source, target),
                (source, _) => {
                    let (side, name) = match source {
                        None => ("source", &table.source),
                        Some(_) => ("target", &table.target),
                    };
                    let missing = format!("{side} table {name} does not exist");
                    if !names.is_empty() {
                        return Err(FlowError::Refused(vec![missing]));
                    }
                    self.missing.push(missing);
                    continue;
                }
            };
            let work = TableWork {
                source,
                leaves: Vec::new(),
                target: table.target.clone(),
                entry: table.entry.clone(),
            };
            let mut spec = VerifySpec::new(table.source, table.target, work.key(&target));
            spec.columns = table.entry.columns.clone().unwrap_or_default();
            spec.condition.clone_from(&table.entry.condition);
            spec.deleted_column =
                (table.entry.delivery == Delivery::LogDel).then(|| table.entry.deleted_column.clone());
            self.specs.push(spec);
        }
        self.tell_left_over(names, records, &there);
        if names.is_empty() && self.specs.is_empty() && self.missing.is_empty() {
            let StreamKey { source, target } = &self.options.key;
            self.missing
                .push(format!("no table of {source} → {target} can be compared: none has been copied"));
        }
        Ok(())
    }

    /// Tables of the stream that are not kept up and that no entry takes, most often because their source table is gone.
    fn tell_left_over(&mut self, names: &[TableName], records: &[TableRecord], there: &[String]) {
        let asked = |record: &TableRecord| {
            names.is_empty() || names.iter().any(|name| name.to_string() == record.target_table)
        };
        let stands_aside = |r: &&TableRecord| matches!(r.state, TableState::NeedsCopy | TableState::Failed);
        let left =
            records.iter().filter(stands_aside).filter(|r| !there.contains(&r.target_table) && asked(r));
        for record in left {
            self.missing.extend(standing(record).map(|standing| format!("not compared: {standing}")));
        }
    }

    /// A table of a whole schema of which nothing is recorded: one the mode cannot take, or one that is still to be taken in.
    async fn tell_waiting(
        &mut self,
        table: &Configured<'_>,
        asked_for: bool,
        begun: bool,
    ) -> Result<(), FlowError> {
        if leaves_out(&self.source, self.options, table.entry, &table.source).await? {
            return Ok(());
        }
        if asked_for {
            return Err(FlowError::Refused(vec![waits(table)]));
        }
        // Of a stream that has not begun it is said once for all.
        self.missing.extend(begun.then(|| waits(table)));
        Ok(())
    }

    /// A person who asks for a table that was dropped from the stream is told just that.
    fn find_dropped(&mut self, names: &[TableName], dropped: &[String], tables: &[Configured<'_>]) {
        for name in names.iter().filter(|name| dropped.contains(&name.to_string())) {
            let entry = tables.iter().find(|t| t.target == *name);
            let by_name = |t: &Configured<'_>| t.entry.names(&t.source);
            self.dropped.push((name.clone(), self.was_dropped(name, entry.map(by_name))));
        }
    }

    /// `by_name`: how an entry takes it now; `None`: none does.
    fn was_dropped(&self, table: &TableName, by_name: Option<bool>) -> String {
        let again = match by_name {
            Some(true) => {
                "the configuration still names it, so the next start of the stream takes it in again"
                    .to_owned()
            }
            Some(false) => {
                format!("to take it in again, {}", reset_command(&self.options.key.source, table, "recopy"))
            }
            None => "to take it in again, name it in an entry of the configuration and start the stream"
                .to_owned(),
        };
        format!("target table {table} was taken out of the stream by drop-table, it is not compared; {again}")
    }

    /// Compares one table; with `count`, numbers of rows only.
    pub async fn table(
        &self,
        spec: &VerifySpec,
        count: bool,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<VerifyOutcome, FlowError> {
        let options = VerifyOptions::default();
        let wait = |lsn| {
            let follow = self.follow.clone();
            async move { follow.wait(lsn).await }
        };
        Ok(match count {
            true => verify::count(&self.source, &self.target, spec, &options, wait, progress).await?,
            false => verify::verify(&self.source, &self.target, spec, &options, wait, progress).await?,
        })
    }
}

fn waits(table: &Configured<'_>) -> String {
    format!(
        "source table {} waits: the stream has not taken it in yet, it is not compared with target table {}",
        table.source, table.target
    )
}

/// Why a table's rows are not, or not yet, those of the source.
fn standing(record: &TableRecord) -> Option<String> {
    let table = &record.target_table;
    match record.state {
        TableState::Streaming => None,
        TableState::Copying => {
            Some(format!("target table {table}: its first copy is not finished, rows are missing"))
        }
        TableState::Parked => Some(format!(
            "target table {table} is parked: {} changes wait for it and show as differences",
            record.parked_changes
        )),
        TableState::NeedsCopy | TableState::Failed => Some(format!(
            "target table {table} needs another copy, its rows are not kept up{}",
            record.error.as_ref().map(|e| format!(": {e}")).unwrap_or_default()
        )),
    }
}

impl Follow {
    async fn is_running(&self) -> Result<bool, FlowError> {
        Ok(state_read::lock_holder(&self.session, &self.key).await?.is_some())
    }

    /// Until the target's position is at `lsn`; at once where nobody moves it. The caller limits the time.
    async fn wait(&self, lsn: Lsn) -> Result<(), String> {
        if !self.begun {
            return Ok(());
        }
        if let Some(queues) = &self.queues {
            return self.wait_for_tick(queues).await;
        }
        let wanted = facts::past_page_header(lsn);
        self.want(wanted).await?;
        while !self.is_at(wanted).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Until everything that is visible on the source when this is called is in the target.
    async fn wait_for_tick(&self, queues: &Queues) -> Result<(), String> {
        let mut safe = None;
        loop {
            let standing = queues.standing().await.map_err(|e| e.to_string())?;
            let Some(standing) = standing else { return Ok(()) };
            // The next tick may be on its way, with a snapshot of before; the one behind it was not taken yet.
            let safe = *safe.get_or_insert(standing.last + 2);
            // Where nothing waits, the last tick shows everything.
            let wanted = if standing.waiting_seconds > 0.0 { safe } else { safe.min(standing.last) };
            self.want(Lsn(wanted)).await?;
            if self.is_at(Lsn(wanted)).await? {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn want(&self, position: Lsn) -> Result<(), String> {
        state_read::want_position(&self.session, &self.key, position).await.map_err(|e| e.to_string())
    }

    /// The target is there, or nobody brings it there.
    async fn is_at(&self, wanted: Lsn) -> Result<bool, String> {
        let row = checkpoint::read(&self.session, &self.key).await.map_err(|e| e.to_string())?;
        let there = row.is_none_or(|row| row.applied >= wanted);
        Ok(there || !self.is_running().await.map_err(|e| e.to_string())?)
    }
}
