//! From table definitions and options to routes, and what stands in the way on the target. Pure.

use crate::apply::checkpoint::{TableRecord, TableState};
use crate::apply::route::{Delivery, Route, ShapeFingerprint};
use crate::catalog::{ColumnDef, IdentityKind, TableDef, TableKind};
use crate::flow::options::EntryOptions;
use crate::flow::view::TableView;
use crate::model::{Lsn, ReplicaIdentity, TableName, quote_ident};
use crate::sql::shape::{ShapeColumn, ShapeTable};

/// One source table and the target table it feeds.
#[derive(Debug, Clone)]
pub struct TableWork {
    /// The source table.
    pub source: TableDef,
    /// Definitions of its leaves when it is partitioned.
    pub leaves: Vec<TableDef>,
    /// Name of the target table.
    pub target: TableName,
    /// Its entry.
    pub entry: EntryOptions,
}

/// See [`TableWork::fate`].
enum Fate<'w, 'k> {
    There(&'w ColumnDef),
    Renamed { before: &'k str, now: &'w ColumnDef },
    Gone,
}

/// A table's first row in `repcloud.table_state`.
pub(crate) fn new_record(work: &TableWork, state: TableState, copied_at: Lsn) -> TableRecord {
    TableRecord {
        target_table: work.target.to_string(),
        source_table: work.source.name.to_string(),
        source_oid: Some(work.source.oid),
        target_oid: None,
        mode: work.mode().to_owned(),
        state,
        copied_at,
        made_by_us: false,
        known_columns: Some(work.fingerprint()),
        rows_copied: 0,
        rows_total: work.rows_estimate(),
        error: None,
        parked_with: None,
        parked_changes: 0,
        parked_bytes: 0,
    }
}

/// What stands in the way on the target; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target table {table}: {problem}{}", help_text(.help))]
pub struct TargetFinding {
    /// Target table.
    pub table: TableName,
    /// What is wrong.
    pub problem: String,
    /// A statement that helps, if one does.
    pub help: Option<String>,
}

fn help_text(help: &Option<String>) -> String {
    help.as_ref().map(|h| format!("; run on the target: {h};")).unwrap_or_default()
}

impl TableWork {
    /// The columns replicated, by name: the configured ones, else all that are not generated.
    pub fn columns(&self) -> Vec<&ColumnDef> {
        self.source.columns.iter().filter(|c| self.replicates(c)).collect()
    }

    fn replicates(&self, column: &ColumnDef) -> bool {
        column.generated.is_none()
            && self.entry.columns.as_ref().is_none_or(|names| names.contains(&column.name))
    }

    /// The key by which target rows are found; empty: rows are matched whole, or only inserted.
    ///
    /// With REPLICA IDENTITY FULL every old value is known, so the target's primary key serves where its columns are
    /// replicated; else the identity must be the key.
    pub fn key(&self, target: &TableDef) -> Vec<String> {
        let replicated = |names: &[String]| names.iter().all(|n| self.columns().iter().any(|c| c.name == *n));
        if let Some(key) = &self.entry.key {
            return key.clone();
        }
        match self.source.identity {
            ReplicaIdentity::Full => [target.primary_key(), self.source.primary_key()]
                .into_iter()
                .flatten()
                .find(|k| replicated(k) && has_unique_index(target, k))
                .unwrap_or_default(),
            ReplicaIdentity::Nothing => {
                self.source.primary_key().filter(|k| replicated(k)).unwrap_or_default()
            }
            _ => self.source.identity_columns().filter(|k| replicated(k)).unwrap_or_default(),
        }
    }

    /// The published tables: the leaves, or the table itself.
    pub fn published(&self) -> Vec<TableName> {
        match self.source.kind {
            TableKind::Partitioned => self.leaves.iter().map(|l| l.name.clone()).collect(),
            _ => vec![self.source.name.clone()],
        }
    }

    /// As CONTRACT names it.
    pub fn mode(&self) -> &'static str {
        self.entry.mode()
    }

    /// Rows the source's statistics tell; 0 when they tell nothing.
    pub fn rows_estimate(&self) -> i64 {
        let tables = if self.leaves.is_empty() { std::slice::from_ref(&self.source) } else { &self.leaves };
        tables.iter().map(|t| t.estimated_rows.max(0.0) as i64).sum()
    }

    /// What is shown of it before anything is known.
    pub fn view(&self) -> TableView {
        TableView {
            source_table: self.source.name.to_string(),
            target_table: self.target.to_string(),
            mode: self.mode().to_owned(),
            state: "waiting".to_owned(),
            rows_total: u64::try_from(self.rows_estimate()).unwrap_or(0),
            ..TableView::default()
        }
    }

