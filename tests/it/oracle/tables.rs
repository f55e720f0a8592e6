//! The tables of the workload: one of each key and identity kind.

use super::values::{FAMILIES, KeyKind, Kind};

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) definition: String,
    pub(super) kind: Kind,
    pub(super) key: Option<KeyKind>,
}

/// A table of the workload.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// Table constraints.
    constraints: Vec<String>,
    /// After CREATE TABLE (…).
    partitioning: String,
    /// Statements after it; `%` stands for the table.
    after: Vec<String>,
    /// A unique index on the key, so ON CONFLICT can name it.
    pub(super) upsert: bool,
    /// The key may be updated.
    pub(super) key_moves: bool,
    /// What native replication cannot do is compared with the source alone.
    pub(super) native: bool,
    /// Also kept in `keep` as logdel.
    pub(super) logdel: bool,
    /// Made on the target before the program starts.
    pub(super) premade: bool,
    /// OVERRIDING SYSTEM VALUE is needed.
    pub(super) identity_always: bool,
}

/// Quotes always, as the names here need it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    fn new(name: &str) -> Self {
        Table {
            schema: "public".into(),
            name: name.into(),
            columns: Vec::new(),
            constraints: Vec::new(),
            partitioning: String::new(),
            after: Vec::new(),
            upsert: false,
            key_moves: true,
            native: true,
            logdel: false,
            premade: false,
            identity_always: false,
        }
    }

    fn key(mut self, name: &str, definition: &str, key: KeyKind) -> Self {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        self.columns.push(Column { name, definition, kind: Kind::Int, key: Some(key) });
        self
    }

    fn column(mut self, name: &str, definition: &str, kind: Kind) -> Self {
        let (name, definition) = (name.to_owned(), definition.to_owned());
        self.columns.push(Column { name, definition, kind, key: None });
        self
    }

    /// A number, a text, and a large text stored outside the row.
    fn usual(self) -> Self {
        self.column("amount", "int", Kind::Int).column("note", "text", Kind::Text).toast("big")
    }

    fn toast(self, name: &str) -> Self {
        let alter = format!("ALTER TABLE % ALTER COLUMN {} SET STORAGE EXTERNAL", quote(name));
        self.column(name, "text", Kind::Toast).after(&alter)
    }

    fn families(mut self) -> Self {
        for (name, definition, values) in FAMILIES {
            self = self.column(name, definition, Kind::Pool(values));
        }
        self
    }

    fn constraint(mut self, sql: &str) -> Self {
        self.constraints.push(sql.to_owned());
        self
    }

    fn after(mut self, sql: &str) -> Self {
        self.after.push(sql.to_owned());
        self
    }

    /// PRIMARY KEY on the key columns.
    fn primary(mut self) -> Self {
        let key: Vec<_> = self.columns.iter().filter(|c| c.key.is_some()).map(|c| quote(&c.name)).collect();
        self.upsert = true;
        self.constraint(&format!("PRIMARY KEY ({})", key.join(", ")))
    }

    fn logdel(mut self) -> Self {
        self.logdel = true;
        self
    }

    fn premade(mut self) -> Self {
        self.premade = true;
        self
    }

    fn ours_alone(mut self) -> Self {
        self.native = false;
        self
    }

    /// Quoted, with schema.
    pub(super) fn sql_name(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// Columns that can be written.
    pub(super) fn writable(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.kind != Kind::Computed)
    }

    /// Columns of the key.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Column, KeyKind)> {
        self.columns.iter().filter_map(|c| Some((c, c.key?)))
    }

    /// Names of the columns by which the logdel copy tells rows apart.
    pub(super) fn identity(&self) -> Vec<&str> {
        let more = self.columns.iter().filter(|c| self.name == "i_part" && c.name == "region");
        self.keys().map(|(c, _)| c).chain(more).map(|c| c.name.as_str()).collect()
    }

    /// The statements that make it.
    pub(super) fn ddl(&self) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|c| format!("{} {}", quote(&c.name), c.definition)).collect();
        lines.extend(self.constraints.iter().cloned());
        let mut sql =
            format!("CREATE TABLE {} ({}) {};\n", self.sql_name(), lines.join(", "), self.partitioning);
        for statement in &self.after {
            sql.push_str(&statement.replace('%', &self.sql_name()));
            sql.push_str(";\n");
        }
        sql
    }
}

