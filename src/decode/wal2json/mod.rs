//! A decoder for `wal2json`, format version 2: one JSON object a message. It gives the messages that `pgoutput` would have
//! sent, so that everything behind it is the same.
//!
//! What the plugin does and leaves out: `proto-notes/wal2json.md`.

mod json;
mod options;
mod row;
mod shape;
mod time;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bytes::Bytes;

use crate::decode::cursor::{DecodeError, Problem};
use crate::decode::pgoutput::{Begin, Commit, LogicalMessage, Message};
use crate::model::{Lsn, Oid, OldTuple, PgTimestamp, ReplicaIdentity, TableName, Value};

pub use options::{NUMBERS_AS_STRINGS, loses_numbers, plugin_options};
pub use shape::{ColumnDetail, KnownTable};

use json::Json;
use row::Columns;
use shape::Shape;

/// Decodes the frames of one stream, in the order they came.
#[derive(Debug)]
pub struct Decoder {
    tables: Vec<Shape>,
    by_name: HashMap<TableName, usize>,
    /// The table of the last change: changes come in runs.
    latest: Option<usize>,
    /// Tables emptied by one statement, of which wal2json sends one message each with the same position.
    emptied: Option<(Lsn, Vec<Oid>)>,
}

/// The fields of one message.
#[derive(Debug, Default)]
struct Fields<'a> {
    action: u8,
    xid: Option<u32>,
    lsn: Option<Lsn>,
    next_lsn: Option<Lsn>,
    time: Option<PgTimestamp>,
    schema: Option<std::borrow::Cow<'a, str>>,
    table: Option<std::borrow::Cow<'a, str>>,
    columns: Option<Columns<'a>>,
    identity: Option<Columns<'a>>,
    transactional: Option<bool>,
    prefix: Option<std::borrow::Cow<'a, str>>,
    content: Option<std::borrow::Cow<'a, str>>,
}

fn missing(what: &'static str) -> impl FnOnce() -> Problem {
    move || Problem::Truncated(what)
}

impl Decoder {
    /// A decoder for a stream that was started with [`plugin_options`] for these tables.
    pub fn new(tables: Vec<KnownTable>) -> Self {
        let by_name = tables.iter().enumerate().map(|(i, t)| (t.relation.name.clone(), i)).collect();
        Decoder { tables: tables.into_iter().map(Shape::new).collect(), by_name, latest: None, emptied: None }
    }

    /// Reads one message and adds what it means to `out`. A TRUNCATE is added with the message after it, which every
    /// transaction has: only then is it known which tables it emptied. Changes of tables that the decoder was not told of
    /// are left out.
    pub fn decode(&mut self, frame: &Bytes, out: &mut Vec<Message>) -> Result<(), DecodeError> {
        let mut json = Json::new(frame);
        let fields = fields(&mut json);
        let at = json.at;
        let action = fields.as_ref().map_or(None, |f| Some(f.action));
        fields.and_then(|fields| self.message(frame, fields, out)).map_err(|problem| DecodeError {
            tag: action,
            message: action.map_or("unknown", kind_of),
            offset: at,
            problem,
        })
    }

    fn message(&mut self, frame: &Bytes, fields: Fields<'_>, out: &mut Vec<Message>) -> Result<(), Problem> {
        if fields.action == b'T' {
            return self.truncate(&fields, out);
        }
        self.flush(out);
        match fields.action {
            b'B' => out.push(Message::Begin(Begin {
                final_lsn: fields.lsn.ok_or_else(missing("lsn"))?,
                commit_time: fields.time.ok_or_else(missing("timestamp"))?,
                xid: fields.xid.ok_or_else(missing("xid"))?,
            })),
            b'C' => out.push(Message::Commit(Commit {
                commit_lsn: fields.lsn.ok_or_else(missing("lsn"))?,
                end_lsn: fields.next_lsn.ok_or_else(missing("nextlsn"))?,
                commit_time: fields.time.ok_or_else(missing("timestamp"))?,
            })),
            b'M' => out.push(Message::Logical(LogicalMessage {
                xid: None,
                transactional: fields.transactional.ok_or_else(missing("transactional"))?,
                lsn: fields.lsn.ok_or_else(missing("lsn"))?,
                prefix: fields.prefix.ok_or_else(missing("prefix"))?.into_owned(),
                content: Bytes::from(
                    fields.content.ok_or_else(missing("content"))?.into_owned().into_bytes(),
                ),
            })),
            b'I' | b'U' | b'D' => self.change(frame, fields, out)?,
            value => return Err(Problem::Unknown { what: "action", value }),
        }
        Ok(())
    }

    /// The table of a message; `None`: not of this stream.
    fn table(&mut self, fields: &Fields<'_>) -> Result<Option<usize>, Problem> {
        let schema = fields.schema.as_deref().ok_or_else(missing("schema"))?;
        let table = fields.table.as_deref().ok_or_else(missing("table"))?;
        if let Some(latest) = self.latest {
            let name = &self.tables[latest].relation.name;
            if name.table == table && name.schema == schema {
                return Ok(Some(latest));
            }
        }
        let found = self.by_name.get(&TableName::new(schema, table)).copied();
        self.latest = found.or(self.latest);
        Ok(found)
    }

