//! Target tables, before anything is changed: whether those that are there fit, and whether the others can be made.

use std::collections::{BTreeMap, BTreeSet};

use crate::apply::checkpoint::{self, Checkpoint, TableRecord, TableState};
use crate::catalog::{TableDef, read_tables};
use crate::copy::target::rows_exist;
use crate::flow::casts;
use crate::flow::circles;
use crate::flow::error::FlowError;
use crate::flow::first_rows;
use crate::flow::prepare::Preparation;
use crate::flow::start::{Step, StopReason, next_step};
use crate::flow::unfit::generated_later;
use crate::flow::work::{self, TableWork, TargetFinding};
use crate::model::{RetryAdvice, TableName};

impl Preparation<'_> {
    /// Checks the target tables. What stands in the way of a new one beside a stream that runs is kept for it; a stream that has
    /// not begun is refused, with all that was found.
    pub(crate) async fn check_targets(&mut self) -> Result<(), FlowError> {
        let (position, records) = self.recorded().await?;
        let runs = position.is_some_and(|position| position.ready);
        let targets = self.targets().await?;
        self.generated = generated_later(&self.work, &targets);
        let findings = self.findings(&records, &targets).await?;
        let mut texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let mut unfit: Vec<(TableName, String)> = Vec::new();
        for finding in &findings {
            let why = finding.to_string().trim_end_matches(';').to_owned();
            match unfit.iter_mut().find(|(table, _)| *table == finding.table) {
                Some((_, all)) => *all = format!("{all}; {why}"),
                None => unfit.push((finding.table.clone(), why)),
            }
        }
        let (source, target) = (self.source, self.target);
        for work in self.work.iter().filter(|w| w.entry.copy && !targets.contains_key(&w.target)) {
            if is_copied(&records, &work.target) {
                continue;
            }
            match first_rows::check_ddl(source, target, &[work]).await {
                Err(error) if error.advice() == RetryAdvice::Stop => {
                    texts.push(error.to_string());
                    unfit.push((work.target.clone(), error.to_string()));
                }
                other => other?,
            }
        }
        if runs {
            self.unfit = unfit;
            return Ok(());
        }
        texts.extend(self.may_make_schema().await?);
        texts.extend(self.rows_in_the_way(&records).await?);
        if texts.is_empty() { Ok(()) } else { Err(FlowError::Refused(texts)) }
    }

    /// What does not fit in the tables that are there, and in those that are not and cannot be made.
    async fn findings(
        &self,
        records: &[TableRecord],
        targets: &BTreeMap<TableName, TableDef>,
    ) -> Result<Vec<TargetFinding>, FlowError> {
        let mut findings = Vec::new();
        for work in &self.work {
            let name = work.target.to_string();
            let record = records.iter().find(|r| r.target_table == name);
            match targets.get(&work.target) {
                // What streams already is parked instead, see `settle`.
                _ if is_copied(records, &work.target) => {}
                Some(target) => {
                    let found = work::route(work, target, record, self.replica_role);
                    findings.extend(found.err().unwrap_or_default());
                    findings.extend(casts::findings(self.target, target).await?);
                }
                None if !work.entry.copy => findings.push(TargetFinding {
                    table: work.target.clone(),
                    problem: "it does not exist, and copy = false starts with what is there".to_owned(),
                    help: None,
                }),
                None => {}
            }
        }
        if !self.replica_role {
            let to_copy: Vec<&TableWork> =
                self.work.iter().filter(|w| w.entry.copy && !is_copied(records, &w.target)).collect();
            findings.extend(circles::findings(self.source, &to_copy, targets).await?);
        }
        Ok(findings)
    }

    /// Why schema `repcloud` could not be made.
    async fn may_make_schema(&self) -> Result<Option<String>, FlowError> {
        if checkpoint::schema_version(self.target).await?.is_some() {
            return Ok(None);
        }
        let sql = "SELECT has_database_privilege(current_database(), 'CREATE'), quote_ident(current_user), quote_ident(current_database())";
        let failed = |e: tokio_postgres::Error| FlowError::Target(e.into());
        let row = self.target.query_one(sql, &[]).await.map_err(failed)?;
        let (may, role, database): (bool, String, String) = (
            row.try_get(0).map_err(failed)?,
            row.try_get(1).map_err(failed)?,
            row.try_get(2).map_err(failed)?,
        );
        Ok((!may).then(|| {
            format!(
                "target: role {role} may not make schema repcloud, which holds the stream's position; run on the target: \
                 GRANT CREATE ON DATABASE {database} TO {role};"
            )
        }))
    }

    /// Before a stream has begun: tables whose rows nobody may overwrite.
    async fn rows_in_the_way(&mut self, records: &[TableRecord]) -> Result<Vec<String>, FlowError> {
        if let Err(error) = self.look_for_rows(records, false).await {
            return match error.advice() {
                RetryAdvice::Stop => Ok(vec![error.to_string()]),
                _ => Err(error),
            };
        }
        let full = |w: &&TableWork| w.entry.copy && self.rows_before.get(&w.target).is_some_and(|rows| *rows);
        let full =
            self.work.iter().filter(full).map(|w| StopReason::TargetHoldsRows { table: w.target.clone() });
        Ok(full.map(|reason| reason.with_hint(&self.options.key.source)).collect())
    }

    /// A stream of which nothing is recorded and that cannot begin is refused before anything is written.
    pub(crate) async fn refuse_to_begin(&mut self) -> Result<(), FlowError> {
        if self.recorded().await?.0.is_some() {
            return Ok(());
        }
        match next_step(&self.facts().await?) {
            // It may pass.
            Step::Stop(reason @ StopReason::SlotActive { .. }) => Err(FlowError::Stopped(reason)),
            Step::Stop(reason) => Err(FlowError::Refused(vec![reason.with_hint(&self.options.key.source)])),
            _ => Ok(()),
        }
    }

    /// The position, and all that is recorded of tables; nothing where schema `repcloud` is missing.
    pub(crate) async fn recorded(&self) -> Result<(Option<Checkpoint>, Vec<TableRecord>), FlowError> {
        if checkpoint::schema_version(self.target).await?.is_none() {
            return Ok((None, Vec::new()));
        }
        let key = &self.options.key;
        Ok((checkpoint::read(self.target, key).await?, checkpoint::read_tables(self.target, key).await?))
    }

    /// The target tables that exist.
    async fn targets(&self) -> Result<BTreeMap<TableName, TableDef>, FlowError> {
        let names: Vec<TableName> = self.work.iter().map(|w| w.target.clone()).collect();
        let tables = read_tables(self.target, &names).await?;
        Ok(tables.into_iter().map(|t| (t.name.clone(), t)).collect())
    }

    /// Fills [`Self::rows_before`] for target tables of which nothing is recorded.
    pub(crate) async fn look_for_rows(
        &mut self,
        records: &[TableRecord],
        runs: bool,
    ) -> Result<(), FlowError> {
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

/// Something is recorded of the table, and no copy of it is to be begun or finished.
fn is_copied(records: &[TableRecord], table: &TableName) -> bool {
    records.iter().any(|r| r.target_table == table.to_string() && r.state != TableState::Copying)
}
