//! Tables that cannot be prepared: where others go on, they wait for a person, and say what for.

use std::collections::BTreeMap;

use crate::apply::checkpoint::{self, TableRecord, TableState};
use crate::apply::error::reset_command;
use crate::catalog::TableDef;
use crate::flow::error::FlowError;
use crate::flow::parking::with_hint;
use crate::flow::prepare::Preparation;
use crate::flow::work::{TableWork, new_record};
use crate::model::{Lsn, RetryAdvice, TableName, quote_ident};

impl Preparation<'_> {
    /// Tables that were dropped from the stream and are named by an entry now.
    pub(crate) async fn take_in_again(&self) -> Result<(), FlowError> {
        let key = &self.options.key;
        let dropped = checkpoint::read_dropped(self.target, key).await?;
        for work in self.work.iter().filter(|w| dropped.contains(&w.target.to_string())) {
            checkpoint::set_dropped(self.target, key, &work.target, false).await?;
        }
        Ok(())
    }

    /// Tables whose source table is gone stand aside.
    pub(crate) async fn leave_out_gone(&self) -> Result<(), FlowError> {
        let records = checkpoint::read_tables(self.target, &self.options.key).await?;
        for (source, target) in &self.gone {
            let gone = FlowError::SourceGone {
                source_table: source.to_string(),
                target_table: target.clone(),
                source_name: self.options.key.source.clone(),
            };
            let why = gone.to_string();
            let told = |r: &TableRecord| {
                r.target_table == target.to_string()
                    && r.state == TableState::NeedsCopy
                    && r.error.as_ref() == Some(&why)
            };
            if !records.iter().any(told) {
                self.parking().give_up(std::slice::from_ref(target), &why).await?;
            }
        }
        Ok(())
    }

    /// New tables that pre-flight found unfit for a stream that runs already.
    pub(crate) async fn leave_out_unfit(&mut self) -> Result<(), FlowError> {
        for (table, why) in std::mem::take(&mut self.unfit) {
            self.leave_out(&table, &self.then_copy(&table, &why)).await?;
        }
        Ok(())
    }

    /// New tables whose target holds rows that nobody may overwrite. What is recorded afterwards.
    pub(crate) async fn leave_out_full(
        &self,
        records: Vec<TableRecord>,
    ) -> Result<Vec<TableRecord>, FlowError> {
        let known = |table: &TableName| records.iter().any(|r| r.target_table == table.to_string());
        let holds_rows = |table: &TableName| self.rows_before.get(table).is_some_and(|rows| *rows);
        let full = self.work.iter().filter(|w| w.entry.copy && holds_rows(&w.target) && !known(&w.target));
        let full: Vec<TableName> = full.map(|w| w.target.clone()).collect();
        if full.is_empty() {
            return Ok(records);
        }
        for table in full {
            let replace = reset_command(&self.options.key.source, &table, "recopy");
            let why = format!(
                "target table {table} already holds rows; it is not overwritten; to replace them, {replace} (--accept-target keeps them as first rows)"
            );
            self.leave_out(&table, &why).await?;
        }
        Ok(checkpoint::read_tables(self.target, &self.options.key).await?)
    }

    /// The table could not be prepared. Unless the failure passes, or no table would be left, the others go on without it.
    pub(crate) async fn go_on_without(&self, table: &TableName, error: FlowError) -> Result<(), FlowError> {
        let records = checkpoint::read_tables(self.target, &self.options.key).await?;
        let aside = |other: &TableName| {
            let record = records.iter().find(|r| r.target_table == other.to_string());
            record.is_some_and(|r| matches!(r.state, TableState::NeedsCopy | TableState::Failed))
        };
        let others = self.work.iter().any(|w| w.target != *table && !aside(&w.target));
        if error.advice() == RetryAdvice::Reconnect {
            return Err(error);
        }
        let why = with_hint(&error, &self.options.key);
        if !others {
            // The next start copies it again; until then `status` says why it stands where it does.
            let (key, copying) = (&self.options.key, TableState::Copying);
            checkpoint::set_table_state(self.target, key, table, copying, Some(&why)).await?;
            return Err(error);
        }
        // The first says itself what can be done.
        let why = match error {
            FlowError::SourceGone { .. } => why,
            _ => self.then_copy(table, &why),
        };
        self.leave_out(table, &why).await
    }

    fn then_copy(&self, table: &TableName, why: &str) -> String {
        format!("{why}; once that is mended, {}", reset_command(&self.options.key.source, table, "recopy"))
    }

    async fn leave_out(&self, table: &TableName, why: &str) -> Result<(), FlowError> {
        let key = &self.options.key;
        let records = checkpoint::read_tables(self.target, key).await?;
        if !records.iter().any(|r| r.target_table == table.to_string()) {
            let record = new_record(self.work_of(table)?, TableState::NeedsCopy, Lsn::INVALID);
            checkpoint::write_table(self.target, key, &record).await?;
        }
        self.parking().give_up(std::slice::from_ref(table), why).await
    }
}

/// Generated columns that came after the target table was made: nothing of them is in the stream, so nobody would notice. Pure.
pub(crate) fn generated_later(work: &[TableWork], targets: &BTreeMap<TableName, TableDef>) -> Vec<String> {
    let mut told = Vec::new();
    for work in work {
        let Some(target) = targets.get(&work.target) else { continue };
        let generated = work.source.columns.iter().filter(|c| c.generated.is_some());
        let chosen = |name: &String| work.entry.columns.as_ref().is_none_or(|all| all.contains(name));
        for column in generated.filter(|c| chosen(&c.name) && target.column(&c.name).is_none()) {
            told.push(format!(
                "column {} of source table {} is generated and not in target table {}: add it there, with an expression, if it is wanted",
                quote_ident(&column.name),
                work.source.name,
                work.target
            ));
        }
    }
    told
}