    /// The source's columns as they are now.
    pub fn fingerprint(&self) -> Vec<ShapeFingerprint> {
        self.columns()
            .into_iter()
            .map(|c| ShapeFingerprint {
                name: c.name.clone(),
                type_oid: c.type_oid,
                type_modifier: c.type_modifier,
                attnum: c.attnum,
                accepted: false,
            })
            .collect()
    }

    /// What became of the columns that were known when the table was copied or last accepted.
    fn fate<'k>(&self, known: &'k ShapeFingerprint) -> Fate<'_, 'k> {
        // Asked for each column of a table, of which there may be 1,600: no list is made.
        let find = |same: &dyn Fn(&ColumnDef) -> bool| {
            self.source.columns.iter().find(|c| same(c) && self.replicates(c))
        };
        if known.attnum == 0 {
            return find(&|c| c.name == known.name).map_or(Fate::Gone, Fate::There);
        }
        match find(&|c| c.attnum == known.attnum) {
            Some(now) if now.name == known.name => Fate::There(now),
            Some(now) => Fate::Renamed { before: &known.name, now },
            None => Fate::Gone,
        }
    }

    /// True when what is new about the source's columns has been taken over by the target, so that the present shape
    /// may be recorded once the changes on their way have passed. A changed type is never taken over silently.
    pub fn is_settled(&self, known: Option<&[ShapeFingerprint]>, target: &TableDef) -> bool {
        known.unwrap_or_default().iter().all(|known| match self.fate(known) {
            Fate::Gone => known.accepted || target.column(&known.name).is_none(),
            Fate::There(now) | Fate::Renamed { now, .. } => {
                known.accepted || (now.type_oid, now.type_modifier) == (known.type_oid, known.type_modifier)
            }
        })
    }
}

/// The route of `work`, or everything that stands in the way.
///
/// `replica_role`: the role may set `session_replication_role`, so triggers and foreign keys rest.
pub fn route(
    work: &TableWork,
    target: &TableDef,
    record: Option<&TableRecord>,
    replica_role: bool,
) -> Result<Route, Vec<TargetFinding>> {
    let mut findings = Findings { table: target.name.clone(), list: Vec::new() };
    // We make a key when the rows are there; a copy that was cut off before is done again.
    let key_to_come = record.is_some_and(|r| r.made_by_us && r.state == TableState::Copying);
    let key = match work.key(target) {
        key if key.is_empty() && key_to_come => work.source.primary_key().unwrap_or_default(),
        key => key,
    };
    let known = record.and_then(|r| r.known_columns.as_deref()).unwrap_or_default();
    let columns = replicated(work, target, known);
    check_kind(target, &mut findings);
    check_columns(work, target, known, &mut findings);
    check_key(work, target, &key, key_to_come, &mut findings);
    if !replica_role {
        check_reactions(target, &mut findings);
    }
    if !findings.list.is_empty() {
        return Err(findings.list);
    }
    let position =
        |name: &String| columns.iter().position(|c| c.name == *name).and_then(|i| u16::try_from(i).ok());
    let identity_always_key =
        columns.iter().any(|c| c.identity == IdentityKind::Always && key.contains(&c.name));
    let logdel = work.entry.delivery == Delivery::LogDel;
    let has_extra_columns = has_extra(work, target, &columns);
    // logdel keeps the row. Else foreign keys and triggers must rest, and no column may be the target's own.
    let awake = target.triggers.iter().any(|t| matches!(t.enabled, 'A' | 'R'));
    let replace_allowed = logdel || replica_role && !has_extra_columns && !awake;
    Ok(Route {
        source: work.source.name.clone(),
        published: work.published(),
        target: target.name.clone(),
        shape: ShapeTable {
            sql_name: target.name.to_string(),
            columns: columns
                .iter()
                .map(|c| ShapeColumn {
                    name: c.name.clone(),
                    input_type: c.input_type_sql.clone(),
                    rewrite: None,
                })
                .collect(),
            key: key.iter().filter_map(position).collect(),
            deleted_column: logdel.then(|| work.entry.deleted_column.clone()),
            fixed_key: identity_always_key,
        },
        delivery: work.entry.delivery,
        on_conflict: work.entry.on_conflict,
        copied_at: record.map_or(Lsn::INVALID, |r| r.copied_at),
        known_columns: record.and_then(|r| r.known_columns.clone()),
        columns_chosen: work.entry.columns.is_some(),
        has_extra_columns,
        identity_always_key,
        copy_allowed: !logdel,
        replace_allowed,
        has_deferrable: target.constraints.iter().any(|c| c.deferrable),
        ignored_columns: target
            .columns
            .iter()
            .filter(|c| c.generated.is_some())
            .map(|c| c.name.clone())
            .chain(known.iter().filter(|k| matches!(work.fate(k), Fate::Gone)).map(|k| k.name.clone()))
            .collect(),
        former_names: known
            .iter()
            .filter_map(|k| match work.fate(k) {
                Fate::Renamed { before, now } => Some((before.to_owned(), now.name.clone())),
                Fate::There(_) | Fate::Gone => None,
            })
            .collect(),
    })
}

