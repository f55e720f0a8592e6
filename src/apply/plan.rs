//! A group of changes → the statements that bring the target to the same state. Pure.
//!
//! Rows of one table are reduced to one net change a key and emitted as DELETE, then UPDATE (one statement for each
//! set of columns), then INSERT. What cannot be reduced (a key change that keeps an unsent TOAST value, a row without
//! a key) is a step of its own between such phases of its table. TRUNCATE is a barrier for all tables.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::apply::coalesce::Contradiction;
use crate::apply::encode::{BinaryValueError, TextArray};
use crate::apply::parked::ParkPlan;
use crate::apply::route::{
    Binding, Bindings, Bound, Delivery, ParkedRoute, Route, RouteId, RouteTable, ShapeError,
};
use crate::apply::row::{Row, complete_new};
use crate::apply::single;
use crate::apply::table_plan::TablePlan;
use crate::model::{Change, PgTimestamp, Relation, TableName, Tuple, TxnBatch, TxnId};
use crate::sql::shape::{ColumnSet, Shape};

/// One statement of a plan, with everything it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A prepared statement that must touch exactly `rows` rows.
    Rows {
        /// The table.
        route: RouteId,
        /// The statement.
        shape: Shape,
        /// Rows in each parameter, and rows it must touch.
        rows: usize,
        /// One array a parameter.
        params: Vec<TextArray>,
    },
    /// COPY of new rows.
    Copy {
        /// The table.
        route: RouteId,
        /// The columns.
        columns: ColumnSet,
        /// Rows in the data, and rows that must arrive.
        rows: usize,
        /// COPY's text format.
        data: Bytes,
    },
    /// A key change where the key cannot be updated in place and some columns were not sent: the row is read, deleted
    /// and inserted.
    ReadAndReplace {
        /// The table.
        route: RouteId,
        /// One array of one element a key column: the old key.
        key: Vec<TextArray>,
        /// The columns that were sent, with one array of one element each.
        new: Vec<(u16, TextArray)>,
    },
    /// TRUNCATE of dml tables, in one statement.
    Truncate {
        /// The tables.
        routes: Vec<RouteId>,
        /// RESTART IDENTITY.
        restart_identity: bool,
    },
    /// Changes of tables that wait, into `repcloud.parked`.
    Park {
        /// Rows in each parameter, and rows it must write.
        rows: usize,
        /// One array a column, then the names of the stream.
        params: Vec<TextArray>,
    },
    /// TRUNCATE of a logdel table: live rows are stamped.
    StampAll {
        /// The table.
        route: RouteId,
        /// The stamp.
        stamp: TextArray,
    },
}

impl Step {
    /// Bytes of its parameters.
    pub fn bytes(&self) -> usize {
        match self {
            Step::Rows { params, .. } | Step::Park { params, .. } => params.iter().map(TextArray::len).sum(),
            Step::Copy { data, .. } => data.len(),
            Step::ReadAndReplace { key, new, .. } => {
                key.iter().map(TextArray::len).sum::<usize>()
                    + new.iter().map(|(_, p)| p.len()).sum::<usize>()
            }
            Step::Truncate { .. } | Step::StampAll { .. } => 0,
        }
    }
}

/// Why a group cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The source table no longer fits the target.
    #[error(transparent)]
    Shape(Box<ShapeError>),
    /// Only some leaves of a partitioned table were truncated; which of the target's rows came from them is not known.
    #[error(
        "a partition of {0} was truncated on the source; its rows cannot be told apart in the target: copy the table again"
    )]
    LeafTruncated(TableName),
    /// Binary values.
    #[error(transparent)]
    Binary(#[from] BinaryValueError),
    /// Update or delete without anything that identifies the row.
    #[error(
        "an update or delete of {0} arrived without an old row image although the table has no key; set REPLICA IDENTITY FULL on the source, or a key"
    )]
    NoIdentity(TableName),
}

impl From<ShapeError> for PlanError {
    fn from(error: ShapeError) -> Self {
        PlanError::Shape(Box::new(error))
    }
}

/// What stops the coalesced form of a group; the group is then applied row by row.
#[derive(Debug)]
pub(crate) enum Stop {
    /// See [`Contradiction`].
    Contradiction,
    /// No form of the group can be planned.
    Plan(PlanError),
}

