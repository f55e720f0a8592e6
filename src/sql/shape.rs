//! The statements the applier prepares, one per table and shape.
//!
//! Every value of a batch travels as an element of one `text[]` parameter per column and is cast on the server to
//! the column's input type (`proto-notes/decisions/0003-text-arrays.md`). Casts carry no type modifier: the
//! assignment applies it, and errors where an explicit cast would cut silently.

use crate::model::quote_ident;

/// A column as the statements see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeColumn {
    /// Name, unquoted.
    pub name: String,
    /// The type whose input function reads the text, as SQL, without modifier.
    pub input_type: String,
    /// What becomes of a value on its way into the table: SQL with `{}` where the value stands. Never for key columns.
    pub rewrite: Option<String>,
}

/// Which columns, by index into the table's replicated columns, a statement speaks of. Sorted, without doubles.
pub type ColumnSet = Vec<u16>;

/// A table as the statements see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeTable {
    /// Quoted, schema-qualified.
    pub sql_name: String,
    /// The replicated columns, in parameter order.
    pub columns: Vec<ShapeColumn>,
    /// Indexes of the key's columns; empty when rows are matched whole.
    pub key: ColumnSet,
    /// logdel's column, unquoted; `None` in dml.
    pub deleted_column: Option<String>,
    /// No UPDATE may assign the key: a column of it is GENERATED ALWAYS AS IDENTITY.
    pub fixed_key: bool,
}

/// One kind of statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// Parameters: the columns of the set. In logdel also the stamp, and a stamped row of the same key revives.
    Insert(ColumnSet),
    /// Parameters: key columns, then the set's columns (never key columns). In logdel also the stamp, live rows only.
    Update(ColumnSet),
    /// Parameters: key columns. In logdel it is an update of the stamp: parameters key columns, stamp.
    Delete,
    /// In place, key included. Parameters: old key columns, then the set's columns (key columns among them).
    UpdateKey(ColumnSet),
    /// logdel: the row of the new key, its columns outside the set taken from the row of the old key.
    /// Parameters: old key columns, then the set's columns.
    InsertFromOld(ColumnSet),
    /// A row matched whole, one of several equal ones. Parameters: all old columns, then the set's columns.
    UpdateWhole(ColumnSet),
    /// A row matched whole, one of several equal ones. Parameters: all old columns.
    DeleteWhole,
}

impl ShapeTable {
    /// Number of parameters of `shape`.
    pub fn parameter_count(&self, shape: &Shape) -> usize {
        let stamp = usize::from(self.deleted_column.is_some());
        match shape {
            Shape::Insert(set) => set.len() + stamp,
            Shape::Update(set) => self.key.len() + set.len() + stamp,
            Shape::Delete => self.key.len() + stamp,
            Shape::UpdateKey(set) | Shape::InsertFromOld(set) => self.key.len() + set.len(),
            Shape::UpdateWhole(set) => self.columns.len() + set.len(),
            Shape::DeleteWhole => self.columns.len(),
        }
    }

    /// The SQL text of `shape`.
    pub fn sql(&self, shape: &Shape) -> String {
        match shape {
            Shape::Insert(set) => self.insert(set),
            Shape::Update(set) => self.update(set),
            Shape::Delete => self.delete(),
            Shape::UpdateKey(set) => self.update_key(set),
            Shape::InsertFromOld(set) => self.insert_from_old(set),
            Shape::UpdateWhole(set) => self.update_whole(set),
            Shape::DeleteWhole => self.delete_whole(),
        }
    }

    /// `COPY … FROM STDIN` for the columns of `set` (dml inserts in bulk).
    pub fn copy_in(&self, set: &[u16]) -> String {
        let names: Vec<_> = set.iter().map(|&c| self.quoted(c)).collect();
        format!("COPY {} ({}) FROM STDIN", self.sql_name, names.join(", "))
    }

    /// logdel's TRUNCATE: parameter the stamp.
    pub fn stamp_all(&self) -> Option<String> {
        let column = quote_ident(self.deleted_column.as_deref()?);
        Some(format!(
            "UPDATE {} SET {column} = ($1::text[])[1]::timestamptz WHERE {column} IS NULL",
            self.sql_name
        ))
    }

