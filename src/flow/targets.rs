//! Target tables, before anything is changed: whether those that are there fit, and whether the others can be made.

use std::collections::{BTreeMap, BTreeSet};

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::catalog::{TableDef, read_tables};
use crate::copy::target::rows_exist;
use crate::flow::casts;
use crate::flow::circles;
use crate::flow::error::FlowError;
use crate::flow::first_rows;
use crate::flow::prepare::Preparation;
use crate::flow::unfit::generated_later;
use crate::flow::work::{self, TableWork};
use crate::model::{RetryAdvice, TableName};

impl Preparation<'_> {
    /// Checks target tables that exist; those that are missing will be made.
    pub(crate) async fn check_targets(&mut self) -> Result<(), FlowError> {
        let mut findings = Vec::new();
        let (records, runs) = match checkpoint::schema_version(self.target).await? {
            Some(_) => (
                checkpoint::read_tables(self.target, &self.options.key).await?,
                checkpoint::read(self.target, &self.options.key).await?.is_some_and(|c| c.ready),
            ),
            None => (Vec::new(), false),
        };
        let targets = self.targets().await?;
        self.generated = generated_later(&self.work, &targets);
        let mut to_make = Vec::new();
        for work in &self.work {
            let name = work.target.to_string();
            let record = records.iter().find(|r| r.target_table == name);
            match targets.get(&work.target) {
                // What streams already is parked instead, see `settle`.
                _ if record.is_some_and(|r| r.state != TableState::Copying) => {}
                Some(target) => {
                    let found = work::route(work, target, record, self.replica_role);
                    findings.extend(found.err().unwrap_or_default());
                    findings.extend(casts::findings(self.target, target).await?);
                }
                None if !work.entry.copy => findings.push(work::TargetFinding {
                    table: work.target.clone(),
                    problem: "it does not exist, and copy = false starts with what is there".to_owned(),
                    help: None,
                }),
                None => to_make.push(work),
            }
        }
        if !self.replica_role {
            let begun =
                |name: &str| records.iter().any(|r| r.target_table == name && r.state != TableState::Copying);
            let to_copy: Vec<&TableWork> =
                self.work.iter().filter(|w| w.entry.copy && !begun(&w.target.to_string())).collect();
            findings.extend(circles::findings(self.source, &to_copy, &targets).await?);
        }
        let mut unfit: Vec<(TableName, String)> = Vec::new();
        for finding in &findings {
            let why = finding.to_string().trim_end_matches(';').to_owned();
            match unfit.iter_mut().find(|(table, _)| *table == finding.table) {
                Some((_, all)) => *all = format!("{all}; {why}"),
                None => unfit.push((finding.table.clone(), why)),
            }
        }
        if runs {
            for work in to_make {
                let makes = first_rows::check_ddl(self.source, self.target, &[work]).await;
                match makes {
                    Err(error) if error.advice() == RetryAdvice::Stop => {
                        unfit.push((work.target.clone(), error.to_string()));
                    }
                    other => other?,
                }
            }
            self.unfit = unfit;
            return Ok(());
        }
        first_rows::check_ddl(self.source, self.target, &to_make).await?;
        if findings.is_empty() { Ok(()) } else { Err(FlowError::refused_by_target(&findings)) }
    }

    /// The target tables that exist.
    async fn targets(&self) -> Result<BTreeMap<TableName, TableDef>, FlowError> {
        let names: Vec<TableName> = self.work.iter().map(|w| w.target.clone()).collect();
        let tables = read_tables(self.target, &names).await?;
        Ok(tables.into_iter().map(|t| (t.name.clone(), t)).collect())
    }

    /// Fills [`Self::rows_before`] for target tables of which nothing is recorded.
    pub(crate) async fn look_for_rows(&mut self, records: &[TableRecord], runs: bool) -> Result<(), FlowError> {
        let known: BTreeSet<&str> = records.iter().map(|r| r.target_table.as_str()).collect();
        let new = |w: &&TableWork| !self.rows_before.contains_key(&w.target);
        let new = self.work.iter().filter(new).map(|w| w.target.clone());
        let new: Vec<TableName> = new.filter(|t| !known.contains(t.to_string().as_str())).collect();
        if new.is_empty() {
            return Ok(());
        }
        for table in read_tables(self.target, &new).await? {
            let rows = match rows_exist(self.target, &table.name).await {
                // The copy finds the same, and the table stands aside with it.
                Err(error) if runs && error.advice() == RetryAdvice::Stop => false,
                rows => rows?,
            };
            self.rows_before.insert(table.name, rows);
        }
        for missing in new {
            self.rows_before.entry(missing).or_insert(false);
        }
        Ok(())
    }
}