/// The target's columns that changes write: those of the source as it is, and those it had when the table was copied,
/// which changes on their way may still bring.
fn replicated<'t>(work: &TableWork, target: &'t TableDef, known: &[ShapeFingerprint]) -> Vec<&'t ColumnDef> {
    let now = work.columns();
    let gone = known.iter().filter(|k| matches!(work.fate(k), Fate::Gone)).map(|k| &k.name);
    let gone = gone.filter(|name| !now.iter().any(|c| c.name == **name));
    now.iter()
        .map(|c| &c.name)
        .chain(gone)
        .filter_map(|name| target.column(name).filter(|t| t.generated.is_none()))
        .collect()
}

struct Findings {
    table: TableName,
    list: Vec<TargetFinding>,
}

impl Findings {
    fn add(&mut self, problem: impl Into<String>, help: Option<String>) {
        self.list.push(TargetFinding { table: self.table.clone(), problem: problem.into(), help });
    }
}

fn has_unique_index(target: &TableDef, key: &[String]) -> bool {
    target.indexes.iter().any(|i| {
        i.unique
            && i.valid
            && i.immediate
            && i.predicate.is_none()
            && i.plain_columns().is_some_and(|c| c.len() == key.len() && key.iter().all(|k| c.contains(k)))
    })
}

fn has_extra(work: &TableWork, target: &TableDef, columns: &[&ColumnDef]) -> bool {
    target.columns.iter().any(|t| {
        t.generated.is_none()
            && !columns.iter().any(|c| c.name == t.name)
            && !(work.entry.delivery == Delivery::LogDel && t.name == work.entry.deleted_column)
    })
}

fn check_kind(target: &TableDef, findings: &mut Findings) {
    match target.kind {
        TableKind::Ordinary | TableKind::Partitioned => {}
        TableKind::Other(_) => findings.add("it is not a table", None),
    }
    if target.row_security.1 {
        findings.add(
            "row-level security is forced on it, changes could miss their rows",
            Some(format!("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY", target.name)),
        );
    }
}