impl From<Contradiction> for Stop {
    fn from(_: Contradiction) -> Self {
        Stop::Contradiction
    }
}

impl<E: Into<PlanError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Plan(error.into())
    }
}

/// A run of whole transactions, or a part of one that is too large, as it came from capture.
#[derive(Debug, Default)]
pub struct Group {
    /// In commit order.
    pub batches: Vec<TxnBatch>,
}

/// Limits from measurements (`benches/README.md`).
#[derive(Debug, Clone, Copy)]
pub struct PlanOptions {
    /// Inserts of one phase that go by COPY instead of a statement.
    pub copy_from_rows: usize,
    /// Changed rows go as DELETE, then INSERT, where [`Route::replace_allowed`] and the whole row is known: the only
    /// form in which rows can exchange the values of a unique index that checks at once.
    pub replace: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { copy_from_rows: 200, replace: false }
    }
}

/// One source change with its transaction and its bindings.
pub(crate) struct Located<'g> {
    pub(crate) txn: TxnId,
    pub(crate) change: &'g Change,
    /// Index into the list of bindings; unused for TRUNCATE.
    bound: usize,
}

/// A group's changes, each with the bindings of its table. Bindings live here so that rows can borrow them.
pub(crate) struct Resolved<'g> {
    pub(crate) changes: Vec<Located<'g>>,
    bounds: Vec<Bound>,
}

impl Resolved<'_> {
    /// The bindings of a row change.
    pub(crate) fn bindings(&self, located: &Located<'_>) -> &[Binding] {
        self.bounds.get(located.bound).map_or(&[], |b| &*b.bindings)
    }

    /// The parked routes of a row change.
    fn parked(&self, located: &Located<'_>) -> &[usize] {
        self.bounds.get(located.bound).map_or(&[], |b| &*b.parked)
    }

    /// The parked routes of any change.
    pub(crate) fn waiting(&self, routes: &RouteTable, located: &Located<'_>) -> Vec<usize> {
        let Change::Truncate { relations, .. } = located.change else {
            return self.parked(located).to_vec();
        };
        let hit =
            |route: &ParkedRoute| route.published.iter().any(|p| relations.iter().any(|r| r.name == *p));
        let all = routes.parked().iter().enumerate();
        all.filter(|(_, route)| hit(route)).map(|(id, _)| id).collect()
    }
}

/// Finds the bindings of every change of `group`.
pub(crate) fn resolve<'g>(
    group: &'g Group,
    routes: &RouteTable,
    cache: &mut Bindings,
) -> Result<Resolved<'g>, ShapeError> {
    let mut resolved = Resolved { changes: Vec::new(), bounds: Vec::new() };
    let mut last: Option<(*const Relation, usize)> = None;
    for batch in &group.batches {
        for span in &batch.txns {
            let mut checked = None;
            for change in batch.changes.get(span.changes.clone()).unwrap_or_default() {
                let mut bound = 0;
                if let Some(relation) = relation_of(change) {
                    let address = Arc::as_ptr(relation);
                    bound = match last {
                        Some((known, bound)) if known == address => bound,
                        _ => place(&mut resolved.bounds, cache.get(routes, relation)),
                    };
                    last = Some((address, bound));
                    if checked != Some(bound) {
                        resolved.bounds[bound].check(span.txn.commit_lsn)?;
                        checked = Some(bound);
                    }
                }
                resolved.changes.push(Located { txn: span.txn, change, bound });
            }
        }
    }
    Ok(resolved)
}

/// Index of `bound` in the list; runs of a few tables alternate, so it is often there already.
fn place(list: &mut Vec<Bound>, bound: Bound) -> usize {
    let same = |b: &Bound| Arc::ptr_eq(&b.bindings, &bound.bindings) && !bound.bindings.is_empty();
    let known = list.iter().rev().take(8).position(same);
    match known {
        Some(back) => list.len() - 1 - back,
        None => {
            list.push(bound);
            list.len() - 1
        }
    }
}

