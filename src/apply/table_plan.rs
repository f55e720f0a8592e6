//! The pending net changes of one target table inside one group. Pure.

use hashbrown::HashTable;

use crate::apply::coalesce::{Contradiction, Event, Net, first, transition};
use crate::apply::encode::{BinaryValueError, TextArray, copy_text};
use crate::apply::plan::{PlanOptions, Step, Stop};
use crate::apply::route::{Delivery, Route, RouteId};
use crate::apply::row::Row;
use crate::apply::single::stamp_text;
use crate::model::{PgTimestamp, Value};
use crate::sql::shape::{ColumnSet, Shape};

/// Key hashing need not withstand an adversary more than the fixed seed does: a crafted collision costs time, never
/// correctness, and a fixed seed keeps plans repeatable.
const HASH: foldhash::fast::FixedState = foldhash::fast::FixedState::with_seed(0x5EED_0F4E_9C10_0D01);

/// A row and, in logdel, the time of its deletion.
type Stamped<'r, 'g> = (&'r Row<'g>, Option<PgTimestamp>);

struct Entry<'g> {
    /// A row that holds the key.
    key: Row<'g>,
    /// `None` only while a transition is under way.
    net: Option<Net<'g>>,
}

/// See the module.
pub(crate) struct TablePlan<'g> {
    pub(crate) id: RouteId,
    pub(crate) route: &'g Route,
    options: PlanOptions,
    entries: Vec<Entry<'g>>,
    index: HashTable<u32>,
    /// New rows of a table without a key.
    plain_inserts: Vec<Row<'g>>,
    done: Vec<Step>,
}

impl<'g> TablePlan<'g> {
    pub(crate) fn new(id: RouteId, route: &'g Route, options: PlanOptions) -> Self {
        TablePlan {
            id,
            route,
            options,
            entries: Vec::new(),
            index: HashTable::new(),
            plain_inserts: Vec::new(),
            done: Vec::new(),
        }
    }

    pub(crate) fn insert_without_key(&mut self, row: Row<'g>) {
        self.plain_inserts.push(row);
    }

    pub(crate) fn insert(&mut self, row: Row<'g>) -> Result<(), Stop> {
        let key = row.clone();
        self.apply(key, Event::Insert(row))
    }

    pub(crate) fn update(&mut self, row: Row<'g>) -> Result<(), Stop> {
        let key = row.clone();
        self.apply(key, Event::Update(row))
    }

    pub(crate) fn delete(&mut self, old: Row<'g>, at: PgTimestamp) -> Result<(), Stop> {
        self.apply(old, Event::Delete(at))
    }

