//! A picture of everything that hangs on a table, to compare before and after. Pure.
//!
//! Oids, sizes and what our role may do are left out: an exchange changes the first two, and the last is no property of the
//! table. Everything else of an [`Inventory`] is in, also what no kind carries over, so that DDL during a run is seen whatever it did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{RetryAdvice, TableName, quote_ident};
use crate::repack::dependents::{Inventory, Matview, StorageOptions};
use crate::repack::plan::PlanOptions;

/// What is left out, wherever it stands.
const VOLATILE: &[&str] = &[
    "oid",
    "part_oid",
    "relation_oid",
    "member",
    "bytes",
    "uses",
    "is_replica_identity",
    "may_act",
    "may_alter",
    "may_create",
    "may_execute",
    "may_lock",
    "may_lock_referencing",
    "may_reference",
    "may_select",
    "may_use_tablespace",
];

/// What is left out of the table's own settings besides.
const OURS: &[&str] = &[
    "sql_name",
    "role",
    "role_is_owner",
    "database",
    "may_create_in_database",
    "may_create_in_schema",
    "tablespaces",
    "standard_grants",
    "standard_sequence_grants",
    "preset_grants",
    "preset_sequence_grants",
    "replica_identity",
];

/// How entries begin that an exchange leaves to VALIDATE CONSTRAINT.
const VALIDITY: &str = "validity of ";

/// How entries begin that tell whether something is filled: no change of the table, but the exchange must leave it as it is.
const CONTENT: &str = "content of ";

/// Objects by name, each with its definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    objects: BTreeMap<String, String>,
}

/// The stored text is not a fingerprint of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored fingerprint cannot be read ({problem}): another version of repcloud wrote it")]
pub struct FingerprintError {
    problem: String,
}

impl FingerprintError {
    /// What the caller should do.
    pub fn advice(&self) -> RetryAdvice {
        RetryAdvice::Stop
    }
}

/// The fingerprint of a table as it is.
pub fn fingerprint(inventory: &Inventory) -> Fingerprint {
    let mut book = Book::default();
    table(inventory, &mut book);
    let name = &inventory.table;
    let schema = quote_ident(&name.schema);
    for column in &inventory.columns {
        let mut column = column.clone();
        // No grants, and grants that were all taken back, are the same.
        column.grants = column.grants.filter(|grants| !grants.is_empty());
        book.add(format!("column {name}.{}", quote_ident(&column.name)), &column);
    }
    for sequence in &inventory.sequences {
        let mut sequence = sequence.clone();
        sequence.grants.get_or_insert_with(|| inventory.head.standard_sequence_grants.clone());
        let place = format!("{}.{}", quote_ident(&sequence.schema), quote_ident(&sequence.name));
        book.add(format!("sequence {place}"), &sequence);
    }
    for default in &inventory.defaults {
        let column = quote_ident(&default.column);
        book.add(format!("default of column {}.{column}", default.place()), default);
    }
    for check in &inventory.checks {
        book.add(format!("constraint {} on {name}", quote_ident(&check.name)), check);
    }
    for index in inventory.indexes.iter().filter(|index| index.valid) {
        book.add(format!("index {schema}.{}", quote_ident(&index.name)), index);
    }
    for key in &inventory.foreign_keys {
        let label = format!("foreign key {} on {}", quote_ident(&key.name), key.referencing());
        book.add(format!("{VALIDITY}{label}"), &key.validated);
        let mut key = key.clone();
        key.validated = false;
        if let Some(definition) = key.definition.strip_suffix(" NOT VALID") {
            key.definition = definition.to_owned();
        }
        book.add(label, &key);
    }
    for statistics in &inventory.statistics {
        let mut statistics = statistics.clone();
        statistics.definition = in_any_order(&statistics.definition);
        book.add(format!("statistics {}", statistics.sql_name), &statistics);
    }
    for trigger in &inventory.triggers {
        book.add(format!("trigger {} on {}", quote_ident(&trigger.name), trigger.place()), trigger);
    }
    for policy in &inventory.policies {
        let mut policy = policy.clone();
        // In no order: what made it kept none.
        policy.roles.sort();
        book.add(format!("policy {} on {}", quote_ident(&policy.name), policy.place()), &policy);
    }
    for rule in &inventory.rules {
        book.add(format!("rule {} on {}", quote_ident(&rule.name), rule.place()), rule);
    }
    for view in &inventory.views {
        book.add(format!("view {}", view.place()), view);
    }
    matviews(inventory, &mut book);
    for function in &inventory.functions {
        book.add(format!("function {}", function.signature), function);
    }
    places(inventory, &mut book);
    for other in inventory.unclaimed() {
        book.add(other.description.clone(), other);
    }
    book.close()
}

/// What the table is a member of: publications, partitioned tables, inheritance.
fn places(inventory: &Inventory, book: &mut Book) {
    let name = &inventory.table;
    for publication in &inventory.publications {
        let mut publication = publication.clone();
        // A set, told in the order of the table.
        if let Some(columns) = &mut publication.columns {
            columns.sort();
        }
        book.add(format!("publication {}", quote_ident(&publication.name)), &publication);
    }
    for partition in &inventory.partition_of {
        let mut partition = partition.clone();
        // Others may come and go; what that means for this one is in its condition.
        partition.default_partition = None;
        book.add(format!("place of table {name} in {}", partition.parent()), &partition);
    }
    for relative in &inventory.relatives {
        let other = TableName::new(&relative.schema, &relative.table);
        book.add(format!("inheritance between {name} and {other}"), relative);
    }
}

