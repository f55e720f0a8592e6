//! Changes that wait in the target instead of being applied: as rows of `repcloud.parked`, and back. Pure.
//!
//! A change is kept so that it can be replayed exactly: its images, the shape of its table, its transaction. A value that
//! was not sent stays one that was not sent.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::apply::conflict::operation;
use crate::apply::encode::{BinaryValueError, TextArray};
use crate::apply::plan::{Located, Step};
use crate::apply::route::{ParkedRoute, RouteTable};
use crate::apply::single::stamp_text;
use crate::model::{
    Change, OldTuple, Relation, RelationColumn, ReplicaIdentity, TableName, Tuple, TxnId, Value,
};

/// Columns of a row, in the order of the statement's parameters.
const COLUMNS: usize = 9;

/// Collects the rows of one step.
#[derive(Debug, Default)]
pub(crate) struct ParkPlan {
    rows: Vec<[Option<String>; COLUMNS]>,
    /// By parked route: the description its latest rows were written under.
    described: HashMap<usize, *const Relation>,
    key: Option<[String; 2]>,
}

impl ParkPlan {
    /// Keeps a row change for the route with this index.
    pub(crate) fn add(&mut self, id: usize, route: &ParkedRoute, located: &Located<'_>) {
        let (relation, old, new) = match located.change {
            Change::Insert { relation, new } => (relation, None, Some(new)),
            Change::Update { relation, old, new } => (relation, old.as_ref(), Some(new)),
            Change::Delete { relation, old } => (relation, Some(old), None),
            Change::Truncate { .. } => return,
        };
        let address = Arc::as_ptr(relation);
        if self.described.insert(id, address) != Some(address) {
            let detail = Some(relation_json(relation).to_string());
            self.push(route, &located.txn, "relation", detail, [None, None, None]);
        }
        let kind = old.map(|old| match old {
            OldTuple::Key(_) => "key".to_owned(),
            OldTuple::Full(_) => "full".to_owned(),
        });
        let images = [kind, old.map(|o| tuple_json(o.tuple())), new.map(tuple_json)];
        self.push(route, &located.txn, operation(located.change), None, images);
    }

    /// Keeps a TRUNCATE for every parked route that it touches.
    pub(crate) fn truncate(
        &mut self,
        routes: &RouteTable,
        relations: &[Arc<Relation>],
        restart_identity: bool,
        txn: &TxnId,
    ) {
        for route in routes.parked() {
            let hit = |p: &TableName| relations.iter().any(|r| r.name == *p);
            if route.published.iter().any(hit) {
                let whole = route.published.iter().all(hit);
                let detail = json!({ "restart_identity": restart_identity, "whole": whole });
                self.push(route, txn, "truncate", Some(detail.to_string()), [None, None, None]);
            }
        }
    }

    fn push(
        &mut self,
        route: &ParkedRoute,
        txn: &TxnId,
        operation: &str,
        detail: Option<String>,
        [old_kind, old, new]: [Option<String>; 3],
    ) {
        self.key.get_or_insert_with(|| [route.key.source.clone(), route.key.target.clone()]);
        self.rows.push([
            Some(route.target.to_string()),
            Some(txn.commit_lsn.to_string()),
            Some(stamp_text(txn.commit_time)),
            Some(txn.xid.to_string()),
            Some(operation.to_owned()),
            detail,
            old_kind,
            old,
            new,
        ]);
    }

    /// Appends the step that writes them, if there is anything to write.
    pub(crate) fn finish(self, steps: &mut Vec<Step>) -> Result<(), BinaryValueError> {
        let Some(key) = self.key else { return Ok(()) };
        let value =
            |text: &'_ Option<String>| -> Option<Vec<u8>> { text.as_ref().map(|t| t.as_bytes().to_vec()) };
        let mut params = Vec::with_capacity(COLUMNS + key.len());
        for column in 0..COLUMNS {
            let values: Vec<Option<Vec<u8>>> =
                self.rows.iter().map(|row| row.get(column).and_then(value)).collect();
            params.push(TextArray::of(
                values.iter().map(|v| v.as_ref().map_or(Value::Null, |v| Value::Text(v))),
            )?);
        }
        for name in &key {
            params.push(TextArray::of(std::iter::once(Value::Text(name.as_bytes())))?);
        }
        steps.push(Step::Park { rows: self.rows.len(), params });
        Ok(())
    }
}