    fn quoted(&self, column: u16) -> String {
        quote_ident(&self.columns[usize::from(column)].name)
    }

    /// `v.cN::type`: the parameter column called `cN`, as a value of the column's type.
    fn cast(&self, column: u16, parameter: &str) -> String {
        let column = &self.columns[usize::from(column)];
        let value = match column.input_type.as_str() {
            // The one built-in type whose cast from text reads less than its input function does: not the `-` of none.
            "regclass" => format!("pg_catalog.regclassin(pg_catalog.textout(v.{parameter}))"),
            input_type => format!("v.{parameter}::{input_type}"),
        };
        match &column.rewrite {
            Some(rewrite) => rewrite.replace("{}", &value),
            None => value,
        }
    }

    fn insert(&self, set: &[u16]) -> String {
        let mut names: Vec<_> = set.iter().map(|&c| self.quoted(c)).collect();
        let mut values: Vec<_> =
            set.iter().enumerate().map(|(i, &c)| self.cast(c, &format!("c{i}"))).collect();
        let mut parameters: Vec<_> = (0..set.len()).map(|i| format!("c{i}")).collect();
        let mut revive = String::new();
        if let Some(deleted) = &self.deleted_column {
            let deleted = quote_ident(deleted);
            revive = self.revive_clause(set, &deleted);
            names.push(deleted);
            values.push("v.stamp::timestamptz".into());
            parameters.push("stamp".into());
        }
        if parameters.is_empty() {
            // A table without columns: the parameter list still has to carry the number of rows.
            return format!("INSERT INTO {} DEFAULT VALUES", self.sql_name);
        }
        format!(
            "INSERT INTO {} AS t ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}{revive}",
            self.sql_name,
            names.join(", "),
            values.join(", "),
            unnest(&parameters),
        )
    }

    /// A stamped row of the same key becomes the new row; a live one does not (the row count tells). The key is assigned
    /// too: equal keys can be spelt differently (1.0 and 1.00, citext).
    fn revive_clause(&self, set: &[u16], deleted: &str) -> String {
        let key: Vec<_> = self.key.iter().map(|&c| self.quoted(c)).collect();
        let mut assign: Vec<_> = set
            .iter()
            .filter(|c| !(self.fixed_key && self.key.contains(c)))
            .map(|&c| format!("{0} = excluded.{0}", self.quoted(c)))
            .collect();
        assign.push(format!("{deleted} = excluded.{deleted}"));
        format!(
            " ON CONFLICT ({}) DO UPDATE SET {} WHERE t.{deleted} IS NOT NULL",
            key.join(", "),
            assign.join(", ")
        )
    }

    /// The key's parameter names, and `t.key = v.kN::type` for each.
    fn key_match(&self) -> (Vec<String>, String) {
        let parameters: Vec<_> = (0..self.key.len()).map(|i| format!("k{i}")).collect();
        let conditions: Vec<_> = self
            .key
            .iter()
            .zip(&parameters)
            .map(|(&c, p)| format!("t.{} = {}", self.quoted(c), self.cast(c, p)))
            .collect();
        (parameters, conditions.join(" AND "))
    }

    /// `column = v.cN::type` for each of the set; the parameter names are appended.
    fn assignments(&self, set: &[u16], parameters: &mut Vec<String>) -> Vec<String> {
        let mut assign = Vec::with_capacity(set.len() + 1);
        for (i, &c) in set.iter().enumerate() {
            let parameter = format!("c{i}");
            assign.push(format!("{} = {}", self.quoted(c), self.cast(c, &parameter)));
            parameters.push(parameter);
        }
        assign
    }