/// 63 bytes, the longest a name can be.
fn longest(start: &str) -> String {
    let mut name = start.to_owned();
    while name.len() < 63 {
        name.push('x');
    }
    name
}

/// All of them, in an order in which they can be made.
pub(super) fn all() -> Vec<Table> {
    [keys(), identities(), types(), names(), constraints()].concat()
}

/// The same without NaN and infinities of float4, float8 and numeric.
pub(super) fn all_finite() -> Vec<Table> {
    let mut tables = all();
    for column in tables.iter_mut().flat_map(|t| &mut t.columns) {
        let type_name = column.definition.split(['(', ' ']).next().unwrap_or_default();
        if let (Kind::Pool(values), "numeric" | "float4" | "float8") = (column.kind, type_name) {
            column.kind = Kind::Finite(values);
        }
    }
    tables
}

/// Schemas they need.
pub(super) const SCHEMAS: &[&str] = &["Odd Schema", "select"];

fn keys() -> Vec<Table> {
    use KeyKind::{AnyCase, AnyScale, Float, High, Interval, Low, Plain, Text, Uuid};
    vec![
        Table::new("k_bigint").key("id", "bigint", Plain).usual().primary().logdel(),
        Table::new("k_composite").key("a", "int", High).key("b", "text", Low).usual().primary().logdel(),
        Table::new("k_text")
            .column("first", "int", Kind::Int)
            .key("id", "text", Text)
            .usual()
            .primary()
            .logdel(),
        Table::new("k_citext").key("id", "public.citext", AnyCase).usual().primary().logdel(),
        Table::new("k_numeric").key("id", "numeric", AnyScale).usual().primary().logdel(),
        Table::new("k_uuid").key("id", "uuid", Uuid).usual().primary(),
        Table::new("k_float").key("id", "float8", Float).usual().primary(),
        Table::new("k_interval").key("id", "interval", Interval).usual().primary().logdel(),
        Table::new("k_only").key("id", "bigint", Plain).primary().logdel(),
    ]
}

fn identities() -> Vec<Table> {
    use KeyKind::{Plain, Text};
    let always = "bigint GENERATED ALWAYS AS IDENTITY";
    let leaves = "CREATE TABLE public.i_part_low PARTITION OF % FOR VALUES FROM (0) TO (20);
        CREATE TABLE public.i_part_high PARTITION OF % FOR VALUES FROM (20) TO (1000000) PARTITION BY LIST (region);
        CREATE TABLE public.i_part_high_eu PARTITION OF public.i_part_high FOR VALUES IN ('eu');
        CREATE TABLE public.i_part_high_rest PARTITION OF public.i_part_high DEFAULT";
    let mut tables = vec![
        Table::new("i_index")
            .key("code", "text NOT NULL", Text)
            .usual()
            .column("id", "serial PRIMARY KEY", Kind::Computed)
            .constraint("CONSTRAINT i_index_code UNIQUE (code)")
            .after("ALTER TABLE % REPLICA IDENTITY USING INDEX i_index_code"),
        Table::new("i_full_pk").key("id", "bigint", Plain).usual().primary().logdel().after(FULL),
        Table::new("i_full").key("id", "bigint", Plain).usual().after(FULL),
        Table::new("i_full_twins")
            .key("id", "bigint", Plain)
            .column("n", "float8", Kind::Pool(&["-0", "0", "NaN"]))
            .after(FULL),
        Table::new("i_always").key("id", always, Plain).usual().primary().logdel(),
        Table::new("i_always_premade").key("id", always, Plain).usual().primary().premade(),
        Table::new("i_default").key("id", "bigint GENERATED BY DEFAULT AS IDENTITY", Plain).usual().primary(),
        Table::new("i_generated")
            .key("id", "bigint", Plain)
            .usual()
            .column("twice", "int GENERATED ALWAYS AS (amount * 2) STORED", Kind::Computed)
            .primary()
            .logdel(),
        Table::new("i_part")
            .key("id", "bigint", Plain)
            .column("region", "text NOT NULL DEFAULT 'eu'", Kind::Pool(&["eu", "us", ""]))
            .usual()
            .constraint("PRIMARY KEY (id, region)")
            .after(leaves)
            .logdel(),
    ];
    for table in &mut tables {
        table.identity_always = table.name.starts_with("i_always");
        // An identity ALWAYS column can be deleted and inserted anew, never updated.
        table.key_moves = !table.identity_always;
        table.upsert = table.upsert || table.name == "i_index";
        if table.name == "i_part" {
            table.partitioning = "PARTITION BY RANGE (id)".into();
        }
    }
    tables
}