fn check_columns(work: &TableWork, target: &TableDef, known: &[ShapeFingerprint], findings: &mut Findings) {
    let name = &target.name;
    let renamed = |column: &ColumnDef| {
        known.iter().find_map(|k| match work.fate(k) {
            Fate::Renamed { before, now } if now.name == column.name => target.column(before),
            _ => None,
        })
    };
    for column in work.columns() {
        match target.column(&column.name) {
            None => match renamed(column) {
                Some(before) => {
                    let (before, now) = (quote_ident(&before.name), quote_ident(&column.name));
                    findings.add(
                        format!("column {before} was renamed to {now} on the source"),
                        Some(format!("ALTER TABLE {name} RENAME COLUMN {before} TO {now}")),
                    );
                }
                None => findings.add(
                    missing(column),
                    Some(format!("ALTER TABLE {name} ADD COLUMN {}", definition(column))),
                ),
            },
            Some(t) if t.identity == IdentityKind::Always && !work.key(target).contains(&t.name) => {
                let quoted = quote_ident(&t.name);
                findings.add(
                    format!("column {quoted} is GENERATED ALWAYS AS IDENTITY and not part of the key: an update could not set it"),
                    Some(format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET GENERATED BY DEFAULT")),
                );
            }
            Some(_) => {}
        }
    }
    if work.entry.delivery == Delivery::LogDel {
        let quoted = quote_ident(&work.entry.deleted_column);
        match target.column(&work.entry.deleted_column) {
            None => findings.add(
                format!("column {quoted}, which logdel needs, is missing"),
                Some(format!("ALTER TABLE {name} ADD COLUMN {quoted} timestamptz")),
            ),
            Some(c) if c.type_sql != "timestamp with time zone" => {
                findings.add(format!("column {quoted} must be of type timestamptz for logdel"), None);
            }
            Some(c) if c.not_null => findings.add(
                format!("column {quoted} must allow NULL: live rows have no time of deletion"),
                Some(format!("ALTER TABLE {name} ALTER COLUMN {quoted} DROP NOT NULL")),
            ),
            Some(_) => {}
        }
        let unique = target.indexes.iter().filter(|i| i.unique && !i.primary && i.predicate.is_none());
        let key = work.key(target);
        for index in unique.filter(|i| i.plain_columns().is_none_or(|c| c != key)) {
            findings.add(
                format!(
                    "unique index {} must hold for live rows only (WHERE {quoted} IS NULL): a deleted row stays and would keep its value",
                    quote_ident(&index.name)
                ),
                None,
            );
        }
    }
}

fn check_key(work: &TableWork, target: &TableDef, key: &[String], to_come: bool, findings: &mut Findings) {
    let logdel = work.entry.delivery == Delivery::LogDel;
    if key.is_empty() {
        if logdel {
            findings.add("logdel needs a key: give the source table a primary key, or set `key`", None);
        }
        return;
    }
    for column in key {
        if target.column(column).is_none_or(|c| c.generated.is_some()) {
            findings.add(format!("key column {} is missing or generated", quote_ident(column)), None);
            return;
        }
    }
    if !to_come && !has_unique_index(target, key) && !work.entry.insert_only {
        let columns: Vec<_> = key.iter().map(|k| quote_ident(k)).collect();
        findings.add(
            "it has no unique index on the key, rows could neither be found nor told apart",
            Some(format!("CREATE UNIQUE INDEX ON {} ({})", target.name, columns.join(", "))),
        );
    }
}

/// What is said of a column that the target lacks.
fn missing(column: &ColumnDef) -> String {
    let name = quote_ident(&column.name);
    if column.default.as_deref().is_none_or(is_constant) {
        return format!("column {name} is missing");
    }
    format!(
        "column {name} is missing, and its default gave the source's older rows values that no change tells of: add it, then copy the \
         table again (`repcloud reset` with --recopy)"
    )
}

/// A default that gives every row the same, here as there: a literal, perhaps with a cast.
fn is_constant(default: &str) -> bool {
    let literal = default.split("::").next().unwrap_or_default();
    let quoted = default.starts_with('\'') && !default.contains('(');
    quoted || literal.parse::<f64>().is_ok() || matches!(literal, "true" | "false" | "NULL")
}

/// A column as ADD COLUMN wants it. With its default: the source's older rows hold it, and no change tells of them.
fn definition(column: &ColumnDef) -> String {
    let mut text = format!("{} {}", quote_ident(&column.name), column.type_sql);
    // A sequence of the source is not there.
    if let Some(default) = column.default.as_ref().filter(|d| !d.contains("nextval(")) {
        text.push_str(&format!(" DEFAULT {default}"));
        if column.not_null {
            text.push_str(" NOT NULL");
        }
    }
    text
}

/// Where triggers and foreign keys stay awake, those that change rows by themselves would change them twice.
fn check_reactions(target: &TableDef, findings: &mut Findings) {
    const MAY: &str = "or let the role set session_replication_role (GRANT SET ON PARAMETER session_replication_role, PostgreSQL 15)";
    for constraint in &target.constraints {
        if let Some((on_delete, on_update)) = constraint.actions
            && [on_delete, on_update].iter().any(|a| matches!(a, 'c' | 'n' | 'd'))
        {
            findings.add(
                format!(
                    "foreign key {} changes rows by itself (CASCADE, SET NULL or SET DEFAULT), which the source has done already; drop it, {MAY}",
                    quote_ident(&constraint.name)
                ),
                Some(format!("ALTER TABLE {} DROP CONSTRAINT {}", target.name, quote_ident(&constraint.name))),
            );
        }
    }
    for trigger in target.triggers.iter().filter(|t| t.row && matches!(t.enabled, 'O')) {
        findings.add(
            format!(
                "trigger {} fires for every row that is written; disable it, {MAY}",
                quote_ident(&trigger.name)
            ),
            Some(format!("ALTER TABLE {} DISABLE TRIGGER {}", target.name, quote_ident(&trigger.name))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::is_constant;

    #[test]
    fn a_default_that_is_the_same_for_every_row_is_told_from_others() {
        for same in [
            "5",
            "-1.5",
            "'x'::text",
            "'it''s'::character varying",
            "true",
            "NULL::numeric",
            "'2020-01-01'::date",
        ] {
            assert!(is_constant(same), "{same}");
        }
        for other in [
            "now()",
            "nextval('s'::regclass)",
            "CURRENT_TIMESTAMP",
            "gen_random_uuid()",
            "('a'::text || random())",
            "(1 + 1)",
        ] {
            assert!(!is_constant(other), "{other}");
        }
    }
}
