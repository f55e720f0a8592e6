//! What remains to be done for one key after several changes of it. Pure.
//!
//! The table of `transition` is that of research on appliers: an entry is a fact about the target before the group
//! (the row is there, or not) and the net change. A change that contradicts the fact means that the stream
//! contradicts itself or somebody else wrote the target: nothing is guessed, the group is applied row by row and the
//! database decides.

use crate::apply::row::Row;
use crate::model::PgTimestamp;

/// The net change of one key inside one group.
#[derive(Debug, Clone)]
pub enum Net<'a> {
    /// The row was not there (in logdel: not alive); now it is this one. In logdel it may be stamped at once.
    Insert(Row<'a>, Option<PgTimestamp>),
    /// The row was there; the columns that hold a value have changed. In logdel it may be stamped as well.
    Update(Row<'a>, Option<PgTimestamp>),
    /// The row was there and goes (dml), or is stamped without another change (logdel).
    Delete(PgTimestamp),
    /// The row was not there and is not there.
    Nothing,
}

/// One change of one key.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A new row.
    Insert(Row<'a>),
    /// Changed columns.
    Update(Row<'a>),
    /// Gone at that time.
    Delete(PgTimestamp),
}

/// The change cannot follow what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes of one row contradict each other")]
pub struct Contradiction;

/// The net change when `event` is the first one of its key.
pub fn first(event: Event<'_>) -> Net<'_> {
    match event {
        Event::Insert(row) => Net::Insert(row, None),
        Event::Update(row) => Net::Update(row, None),
        Event::Delete(at) => Net::Delete(at),
    }
}

/// The net change when `event` follows `net`. `logdel` keeps deleted rows, stamped.
pub fn transition<'a>(net: Net<'a>, event: Event<'a>, logdel: bool) -> Result<Net<'a>, Contradiction> {
    Ok(match (net, event) {
        (Net::Insert(old, None), Event::Update(row)) => Net::Insert(row.over(&old), None),
        (Net::Insert(row, None), Event::Delete(at)) if logdel => Net::Insert(row, Some(at)),
        (Net::Insert(_, None), Event::Delete(_)) => Net::Nothing,
        (Net::Insert(_, Some(_)), Event::Insert(row)) => Net::Insert(row, None),

        (Net::Update(old, None), Event::Update(row)) => Net::Update(row.over(&old), None),
        (Net::Update(old, None), Event::Delete(at)) if logdel => Net::Update(old, Some(at)),
        (Net::Update(_, None), Event::Delete(at)) => Net::Delete(at),
        (Net::Update(_, Some(_)), Event::Insert(row)) => Net::Update(row, None),

        // The row was there, went, and came again: in place, every column.
        (Net::Delete(_), Event::Insert(row)) => Net::Update(row, None),
        (Net::Nothing, Event::Insert(row)) => Net::Insert(row, None),

        _ => return Err(Contradiction),
    })
}