/// Changes of `group` that each route takes, for those who watch.
pub fn tally(group: &Group, routes: &RouteTable, cache: &mut Bindings) -> Vec<u64> {
    let mut counts = vec![0; routes.routes().len()];
    let mut last: Option<(*const Relation, Bound)> = None;
    for batch in &group.batches {
        for span in &batch.txns {
            for change in batch.changes.get(span.changes.clone()).unwrap_or_default() {
                let Some(relation) = relation_of(change) else { continue };
                let address = Arc::as_ptr(relation);
                if last.as_ref().is_none_or(|(known, _)| *known != address) {
                    last = Some((address, cache.get(routes, relation)));
                }
                let bindings = last.iter().flat_map(|(_, bound)| bound.bindings.iter());
                for binding in bindings.filter(|b| span.txn.commit_lsn >= b.copied_at) {
                    counts[binding.route] += 1;
                }
            }
        }
    }
    counts
}

/// Of which table it is; `None` for a TRUNCATE, which may be of several.
pub(super) fn relation_of(change: &Change) -> Option<&Arc<Relation>> {
    match change {
        Change::Insert { relation, .. }
        | Change::Update { relation, .. }
        | Change::Delete { relation, .. } => Some(relation),
        Change::Truncate { .. } => None,
    }
}

/// The coalesced plan of a group; `None` when its changes contradict each other and it must go row by row.
pub fn plan(
    group: &Group,
    routes: &RouteTable,
    cache: &mut Bindings,
    options: PlanOptions,
) -> Result<Option<Vec<Step>>, PlanError> {
    let resolved = resolve(group, routes, cache)?;
    let mut planner =
        Planner { routes, options, tables: Vec::new(), open: HashMap::default(), steps: Vec::new() };
    let mut parking = ParkPlan::default();
    for located in &resolved.changes {
        park(&mut parking, routes, &resolved, located);
        match planner.add(located, resolved.bindings(located)) {
            Ok(()) => {}
            Err(Stop::Contradiction) => return Ok(None),
            Err(Stop::Plan(error)) => return Err(error),
        }
    }
    planner.flush()?;
    parking.finish(&mut planner.steps)?;
    Ok(Some(planner.steps))
}

/// Keeps the change for those who wait for it.
fn park(parking: &mut ParkPlan, routes: &RouteTable, resolved: &Resolved<'_>, located: &Located<'_>) {
    if let Change::Truncate { relations, restart_identity, .. } = located.change {
        return parking.truncate(routes, relations, *restart_identity, &located.txn);
    }
    for &id in resolved.parked(located) {
        if let Some(route) = routes.parked().get(id) {
            parking.add(id, route, located);
        }
    }
}

/// The steps that keep one change.
pub(crate) fn park_steps(
    routes: &RouteTable,
    resolved: &Resolved<'_>,
    located: &Located<'_>,
) -> Result<Vec<Step>, PlanError> {
    let (mut parking, mut steps) = (ParkPlan::default(), Vec::new());
    park(&mut parking, routes, resolved, located);
    parking.finish(&mut steps)?;
    Ok(steps)
}

struct Planner<'g> {
    routes: &'g RouteTable,
    options: PlanOptions,
    /// Tables touched since the last barrier, in the order of their first change.
    tables: Vec<TablePlan<'g>>,
    open: HashMap<RouteId, usize, foldhash::fast::FixedState>,
    steps: Vec<Step>,
}

