//! One function a query: rows into definitions.

use std::collections::BTreeMap;

use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, Row};

use super::ByTable;
use crate::catalog::error::CatalogError;
use crate::catalog::table_def::{
    ColumnDef, ConstraintDef, IdentityKind, IndexDef, TableDef, TableKind, TriggerDef,
};
use crate::catalog::type_def::{TypeDef, TypeKind, TypeMap};
use crate::model::{Oid, ReplicaIdentity, TableName, quote_ident};

/// What belongs to tables, by table.
pub(super) struct Parts {
    pub(super) columns: ByTable<ColumnDef>,
    pub(super) indexes: ByTable<IndexDef>,
    pub(super) constraints: ByTable<ConstraintDef>,
    pub(super) triggers: ByTable<TriggerDef>,
    pub(super) leaves: ByTable<TableName>,
}

impl Parts {
    /// Moves what belongs to `table` into it.
    pub(super) fn move_into(&mut self, table: &mut TableDef, types: &TypeMap) {
        table.columns = self.columns.remove(&table.oid).unwrap_or_default();
        for column in &mut table.columns {
            column.has_equality = types.has_equality(column.type_oid);
            if let Some(base) = types.base(column.type_oid) {
                column.input_type_sql.clone_from(&base.sql);
            }
        }
        table.indexes = self.indexes.remove(&table.oid).unwrap_or_default();
        table.constraints = self.constraints.remove(&table.oid).unwrap_or_default();
        table.triggers = self.triggers.remove(&table.oid).unwrap_or_default();
        table.leaves = self.leaves.remove(&table.oid).unwrap_or_default();
    }
}

/// Names what was being read when the server's answer was an error.
pub(super) fn server(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> CatalogError {
    move |error| CatalogError::Server { what, error: error.into() }
}

/// `pg_class.relkind`.
pub(super) fn table_kind(letter: &str) -> TableKind {
    match letter.chars().next() {
        Some('r') => TableKind::Ordinary,
        Some('p') => TableKind::Partitioned,
        other => TableKind::Other(other.unwrap_or('?')),
    }
}

/// A row read from left to right.
struct Fields<'a> {
    row: &'a Row,
    next: usize,
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn of(row: &'a Row, what: &'static str) -> Self {
        Fields { row, next: 0, what }
    }

    fn take<T: FromSql<'a>>(&mut self) -> Result<T, CatalogError> {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index).map_err(server(self.what))
    }

    /// A column of PostgreSQL's one-letter codes.
    fn letter(&mut self) -> Result<Option<char>, CatalogError> {
        Ok(self.take::<Option<&str>>()?.and_then(|text| text.chars().next()))
    }

    fn table_name(&mut self) -> Result<Option<TableName>, CatalogError> {
        let (schema, name) = (self.take::<Option<String>>()?, self.take::<Option<String>>()?);
        Ok(schema.zip(name).map(|(schema, table)| TableName { schema, table }))
    }
}