    /// `new` with the columns it lacks taken from what this group has already put at the old key.
    pub(crate) fn filled_from_pending(&self, old: &Row<'g>, new: Row<'g>) -> Row<'g> {
        if new.is_complete() {
            return new;
        }
        match self.find(old).and_then(|i| self.entries[i].net.as_ref()) {
            Some(Net::Insert(row, _) | Net::Update(row, _)) if row.same_layout(&new) => new.over(row),
            _ => new,
        }
    }

    fn find(&self, key: &Row<'_>) -> Option<usize> {
        let columns = &self.route.shape.key;
        let hash = key.key_hash(columns, &HASH);
        self.index.find(hash, |&i| self.entries[i as usize].key.same_key(key, columns)).map(|&i| i as usize)
    }

    fn apply(&mut self, key: Row<'g>, event: Event<'g>) -> Result<(), Stop> {
        let columns = &self.route.shape.key;
        let hash = key.key_hash(columns, &HASH);
        let found = self
            .index
            .find(hash, |&i| self.entries[i as usize].key.same_key(&key, columns))
            .map(|&i| i as usize);
        let Some(found) = found else {
            let at = self.entries.len() as u32;
            let entries = &self.entries;
            self.index.insert_unique(hash, at, |&i| entries[i as usize].key.key_hash(columns, &HASH));
            self.entries.push(Entry { key, net: Some(first(event)) });
            return Ok(());
        };
        if let (Some(Net::Insert(old, _) | Net::Update(old, _)), Event::Update(new)) =
            (self.entries[found].net.as_ref(), &event)
            && !new.is_complete()
            && !old.same_layout(new)
        {
            // The table was described anew between the two: one image cannot fill the other.
            self.flush_phase()?;
            return self.apply(key, event);
        }
        let net = self.entries[found].net.take().ok_or(Contradiction)?;
        let net = transition(net, event, self.route.delivery == Delivery::LogDel)?;
        self.entries[found].net = Some(net);
        Ok(())
    }

    /// Steps of their own that follow what is pending.
    pub(crate) fn push(&mut self, steps: Vec<Step>) {
        self.done.extend(steps);
    }

    /// Appends all steps to `out`.
    pub(crate) fn finish(mut self, out: &mut Vec<Step>) -> Result<(), BinaryValueError> {
        self.flush_phase()?;
        out.append(&mut self.done);
        Ok(())
    }

    /// Turns what is pending into statements: deletes free values, updates and inserts take them.
    pub(crate) fn flush_phase(&mut self) -> Result<(), BinaryValueError> {
        let entries = std::mem::take(&mut self.entries);
        self.index.clear();
        let mut deletes: Vec<Stamped<'_, 'g>> = Vec::new();
        let mut updates: Vec<(ColumnSet, Vec<Stamped<'_, 'g>>)> = Vec::new();
        let mut inserts: Vec<(ColumnSet, Vec<Stamped<'_, 'g>>)> = Vec::new();
        for entry in &entries {
            match &entry.net {
                Some(Net::Delete(at)) => deletes.push((&entry.key, Some(*at))),
                Some(Net::Update(row, stamp)) if self.replaces(row) => {
                    deletes.push((&entry.key, Some(PgTimestamp(0))));
                    by_columns(&mut inserts, row.columns_with_value(&[]), row, *stamp);
                }
                Some(Net::Update(row, stamp)) => {
                    by_columns(&mut updates, row.columns_with_value(&self.route.shape.key), row, *stamp);
                }
                Some(Net::Insert(row, stamp)) => {
                    by_columns(&mut inserts, row.columns_with_value(&[]), row, *stamp)
                }
                Some(Net::Nothing) | None => {}
            }
        }
        let plain = std::mem::take(&mut self.plain_inserts);
        for row in &plain {
            by_columns(&mut inserts, row.columns_with_value(&[]), row, None);
        }
        if !deletes.is_empty() {
            let step = self.rows_step(Shape::Delete, &[], &deletes)?;
            self.done.push(step);
        }
        // Stamps first: in logdel they free values of unique indexes on live rows.
        updates.sort_by_key(|(_, rows)| rows.iter().all(|(_, stamp)| stamp.is_none()));
        for (columns, rows) in updates {
            let step = self.rows_step(Shape::Update(columns.clone()), &columns, &rows)?;
            self.done.push(step);
        }
        for (columns, rows) in inserts {
            let step = self.insert_step(columns, &rows)?;
            self.done.push(step);
        }
        Ok(())
    }

    /// The row is written anew instead of changed. In logdel it is stamped and revived, whenever that was: no reader
    /// sees the stamp.
    fn replaces(&self, row: &Row<'_>) -> bool {
        let known = row.is_complete() && row.covers(self.route.shape.columns.len());
        self.options.replace && self.route.replace_allowed && known
    }

    fn insert_step(&self, columns: ColumnSet, rows: &[Stamped<'_, '_>]) -> Result<Step, BinaryValueError> {
        if self.route.copy_allowed && rows.len() >= self.options.copy_from_rows && !columns.is_empty() {
            let rows: Vec<&Row<'_>> = rows.iter().map(|(row, _)| *row).collect();
            let data = copy_text(&rows, &columns)?;
            return Ok(Step::Copy { route: self.id, columns, rows: rows.len(), data });
        }
        let mut params = columns
            .iter()
            .map(|&c| TextArray::of(rows.iter().map(|(row, _)| row.value(c))))
            .collect::<Result<Vec<_>, _>>()?;
        self.push_stamps(&mut params, rows)?;
        Ok(Step::Rows { route: self.id, shape: Shape::Insert(columns), rows: rows.len(), params })
    }

    fn rows_step(
        &self,
        shape: Shape,
        columns: &[u16],
        rows: &[Stamped<'_, '_>],
    ) -> Result<Step, BinaryValueError> {
        let mut params = Vec::with_capacity(self.route.shape.parameter_count(&shape));
        for &column in self.route.shape.key.iter().chain(columns) {
            params.push(TextArray::of(rows.iter().map(|(row, _)| row.value(column)))?);
        }
        self.push_stamps(&mut params, rows)?;
        Ok(Step::Rows { route: self.id, shape, rows: rows.len(), params })
    }

    fn push_stamps(
        &self,
        params: &mut Vec<TextArray>,
        rows: &[Stamped<'_, '_>],
    ) -> Result<(), BinaryValueError> {
        if self.route.delivery == Delivery::LogDel {
            let stamps: Vec<Option<String>> = rows.iter().map(|(_, stamp)| stamp.map(stamp_text)).collect();
            let values = stamps.iter().map(|s| s.as_ref().map_or(Value::Null, |s| Value::Text(s.as_bytes())));
            params.push(TextArray::of(values)?);
        }
        Ok(())
    }
}

/// Adds a row to the statement of its columns. Few sets occur in one group: a list is enough.
fn by_columns<'r, 'g>(
    sets: &mut Vec<(ColumnSet, Vec<Stamped<'r, 'g>>)>,
    columns: ColumnSet,
    row: &'r Row<'g>,
    stamp: Option<PgTimestamp>,
) {
    match sets.iter_mut().find(|(set, _)| *set == columns) {
        Some((_, rows)) => rows.push((row, stamp)),
        None => sets.push((columns, vec![(row, stamp)])),
    }
}
