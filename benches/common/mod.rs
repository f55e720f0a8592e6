//! The table of the benchmarks: eight columns; numeric, timestamptz, text and jsonb among them.
#![allow(dead_code, unreachable_pub)]

use repcloud::apply::route::{Delivery, OnConflict, Route};
use repcloud::model::{Lsn, TableName};
use repcloud::sql::shape::{ShapeColumn, ShapeTable};

/// Name, type oid, type.
pub const COLUMNS: [(&str, u32, &str); 8] = [
    ("id", 20, "bigint"),
    ("customer", 23, "integer"),
    ("amount", 1700, "numeric"),
    ("created_at", 1184, "timestamp with time zone"),
    ("name", 25, "text"),
    ("details", 3802, "jsonb"),
    ("status", 21, "smallint"),
    ("note", 25, "text"),
];

/// `public.items` of the source to `public.items` of the target, by its key.
pub fn route() -> Route {
    let name = TableName::new("public", "items");
    let column = |(name, _, input_type): (&str, u32, &str)| ShapeColumn {
        name: name.to_owned(),
        input_type: input_type.to_owned(),
        rewrite: None,
    };
    Route {
        source: name.clone(),
        published: vec![name.clone()],
        target: name.clone(),
        shape: ShapeTable {
            sql_name: name.to_string(),
            columns: COLUMNS.into_iter().map(column).collect(),
            key: vec![0],
            deleted_column: None,
            fixed_key: false,
        },
        delivery: Delivery::Dml,
        on_conflict: OnConflict::Stop,
        copied_at: Lsn::INVALID,
        known_columns: None,
        columns_chosen: false,
        has_extra_columns: false,
        identity_always_key: false,
        copy_allowed: true,
        has_deferrable: false,
        ignored_columns: Vec::new(),
        former_names: Vec::new(),
        replace_allowed: true,
    }
}