    fn update(&self, set: &[u16]) -> String {
        let (mut parameters, mut condition) = self.key_match();
        let mut assign = self.assignments(set, &mut parameters);
        if let Some(deleted) = &self.deleted_column {
            let deleted = quote_ident(deleted);
            assign.push(format!("{deleted} = v.stamp::timestamptz"));
            parameters.push("stamp".into());
            condition.push_str(&format!(" AND t.{deleted} IS NULL"));
        }
        if assign.is_empty() {
            // Nothing but the key, which did not change: that the row is there is still checked by the row count. Writing
            // the key would fail where it is GENERATED ALWAYS AS IDENTITY.
            return format!("SELECT FROM {} AS t, {} WHERE {condition}", self.sql_name, unnest(&parameters));
        }
        format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {condition}",
            self.sql_name,
            assign.join(", "),
            unnest(&parameters)
        )
    }

    fn delete(&self) -> String {
        if self.deleted_column.is_some() {
            return self.update(&[]);
        }
        let (parameters, condition) = self.key_match();
        format!("DELETE FROM {} AS t USING {} WHERE {condition}", self.sql_name, unnest(&parameters))
    }

    fn update_key(&self, set: &[u16]) -> String {
        let (mut parameters, condition) = self.key_match();
        let assign = self.assignments(set, &mut parameters);
        format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {condition}",
            self.sql_name,
            assign.join(", "),
            unnest(&parameters)
        )
    }

    fn insert_from_old(&self, set: &[u16]) -> String {
        let (mut parameters, condition) = self.key_match();
        let all: Vec<u16> = (0..self.columns.len() as u16).collect();
        let names: Vec<_> = all.iter().map(|&c| self.quoted(c)).collect();
        let values: Vec<_> = all
            .iter()
            .map(|c| match set.iter().position(|s| s == c) {
                Some(i) => {
                    parameters.push(format!("c{i}"));
                    self.cast(*c, &format!("c{i}"))
                }
                None => format!("t.{}", self.quoted(*c)),
            })
            .collect();
        let deleted = quote_ident(self.deleted_column.as_deref().unwrap_or_default());
        let revive = self.revive_clause(&all, &deleted).replace(" WHERE t.", " WHERE x.");
        format!(
            "INSERT INTO {0} AS x ({1}) OVERRIDING SYSTEM VALUE SELECT {2} FROM {0} AS t, {3} WHERE {condition}{revive}",
            self.sql_name,
            names.join(", "),
            values.join(", "),
            unnest(&parameters)
        )
    }

    /// One of the rows whose every column prints as the old image does. Text equality works for every type (json,
    /// xml and point have no `=`), and tells 1.0 from 1.00 as the source's tuple comparison does. `format` calls the
    /// type's output function, as the source did; casts of bool, inet and character to text print something else.
    /// `%L` tells NULL from the empty text.
    fn whole_match(&self) -> (Vec<String>, String) {
        let parameters: Vec<_> = (0..self.columns.len()).map(|i| format!("o{i}")).collect();
        let conditions: Vec<_> = (0..self.columns.len() as u16)
            .zip(&parameters)
            .map(|(c, p)| {
                format!(
                    "pg_catalog.format('%L', s.{}) COLLATE \"C\" = pg_catalog.format('%L', v.{p})",
                    self.quoted(c)
                )
            })
            .collect();
        (parameters, conditions.join(" AND "))
    }

    fn update_whole(&self, set: &[u16]) -> String {
        let (mut parameters, condition) = self.whole_match();
        let assign = self.assignments(set, &mut parameters);
        format!(
            "UPDATE {0} AS t SET {1} FROM (SELECT s.tableoid AS rel, s.ctid AS tid, v.* FROM {0} AS s, {2} WHERE {condition} LIMIT 1) AS v WHERE t.ctid = v.tid AND t.tableoid = v.rel",
            self.sql_name,
            assign.join(", "),
            unnest(&parameters)
        )
    }

    fn delete_whole(&self) -> String {
        let (parameters, condition) = self.whole_match();
        format!(
            "DELETE FROM {0} AS t USING (SELECT s.tableoid AS rel, s.ctid AS tid FROM {0} AS s, {1} WHERE {condition} LIMIT 1) AS v WHERE t.ctid = v.tid AND t.tableoid = v.rel",
            self.sql_name,
            unnest(&parameters)
        )
    }
}