impl<'g> Planner<'g> {
    fn add(&mut self, located: &Located<'g>, bindings: &'g [Binding]) -> Result<(), Stop> {
        if let Change::Truncate { relations, restart_identity, .. } = located.change {
            self.flush()?;
            self.steps.extend(truncate(self.routes, relations, *restart_identity, &located.txn)?);
            return Ok(());
        }
        for binding in bindings.iter().filter(|b| located.txn.commit_lsn >= b.copied_at) {
            let at = located.txn.commit_time;
            let routes = self.routes;
            let table = match self.open.get(&binding.route) {
                Some(&index) => &mut self.tables[index],
                None => {
                    self.open.insert(binding.route, self.tables.len());
                    self.tables.push(TablePlan::new(
                        binding.route,
                        routes.route(binding.route),
                        self.options,
                    ));
                    let last = self.tables.len() - 1;
                    &mut self.tables[last]
                }
            };
            add_to_table(table, binding, located.change, at)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), BinaryValueError> {
        for table in self.tables.drain(..) {
            table.finish(&mut self.steps)?;
        }
        self.open.clear();
        Ok(())
    }
}

fn add_to_table<'g>(
    table: &mut TablePlan<'g>,
    binding: &'g Binding,
    change: &'g Change,
    at: PgTimestamp,
) -> Result<(), Stop> {
    let borrowed = |tuple: &'g Tuple| Row::new(std::borrow::Cow::Borrowed(tuple), binding);
    let route = table.route;
    if route.shape.key.is_empty() {
        return match change {
            Change::Insert { new, .. } => {
                table.insert_without_key(borrowed(new));
                Ok(())
            }
            _ => {
                table.flush_phase()?;
                table.push(single::steps(table.id, route, binding, change, at)?);
                Ok(())
            }
        };
    }
    match change {
        Change::Insert { new, .. } => table.insert(borrowed(new))?,
        Change::Delete { old, .. } => table.delete(borrowed(old.tuple()), at)?,
        Change::Update { relation, old, new } => {
            let new_row = Row::new(complete_new(relation, old.as_ref(), new), binding);
            match old.as_ref().map(|o| borrowed(o.tuple())) {
                Some(old_row) if !old_row.same_key(&new_row, &route.shape.key) => {
                    change_key(table, binding, change, old_row, new_row, at)?;
                }
                _ => table.update(new_row)?,
            }
        }
        Change::Truncate { .. } => {}
    }
    Ok(())
}

/// A changed key is a delete of the old one and an insert of the new one where the whole row is known; else the row
/// is changed in place, by a statement of its own.
fn change_key<'g>(
    table: &mut TablePlan<'g>,
    binding: &'g Binding,
    change: &'g Change,
    old: Row<'g>,
    new: Row<'g>,
    at: PgTimestamp,
) -> Result<(), Stop> {
    let new = table.filled_from_pending(&old, new);
    let all = !table.route.has_extra_columns && new.covers(table.route.shape.columns.len());
    let keeps_more = !all && table.route.delivery == Delivery::Dml;
    if new.is_complete() && !keeps_more {
        table.delete(old, at)?;
        table.insert(new)?;
        return Ok(());
    }
    table.flush_phase()?;
    table.push(single::steps(table.id, table.route, binding, change, at)?);
    Ok(())
}

/// The steps of one TRUNCATE: dml tables in one statement, logdel tables stamped.
pub(crate) fn truncate(
    routes: &RouteTable,
    relations: &[Arc<Relation>],
    restart_identity: bool,
    txn: &TxnId,
) -> Result<Vec<Step>, PlanError> {
    let mut dml = Vec::new();
    let mut steps = Vec::new();
    for (id, route) in routes.routes().iter().enumerate() {
        let touched = route.published.iter().any(|p| relations.iter().any(|r| r.name == *p));
        if !touched || txn.commit_lsn < route.copied_at {
            continue;
        }
        if !routes.covers(id, relations) {
            return Err(PlanError::LeafTruncated(route.source.clone()));
        }
        match route.delivery {
            Delivery::Dml => dml.push(id),
            Delivery::LogDel => {
                steps.push(Step::StampAll { route: id, stamp: single::stamp_array(txn.commit_time, 1)? })
            }
        }
    }
    if !dml.is_empty() {
        steps.push(Step::Truncate { routes: dml, restart_identity });
    }
    Ok(steps)
}

/// The steps of one change in row-by-row order.
pub(crate) fn serial_steps(
    routes: &RouteTable,
    resolved: &Resolved<'_>,
    located: &Located<'_>,
) -> Result<Vec<Step>, PlanError> {
    let mut steps = park_steps(routes, resolved, located)?;
    if let Change::Truncate { relations, restart_identity, .. } = located.change {
        steps.extend(truncate(routes, relations, *restart_identity, &located.txn)?);
        return Ok(steps);
    }
    for binding in resolved.bindings(located) {
        steps.extend(single_route_steps(routes, located, binding)?);
    }
    Ok(steps)
}

/// The steps of one row change for one of its routes; none when the copy has it already.
pub(crate) fn single_route_steps(
    routes: &RouteTable,
    located: &Located<'_>,
    binding: &Binding,
) -> Result<Vec<Step>, PlanError> {
    if located.txn.commit_lsn < binding.copied_at {
        return Ok(Vec::new());
    }
    let route: &Route = routes.route(binding.route);
    single::steps(binding.route, route, binding, located.change, located.txn.commit_time)
}