/// The statement of [`Step::Park`]: parameters are the columns of a row, then the stream's two names. It touches as many
/// rows as it was given, and keeps the tables' count.
pub(crate) const PARK: &str = "WITH p AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) \
     WITH ORDINALITY AS p(target_table, commit_lsn, commit_time, xid, operation, detail, old_kind, old_row, new_row, n)), \
     counted AS (UPDATE repcloud.table_state t SET parked_changes = t.parked_changes + s.changes, parked_bytes = t.parked_bytes + s.bytes \
     FROM (SELECT target_table, count(*) FILTER (WHERE operation <> 'relation') AS changes, \
     sum(coalesce(octet_length(detail), 0) + coalesce(octet_length(old_row), 0) + coalesce(octet_length(new_row), 0)) AS bytes FROM p GROUP BY 1) s \
     WHERE t.source = ($10::text[])[1] AND t.target = ($11::text[])[1] AND t.target_table = s.target_table) \
     INSERT INTO repcloud.parked (source, target, target_table, commit_lsn, commit_time, xid, operation, detail, old_kind, old_row, new_row) \
     SELECT ($10::text[])[1], ($11::text[])[1], target_table, commit_lsn::pg_lsn, commit_time::timestamptz, xid::bigint, operation, \
     detail::json, old_kind, old_row::json, new_row::json FROM p ORDER BY n";

/// Number of parameters of [`PARK`].
pub(crate) const PARK_PARAMETERS: usize = COLUMNS + 2;

/// One row of `repcloud.parked`, as far as a change is made from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedRow {
    /// Target table, as SQL writes it.
    pub target_table: String,
    /// `relation`, `insert`, …
    pub operation: String,
    /// Of a relation or a TRUNCATE.
    pub detail: Option<String>,
    /// `key` or `full`.
    pub old_kind: Option<String>,
    /// Old image.
    pub old_row: Option<String>,
    /// New image.
    pub new_row: Option<String>,
}

/// A parked row says something nobody wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of repcloud.parked for {0} cannot be read")]
pub struct ParkedRowError(pub String);

/// What a parked row becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unparked {
    /// Nothing by itself: it describes the rows that follow.
    Described,
    /// A change of the table called as the *target* table is: several targets may wait for one source.
    Change(Change),
    /// A TRUNCATE of some leaves of a partitioned source table.
    LeafTruncated,
}

/// Turns rows back into changes, in their order.
#[derive(Debug, Default)]
pub struct Unparker {
    relations: HashMap<String, Arc<Relation>>,
}

impl Unparker {
    /// The change of the next row. `name` is its target table.
    pub fn take(&mut self, name: &TableName, row: &ParkedRow) -> Result<Unparked, ParkedRowError> {
        self.read(name, row).ok_or_else(|| ParkedRowError(row.target_table.clone()))
    }

    fn read(&mut self, name: &TableName, row: &ParkedRow) -> Option<Unparked> {
        if row.operation == "relation" {
            let relation = relation_from(name, &serde_json::from_str(row.detail.as_deref()?).ok()?)?;
            self.relations.insert(row.target_table.clone(), Arc::new(relation));
            return Some(Unparked::Described);
        }
        if row.operation == "truncate" {
            let detail: Json = serde_json::from_str(row.detail.as_deref()?).ok()?;
            if !detail.get("whole")?.as_bool()? {
                return Some(Unparked::LeafTruncated);
            }
            let relation = Relation {
                oid: 0,
                name: name.clone(),
                identity: ReplicaIdentity::Default,
                columns: Vec::new(),
            };
            return Some(Unparked::Change(Change::Truncate {
                relations: vec![Arc::new(relation)],
                cascade: false,
                restart_identity: detail.get("restart_identity")?.as_bool()?,
            }));
        }
        let relation = self.relations.get(&row.target_table)?.clone();
        let image = |text: &Option<String>| tuple_from(text.as_deref()?, relation.columns.len());
        let old = match row.old_kind.as_deref() {
            None => None,
            Some("key") => Some(OldTuple::Key(image(&row.old_row)?)),
            Some("full") => Some(OldTuple::Full(image(&row.old_row)?)),
            Some(_) => return None,
        };
        Some(Unparked::Change(match row.operation.as_str() {
            "insert" => Change::Insert { new: image(&row.new_row)?, relation },
            "update" => Change::Update { old, new: image(&row.new_row)?, relation },
            "delete" => Change::Delete { old: old?, relation },
            _ => return None,
        }))
    }
}