    fn change(&mut self, frame: &Bytes, fields: Fields<'_>, out: &mut Vec<Message>) -> Result<(), Problem> {
        let Some(index) = self.table(&fields)? else { return Ok(()) };
        let shape = &mut self.tables[index];
        let Fields { action, columns, identity, .. } = fields;
        if action != b'I' && shape.insert_only() {
            return Ok(());
        }
        // Both before either is made into a row: each may change the shape.
        let new = columns.filter(|_| action != b'D').map(|columns| {
            let places = shape.place_new(&columns.sent, action == b'I');
            (columns, places)
        });
        let old = identity.filter(|_| action != b'I');
        let old = old.filter(|old| {
            shape.relation.identity == ReplicaIdentity::Full
                || !new.as_ref().is_some_and(|(new, _)| same_values(frame, old, new))
        });
        let (new, old) = match (new, old) {
            (new, None) => (new, None),
            (new, Some(old)) => {
                let places = shape.place_old(&old.sent);
                // The old row may have shown another column.
                let new = new.map(|(columns, _)| {
                    let places = shape.place_new(&columns.sent, false);
                    (columns, places)
                });
                (new, Some((old, places)))
            }
        };
        let old = match old {
            None => None,
            Some((columns, places)) => {
                let full =
                    shape.relation.identity == ReplicaIdentity::Full && places.iter().all(Option::is_some);
                let tuple = columns.tuple(frame, &places, Value::Null)?;
                Some(if full { OldTuple::Full(tuple) } else { OldTuple::Key(tuple) })
            }
        };
        let new = match new {
            None => None,
            Some((columns, places)) => Some(columns.tuple(frame, &places, Value::Unchanged)?),
        };
        let relation = describe(shape, out);
        out.push(match action {
            b'I' => Message::Insert { xid: None, relation, new: new.ok_or_else(missing("columns"))? },
            b'U' => Message::Update { xid: None, relation, old, new: new.ok_or_else(missing("columns"))? },
            _ => Message::Delete { xid: None, relation, old: old.ok_or_else(missing("identity"))? },
        });
        Ok(())
    }

    fn truncate(&mut self, fields: &Fields<'_>, out: &mut Vec<Message>) -> Result<(), Problem> {
        let lsn = fields.lsn.ok_or_else(missing("lsn"))?;
        if self.emptied.as_ref().is_some_and(|(of, _)| *of != lsn) {
            self.flush(out);
        }
        let Some(index) = self.table(fields)? else { return Ok(()) };
        let shape = &mut self.tables[index];
        if !shape.insert_only() {
            let oid = describe(shape, out);
            self.emptied.get_or_insert_with(|| (lsn, Vec::new())).1.push(oid);
        }
        Ok(())
    }

    /// The TRUNCATE that was collected. wal2json does not tell CASCADE (the tables it reached are named like the others)
    /// and not RESTART IDENTITY.
    fn flush(&mut self, out: &mut Vec<Message>) {
        if let Some((_, relations)) = self.emptied.take() {
            out.push(Message::Truncate { xid: None, relations, cascade: false, restart_identity: false });
        }
    }
}

/// Tells the table's columns where they have not been told; gives its oid.
fn describe(shape: &mut Shape, out: &mut Vec<Message>) -> Oid {
    if !std::mem::replace(&mut shape.told, true) {
        out.push(Message::Relation { xid: None, relation: (*shape.relation).clone() });
    }
    shape.relation.oid
}

/// The old row's columns are in the new row with the same values: the key did not change. wal2json then takes the key from
/// the new row, where pgoutput sends none.
fn same_values(frame: &[u8], old: &Columns<'_>, new: &Columns<'_>) -> bool {
    old.sent.iter().enumerate().all(|(at, column)| {
        let there = new.sent.iter().position(|n| n.name == column.name);
        there.is_some_and(|n| {
            old.values[at] == new.values[n] || old.written(frame, at) == new.written(frame, n)
        })
    })
}

fn fields<'a>(json: &mut Json<'a>) -> Result<Fields<'a>, Problem> {
    let mut fields = Fields::default();
    json.expect(b'{')?;
    let mut more = json.any(b'}')?;
    while more {
        match json.key()? {
            b"action" => fields.action = *json.text_of("action")?.as_bytes().first().unwrap_or(&0),
            // Of messages outside of transactions it is null.
            b"xid" if json.peek()? != b'n' => fields.xid = u32::try_from(json.number("xid")?).ok(),
            b"lsn" => fields.lsn = Some(json.lsn("lsn")?),
            b"nextlsn" => fields.next_lsn = Some(json.lsn("nextlsn")?),
            b"timestamp" if matches!(fields.action, b'B' | b'C') => {
                let text = json.text_of("timestamp")?;
                fields.time = Some(time::timestamp(&text).ok_or(Problem::Truncated("timestamp"))?);
            }
            b"schema" => fields.schema = Some(json.text_of("schema")?),
            b"table" => fields.table = Some(json.text_of("table")?),
            b"columns" => fields.columns = Some(row::columns(json)?),
            b"identity" => fields.identity = Some(row::columns(json)?),
            b"transactional" => fields.transactional = Some(json.boolean("transactional")?),
            b"prefix" => fields.prefix = Some(json.text_of("prefix")?),
            b"content" => fields.content = Some(json.text_of("content")?),
            _ => json.skip()?,
        }
        more = json.more(b'}')?;
    }
    match json.bytes.len() - json.at {
        0 => Ok(fields),
        rest => Err(Problem::Trailing(rest)),
    }
}

fn kind_of(action: u8) -> &'static str {
    match action {
        b'B' => "Begin",
        b'C' => "Commit",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        _ => "unknown",
    }
}