/// `unnest($1::text[], …) AS v(a, …)`.
fn unnest(parameters: &[String]) -> String {
    let arrays: Vec<_> = (1..=parameters.len()).map(|i| format!("${i}::text[]")).collect();
    format!("unnest({}) AS v({})", arrays.join(", "), parameters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(deleted: Option<&str>) -> ShapeTable {
        let column =
            |name: &str, ty: &str| ShapeColumn { name: name.into(), input_type: ty.into(), rewrite: None };
        ShapeTable {
            sql_name: "public.\"T\"".into(),
            columns: vec![
                column("id", "bigint"),
                column("Name", "character varying"),
                column("tags", "text[]"),
            ],
            key: vec![0],
            deleted_column: deleted.map(Into::into),
            fixed_key: false,
        }
    }

    #[test]
    fn dml_shapes() {
        let t = table(None);
        assert_eq!(
            t.sql(&Shape::Insert(vec![0, 1, 2])),
            "INSERT INTO public.\"T\" AS t (id, \"Name\", tags) OVERRIDING SYSTEM VALUE SELECT v.c0::bigint, \
             v.c1::character varying, v.c2::text[] FROM unnest($1::text[], $2::text[], $3::text[]) AS v(c0, c1, c2)"
        );
        assert_eq!(
            t.sql(&Shape::Update(vec![1])),
            "UPDATE public.\"T\" AS t SET \"Name\" = v.c0::character varying FROM unnest($1::text[], $2::text[]) \
             AS v(k0, c0) WHERE t.id = v.k0::bigint"
        );
        assert_eq!(
            t.sql(&Shape::Delete),
            "DELETE FROM public.\"T\" AS t USING unnest($1::text[]) AS v(k0) WHERE t.id = v.k0::bigint"
        );
        assert!(t.sql(&Shape::Update(vec![])).starts_with("SELECT FROM public.\"T\" AS t, unnest("));
    }

    #[test]
    fn a_value_is_read_and_printed_as_the_types_own_functions_do() {
        let mut t = table(None);
        t.columns[1].input_type = "regclass".into();
        assert!(
            t.sql(&Shape::Insert(vec![1]))
                .contains("SELECT pg_catalog.regclassin(pg_catalog.textout(v.c0)) FROM")
        );
        assert!(t.sql(&Shape::DeleteWhole).contains(
            "WHERE pg_catalog.format('%L', s.id) COLLATE \"C\" = pg_catalog.format('%L', v.o0) AND"
        ));
    }

    #[test]
    fn logdel_touches_live_rows_only_and_revives_stamped_ones() {
        let t = table(Some("repcloud_source_deleted"));
        let insert = t.sql(&Shape::Insert(vec![0, 1]));
        assert!(insert.ends_with(
            "ON CONFLICT (id) DO UPDATE SET id = excluded.id, \"Name\" = excluded.\"Name\", repcloud_source_deleted = \
             excluded.repcloud_source_deleted WHERE t.repcloud_source_deleted IS NOT NULL"
        ));
        let fixed = ShapeTable { fixed_key: true, ..t.clone() };
        assert!(!fixed.sql(&Shape::Insert(vec![0, 1])).contains("id = excluded.id"));
        let delete = t.sql(&Shape::Delete);
        assert!(delete.starts_with("UPDATE ") && delete.ends_with("AND t.repcloud_source_deleted IS NULL"));
        assert!(t.stamp_all().is_some() && table(None).stamp_all().is_none());
    }

    #[test]
    fn the_parameter_count_is_the_number_of_arrays() {
        for t in [table(None), table(Some("d"))] {
            for shape in [
                Shape::Insert(vec![0, 2]),
                Shape::Update(vec![1, 2]),
                Shape::Delete,
                Shape::UpdateKey(vec![0, 1]),
                Shape::InsertFromOld(vec![0, 2]),
                Shape::UpdateWhole(vec![1]),
                Shape::DeleteWhole,
            ] {
                // In-place key changes and whole-row matches exist in dml only, the other way round for the third.
                let logdel = t.deleted_column.is_some();
                let only_dml =
                    matches!(shape, Shape::UpdateKey(_) | Shape::UpdateWhole(_) | Shape::DeleteWhole);
                if logdel && only_dml || !logdel && matches!(shape, Shape::InsertFromOld(_)) {
                    continue;
                }
                let sql = t.sql(&shape);
                assert_eq!(
                    sql.matches("::text[]").count()
                        - sql.matches("c2::text[]").count()
                        - sql.matches("c1::text[]").count()
                        - sql.matches("c0::text[]").count(),
                    t.parameter_count(&shape),
                    "{sql}"
                );
            }
        }
    }
}