const FULL: &str = "ALTER TABLE % REPLICA IDENTITY FULL";

fn types() -> Vec<Table> {
    use KeyKind::Plain;
    vec![
        Table::new("t_types").key("id", "bigint", Plain).families().toast("big").primary().logdel(),
        Table::new("t_types_full_pk")
            .key("id", "bigint", Plain)
            .families()
            .toast("big")
            .primary()
            .after(FULL),
        // Native replication finds rows of such a table by `=`, which json, xml, point and others do not have.
        Table::new("t_types_full")
            .key("id", "bigint", Plain)
            .families()
            .toast("big")
            .after(FULL)
            .ours_alone(),
    ]
}

fn names() -> Vec<Table> {
    use KeyKind::Plain;
    let long = longest("Long ä \"quoted\" ");
    let mut odd = Table::new("Order \"by\" 'x'.y, \\z")
        .key("Id", "bigint", Plain)
        .column("select", "text", Kind::Text)
        .column("a \"b\" 'c' % $1 \\", "int", Kind::Int)
        .toast(&longest("Big ü "))
        .primary()
        .logdel();
    odd.schema = "Odd Schema".into();
    let mut reserved =
        Table::new("table").key("user", "bigint", Plain).column("end", "text", Kind::Text).primary();
    reserved.schema = "select".into();
    let mut longest_name =
        Table::new(&long).key(&long, "bigint", Plain).column(&longest("other"), "text", Kind::Text).primary();
    longest_name.schema = "Odd Schema".into();
    vec![odd, reserved, longest_name]
}

fn constraints() -> Vec<Table> {
    use KeyKind::Plain;
    let parent = "REFERENCES public.f_parent ON DELETE CASCADE ON UPDATE CASCADE";
    let maybe = "REFERENCES public.f_parent ON DELETE SET NULL ON UPDATE CASCADE";
    let references: &[&str] = &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14"];
    vec![
        Table::new("u_unique")
            .key("id", "bigint", Plain)
            .column("slot", "int UNIQUE", Kind::Unique)
            .usual()
            .primary()
            .logdel(),
        Table::new("u_deferrable")
            .key("id", "bigint", Plain)
            .column("slot", "int UNIQUE DEFERRABLE INITIALLY DEFERRED", Kind::Unique)
            .usual()
            .primary(),
        Table::new("u_exclusion")
            .key("id", "bigint", Plain)
            .column("span", "int4range", Kind::Pool(&["[1,3)", "[3,5)", "[5,9)", "[2,4)", "[9,10)", "empty"]))
            .usual()
            .primary()
            .constraint("EXCLUDE USING gist (span WITH &&)"),
        Table::new("f_parent").key("id", "bigint", Plain).usual().primary().premade().logdel(),
        Table::new("f_child")
            .key("id", "bigint", Plain)
            .column("parent", &format!("bigint {parent}"), Kind::Pool(references))
            .usual()
            .primary()
            .premade()
            .logdel(),
        Table::new("f_maybe")
            .key("id", "bigint", Plain)
            .column("parent", &format!("bigint {maybe}"), Kind::Pool(references))
            .toast("big")
            .primary()
            .premade(),
    ]
}