/// Runs a query over table oids and gathers one value a row by table.
async fn by_table<T>(
    client: &Client,
    what: &'static str,
    query: &str,
    oids: &[Oid],
    read: impl Fn(&mut Fields<'_>) -> Result<T, CatalogError>,
) -> Result<ByTable<T>, CatalogError> {
    let mut found: ByTable<T> = BTreeMap::new();
    if oids.is_empty() {
        return Ok(found);
    }
    for row in &client.query(query, &[&oids]).await.map_err(server(what))? {
        let mut fields = Fields::of(row, what);
        let table: Oid = fields.take()?;
        found.entry(table).or_default().push(read(&mut fields)?);
    }
    Ok(found)
}

/// The tables themselves; what belongs to them is still empty.
pub(super) async fn tables(client: &Client, names: &[TableName]) -> Result<Vec<TableDef>, CatalogError> {
    let what = "tables";
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        names.iter().map(|n| (n.schema.as_str(), n.table.as_str())).unzip();
    let rows = client
        .query(include_str!("../queries/tables.sql"), &[&schemas, &tables])
        .await
        .map_err(server(what))?;
    rows.iter().map(|row| table(&mut Fields::of(row, what))).collect()
}

fn table(fields: &mut Fields<'_>) -> Result<TableDef, CatalogError> {
    let oid = fields.take()?;
    let name = TableName::new(fields.take::<String>()?, fields.take::<String>()?);
    let kind = table_kind(fields.take()?);
    let persistence = fields.letter()?.unwrap_or('p');
    let owner = fields.take()?;
    let identity = fields
        .letter()?
        .and_then(|letter| ReplicaIdentity::from_letter(u8::try_from(letter).ok()?))
        .ok_or_else(|| CatalogError::Unknown { what: format!("the replica identity of table {name}") })?;
    Ok(TableDef {
        oid,
        name,
        kind,
        persistence,
        owner,
        columns: Vec::new(),
        indexes: Vec::new(),
        constraints: Vec::new(),
        identity,
        triggers: Vec::new(),
        row_security: (fields.take()?, fields.take()?),
        leaves: Vec::new(),
        pages: fields.take()?,
        estimated_rows: fields.take()?,
    })
}

/// Columns; their input type and equality follow from the types and are filled in later.
pub(super) async fn columns(client: &Client, oids: &[Oid]) -> Result<ByTable<ColumnDef>, CatalogError> {
    by_table(client, "columns", include_str!("../queries/columns.sql"), oids, |fields| {
        let name = fields.take()?;
        let (attnum, type_oid, type_modifier) = (fields.take()?, fields.take()?, fields.take()?);
        let type_sql: String = fields.take()?;
        let not_null = fields.take()?;
        let identity = match fields.letter()? {
            Some('a') => IdentityKind::Always,
            Some('d') => IdentityKind::ByDefault,
            _ => IdentityKind::None,
        };
        let is_generated = fields.letter()?.is_some();
        let expression: Option<String> = fields.take()?;
        let (default, generated) = if is_generated { (None, expression) } else { (expression, None) };
        let collation = fields.table_name()?;
        Ok(ColumnDef {
            name,
            attnum,
            type_oid,
            type_modifier,
            input_type_sql: type_sql.clone(),
            type_sql,
            has_equality: false,
            // A collation's name is qualified as a table's is.
            collation: collation.map(|c| format!("{}.{}", quote_ident(&c.schema), quote_ident(&c.table))),
            not_null,
            default,
            generated,
            identity,
        })
    })
    .await
}

/// Indexes, the primary key's first.
pub(super) async fn indexes(client: &Client, oids: &[Oid]) -> Result<ByTable<IndexDef>, CatalogError> {
    by_table(client, "indexes", include_str!("../queries/indexes.sql"), oids, |fields| {
        Ok(IndexDef {
            name: fields.take()?,
            definition: fields.take()?,
            unique: fields.take()?,
            primary: fields.take()?,
            exclusion: fields.take()?,
            replica_identity: fields.take()?,
            immediate: fields.take()?,
            valid: fields.take()?,
            columns: fields.take()?,
            predicate: fields.take()?,
            referenced: fields.take()?,
        })
    })
    .await
}

/// Constraints by name.
pub(super) async fn constraints(
    client: &Client,
    oids: &[Oid],
) -> Result<ByTable<ConstraintDef>, CatalogError> {
    by_table(client, "constraints", include_str!("../queries/constraints.sql"), oids, |fields| {
        let name = fields.take()?;
        let kind = fields.letter()?.unwrap_or('?');
        let definition = fields.take()?;
        let (deferrable, validated) = (fields.take()?, fields.take()?);
        let references = fields.table_name()?;
        let actions = fields.letter()?.zip(fields.letter()?);
        Ok(ConstraintDef {
            name,
            kind,
            definition,
            deferrable,
            validated,
            columns: fields.take()?,
            actions: if references.is_some() { actions } else { None },
            references,
        })
    })
    .await
}

/// User triggers by name.
pub(super) async fn triggers(client: &Client, oids: &[Oid]) -> Result<ByTable<TriggerDef>, CatalogError> {
    by_table(client, "triggers", include_str!("../queries/triggers.sql"), oids, |fields| {
        Ok(TriggerDef { name: fields.take()?, enabled: fields.letter()?.unwrap_or('O'), row: fields.take()? })
    })
    .await
}

/// Leaf partitions by name.
pub(super) async fn leaves(client: &Client, roots: &[Oid]) -> Result<ByTable<TableName>, CatalogError> {
    by_table(client, "partitions", include_str!("../queries/leaves.sql"), roots, |fields| {
        Ok(TableName::new(fields.take::<String>()?, fields.take::<String>()?))
    })
    .await
}

/// The types with these oids and all they are built from.
pub(super) async fn types(client: &Client, oids: &[Oid]) -> Result<TypeMap, CatalogError> {
    let what = "types";
    let mut map = TypeMap::default();
    if oids.is_empty() {
        return Ok(map);
    }
    for row in &client.query(include_str!("../queries/types.sql"), &[&oids]).await.map_err(server(what))? {
        let found = type_def(&mut Fields::of(row, what))?;
        map.0.insert(found.oid, found);
    }
    Ok(map)
}

fn type_def(fields: &mut Fields<'_>) -> Result<TypeDef, CatalogError> {
    let (oid, schema, name) = (fields.take()?, fields.take()?, fields.take()?);
    let letter = fields.letter()?;
    let (element, base): (Oid, Oid) = (fields.take()?, fields.take()?);
    let (sql, extension, has_btree) = (fields.take()?, fields.take()?, fields.take()?);
    let labels = fields.take()?;
    let domain = TypeKind::Domain {
        base,
        base_sql: fields.take::<Option<String>>()?.unwrap_or_default(),
        not_null: fields.take()?,
        collation: fields.take()?,
        checks: fields.take()?,
    };
    let of_relation = fields.letter()?.is_some_and(|relkind| relkind != 'c');
    let composite = TypeKind::Composite { field_types: fields.take()?, fields: fields.take()?, of_relation };
    let range = range_kind(fields)?;
    let multirange_of: Option<Oid> = fields.take()?;
    let kind = match letter {
        Some('e') => TypeKind::Enum(labels),
        Some('d') => domain,
        Some('c') => composite,
        Some('r') => range,
        Some('m') => TypeKind::Multirange(multirange_of.unwrap_or_default()),
        _ if element != 0 => TypeKind::Array(element),
        _ => TypeKind::Base,
    };
    Ok(TypeDef { oid, schema, name, sql, extension, has_btree, kind })
}

fn range_kind(fields: &mut Fields<'_>) -> Result<TypeKind, CatalogError> {
    let subtype: Option<Oid> = fields.take()?;
    let mut options = Vec::new();
    for name in ["subtype", "subtype_opclass", "collation", "canonical", "subtype_diff"] {
        if let Some(value) = fields.take::<Option<String>>()? {
            options.push(format!("{name} = {value}"));
        }
    }
    if let Some(multirange) = fields.table_name()? {
        options.push(format!("multirange_type_name = {multirange}"));
    }
    Ok(TypeKind::Range { subtype: subtype.unwrap_or_default(), options })
}
