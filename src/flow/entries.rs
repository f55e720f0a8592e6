//! The entries of the configuration become tables to replicate; what a wildcard cannot take is told.

use crate::apply::checkpoint;
use crate::apply::error::reset_command;
use crate::capture::publish::Finding;
use crate::capture::setup::{self, TableRequest};
use crate::catalog::{TableKind, list_tables};
use crate::flow::error::FlowError;
use crate::flow::options::EntryOptions;
use crate::flow::prepare::Preparation;
use crate::flow::queues;
use crate::flow::resolve::{self, Absent};
use crate::flow::work::TableWork;
use crate::model::{JobEvent, TableName, TablePattern};

impl Preparation<'_> {
    /// Entries → source tables, with their definitions.
    pub(crate) async fn resolve(&mut self) -> Result<(), FlowError> {
        let mut refused = Vec::new();
        let dropped = checkpoint::read_dropped(self.target, &self.options.key).await?;
        for entry in &self.options.entries {
            let names = self.names(entry, &dropped).await?;
            let requests: Vec<TableRequest> =
                names.into_iter().map(|name| resolve::request(entry, name)).collect();
            let (wanted, findings) = setup::read_wanted(self.source, &requests).await?;
            refused.extend(self.without_absent(entry, findings, &dropped).await?);
            for table in wanted {
                let mut work = TableWork {
                    source: table.table.clone(),
                    leaves: table.leaves.clone(),
                    target: entry.target_table.clone().unwrap_or_else(|| table.table.name.clone()),
                    entry: entry.clone(),
                };
                if self.options.by_triggers() {
                    queues::knows_whole_rows(&mut work);
                }
                self.work.push(work);
                self.wanted.push(table);
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(FlowError::refused_by_source(&refused)) }
    }

    /// The findings that are not about tables which the stream goes on without.
    async fn without_absent(
        &mut self,
        entry: &EntryOptions,
        findings: Vec<Finding>,
        dropped: &[String],
    ) -> Result<Vec<Finding>, FlowError> {
        if findings.is_empty() {
            return Ok(findings);
        }
        let there = resolve::relations(self.source, findings.iter().filter_map(|f| f.table.as_ref())).await?;
        let records = self.recorded().await?.1;
        let mut refused = Vec::new();
        for finding in findings {
            let Some(source) = finding.table.clone().filter(|name| !there.contains_key(name)) else {
                refused.push(finding);
                continue;
            };
            let target = entry.target_table.clone().unwrap_or_else(|| source.clone());
            match resolve::absent(&source, &target, &records, dropped) {
                Some(Absent::Gone) => self.gone.push((source, target)),
                Some(Absent::TakenOut) => self.events.once(JobEvent::Info(format!(
                    "source table {source} does not exist, and drop-table took it out; it is passed over"
                ))),
                None => refused.push(finding),
            }
        }
        Ok(refused)
    }

    /// `schema.*` is every table of the schema the mode can take; the others are named in a warning.
    async fn names(&mut self, entry: &EntryOptions, dropped: &[String]) -> Result<Vec<TableName>, FlowError> {
        let mut names = Vec::new();
        for pattern in &entry.tables {
            let schema = match pattern {
                TablePattern::Table(name) => {
                    names.push(name.clone());
                    continue;
                }
                TablePattern::Schema(schema) => schema,
            };
            let tables = list_tables(self.source, schema).await?.into_iter();
            let requests: Vec<TableRequest> = tables
                .filter(|(_, kind)| matches!(kind, TableKind::Ordinary | TableKind::Partitioned))
                .map(|(name, _)| TableRequest { condition: None, ..resolve::request(entry, name) })
                .collect();
            for (name, findings) in resolve::refusals(self.source, self.options, entry, &requests).await? {
                if dropped.contains(&name.to_string()) {
                    self.events.once(JobEvent::Info(format!(
                        "{pattern} passes over {name}, which drop-table took out; to take it in again, {}",
                        reset_command(&self.options.key.source, &name, "recopy")
                    )));
                } else if findings.is_empty() {
                    names.push(name);
                } else {
                    let told = format!("{pattern} leaves out {}", join(&findings));
                    self.events.once(JobEvent::Warning(told));
                    self.left_out.push(name);
                }
            }
        }
        Ok(names)
    }
}

/// All that was found, in one text.
pub(crate) fn join(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