fn matviews(inventory: &Inventory, book: &mut Book) {
    for view in &inventory.matviews {
        let label = format!("materialized view {}", view.place());
        book.add(format!("{CONTENT}{label}"), &view.populated);
        book.add(label, &plain(view));
    }
}

/// A materialized view without what makes no difference.
fn plain(view: &Matview) -> Matview {
    let mut view = view.clone();
    view.grants.get_or_insert_with(|| view.standard_grants.clone());
    view.populated = true;
    view.indexes.retain(|index| index.valid);
    view.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    for column in &mut view.columns {
        column.grants = column.grants.take().filter(|grants| !grants.is_empty());
    }
    view
}

/// The fingerprint a table will have after a repack with these options.
pub fn expected(inventory: &Inventory, options: &PlanOptions) -> Fingerprint {
    let mut after = inventory.clone();
    after.head.options = StorageOptions::new(&inventory.head, options.fillfactor).into_own();
    if let Some(tablespace) = &options.tablespace {
        after.head.tablespace.clone_from(tablespace);
        after.indexes.iter_mut().for_each(|index| index.tablespace.clone_from(tablespace));
    }
    let place = |name: &String| options.column_order.iter().position(|column| column == name);
    after.columns.sort_by_key(|column| place(&column.name));
    fingerprint(&after)
}

/// CREATE STATISTICS with its columns sorted: they are a set, told in the order of the table.
fn in_any_order(definition: &str) -> String {
    let Some((before, rest)) = definition.split_once(" ON ") else { return definition.to_owned() };
    let Some((columns, after)) = rest.rsplit_once(" FROM ") else { return definition.to_owned() };
    let (mut depth, mut quoted) = (0_i32, false);
    let mut parts: Vec<&str> = columns
        .split(|letter| {
            quoted ^= letter == '"';
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            letter == ',' && depth == 0 && !quoted
        })
        .map(str::trim)
        .collect();
    parts.sort_unstable();
    format!("{before} ON {} FROM {after}", parts.join(", "))
}

fn table(inventory: &Inventory, book: &mut Book) {
    let name = &inventory.table;
    let mut head = inventory.head.clone();
    head.grants.get_or_insert_with(|| head.standard_grants.clone());
    match serde_json::to_value(&head) {
        Ok(Value::Object(settings)) => {
            for (setting, value) in settings.into_iter().filter(|(key, _)| !OURS.contains(&key.as_str())) {
                book.add(format!("{} of table {name}", setting.replace('_', " ")), &value);
            }
        }
        other => book.add(format!("table {name}"), &other.ok()),
    }
    book.add(format!("owner of table {name}"), &inventory.owner);
    let columns: Vec<&str> = inventory.columns.iter().map(|column| column.name.as_str()).collect();
    book.add(columns_of(name), &columns);
    // By itself: a repack may have to change the source's.
    let marked = inventory.indexes.iter().find(|index| index.is_replica_identity).map(|index| &index.name);
    book.add(Fingerprint::replica_identity_of(name), &(&inventory.head.replica_identity, marked));
}

fn columns_of(table: &TableName) -> String {
    format!("columns of table {table}")
}

impl Fingerprint {
    /// The name under which a table's replica identity stands in [`Fingerprint::differences`].
    pub fn replica_identity_of(table: &TableName) -> String {
        format!("replica identity of table {table}")
    }

    /// The table's columns in their order; `None` where that cannot be read.
    pub(crate) fn columns_of(&self, table: &TableName) -> Option<Vec<String>> {
        serde_json::from_str(self.objects.get(&columns_of(table))?).ok()
    }

    /// Names of the objects that are in one only or differ. Whether a materialized view is filled is no difference.
    pub fn differences(&self, other: &Fingerprint) -> Vec<String> {
        self.all(other).into_iter().filter(|name| !name.starts_with(CONTENT)).collect()
    }

    fn all(&self, other: &Fingerprint) -> Vec<String> {
        let mut names: Vec<&String> = self.objects.keys().chain(other.objects.keys()).collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .filter(|name| self.objects.get(*name) != other.objects.get(*name))
            .cloned()
            .collect()
    }

    /// What an exchange has changed: all, but for the validity of foreign keys, which comes back only after it.
    pub fn differences_in_exchange(&self, other: &Fingerprint) -> Vec<String> {
        self.all(other).into_iter().filter(|name| !name.starts_with(VALIDITY)).collect()
    }

    /// As text to store; equal fingerprints give equal texts.
    pub fn to_text(&self) -> String {
        Value::from_iter(self.objects.iter().map(|(name, text)| (name.clone(), text.clone()))).to_string()
    }

    /// From stored text.
    pub fn from_text(text: &str) -> Result<Self, FingerprintError> {
        serde_json::from_str(text)
            .map(|objects| Fingerprint { objects })
            .map_err(|error| FingerprintError { problem: error.to_string() })
    }
}

/// Collects objects; several under one name are told apart by what they say, not by their order.
#[derive(Debug, Default)]
struct Book(BTreeMap<String, Vec<String>>);

impl Book {
    fn add<T: Serialize>(&mut self, name: String, object: &T) {
        let text = match serde_json::to_value(object) {
            Ok(mut value) => {
                strip(&mut value);
                value.to_string()
            }
            // Does not happen to structs of texts, numbers and lists; and if, it compares unequal to anything else.
            Err(error) => error.to_string(),
        };
        self.0.entry(name).or_default().push(text);
    }

    fn close(self) -> Fingerprint {
        let objects = self.0.into_iter().map(|(name, mut texts)| {
            texts.sort();
            (name, texts.join("\n"))
        });
        Fingerprint { objects: objects.collect() }
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