fn identity_letter(identity: ReplicaIdentity) -> &'static str {
    match identity {
        ReplicaIdentity::Default => "d",
        ReplicaIdentity::Nothing => "n",
        ReplicaIdentity::Full => "f",
        ReplicaIdentity::Index => "i",
    }
}

fn relation_json(relation: &Relation) -> Json {
    let columns: Vec<Json> = relation
        .columns
        .iter()
        .map(|c| json!([c.name, c.type_oid, c.type_modifier, c.in_identity]))
        .collect();
    json!({
        "oid": relation.oid,
        "table": relation.name.to_string(),
        "identity": identity_letter(relation.identity),
        "columns": columns,
    })
}

fn relation_from(name: &TableName, json: &Json) -> Option<Relation> {
    let column = |c: &Json| {
        Some(RelationColumn {
            name: c.get(0)?.as_str()?.to_owned(),
            type_oid: u32::try_from(c.get(1)?.as_u64()?).ok()?,
            type_modifier: i32::try_from(c.get(2)?.as_i64()?).ok()?,
            in_identity: c.get(3)?.as_bool()?,
        })
    };
    Some(Relation {
        oid: u32::try_from(json.get("oid")?.as_u64()?).ok()?,
        name: name.clone(),
        identity: ReplicaIdentity::from_letter(*json.get("identity")?.as_str()?.as_bytes().first()?)?,
        columns: json.get("columns")?.as_array()?.iter().map(column).collect::<Option<_>>()?,
    })
}

fn tuple_json(tuple: &Tuple) -> String {
    let values: Vec<Json> = tuple
        .values()
        .map(|value| match value {
            Value::Null => Json::Null,
            Value::Unchanged => Json::Bool(false),
            Value::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Json::String(text.to_owned()),
                Err(_) => json!({ "hex": hex(bytes) }),
            },
            Value::Binary(bytes) => json!({ "binary": hex(bytes) }),
        })
        .collect();
    Json::Array(values).to_string()
}

fn tuple_from(text: &str, columns: usize) -> Option<Tuple> {
    /// A value with the bytes it lies in.
    enum Owned {
        Null,
        Unchanged,
        Text(Vec<u8>),
        Binary(Vec<u8>),
    }
    let values: Vec<Json> = serde_json::from_str(text).ok()?;
    let values: Vec<Owned> = values
        .into_iter()
        .map(|value| {
            Some(match value {
                Json::Null => Owned::Null,
                Json::Bool(false) => Owned::Unchanged,
                Json::String(text) => Owned::Text(text.into_bytes()),
                Json::Object(object) => match (object.get("hex"), object.get("binary")) {
                    (Some(Json::String(text)), _) => Owned::Text(unhex(text)?),
                    (None, Some(Json::String(text))) => Owned::Binary(unhex(text)?),
                    _ => return None,
                },
                _ => return None,
            })
        })
        .collect::<Option<_>>()?;
    let tuple = values.iter().map(|value| match value {
        Owned::Null => Value::Null,
        Owned::Unchanged => Value::Unchanged,
        Owned::Text(bytes) => Value::Text(bytes),
        Owned::Binary(bytes) => Value::Binary(bytes),
    });
    (values.len() == columns).then(|| tuple.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits.chunks(2).map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_image_comes_back_as_it_went() {
        let values = [
            Value::Null,
            Value::Unchanged,
            Value::Text(b""),
            Value::Text("\"quoted\" \\ \u{1} \u{1F600}".as_bytes()),
            Value::Text(b"\xff\x00a"),
            Value::Binary(b"\x01\x02"),
        ];
        let tuple: Tuple = values.into_iter().collect();
        let text = tuple_json(&tuple);
        assert_eq!(tuple_from(&text, 6), Some(tuple));
        assert_eq!(tuple_from(&text, 5), None);
        assert_eq!(tuple_from("[1]", 1), None);
        assert_eq!(tuple_from("[{\"hex\":\"0\"}]", 1), None);
    }

    #[test]
    fn a_relation_comes_back_under_the_targets_name() {
        let relation = crate::apply::route::tests::relation(&["a", "b"], &[0]);
        let target = TableName::new("public", "copy of t");
        let back = relation_from(&target, &relation_json(&relation)).unwrap();
        assert_eq!((back.name.clone(), &back.columns), (target, &relation.columns));
        assert_eq!((back.oid, back.identity), (relation.oid, relation.identity));
    }
}
