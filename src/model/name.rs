//! SQL names: quoting, and schema-qualified table names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Quotes `name` as an SQL identifier where SQL would need it (`orders`, `"Big Table"`, `"a""b"`).
///
/// The one place where an identifier becomes SQL text. Unquoted are only names of lower-case ASCII
/// letters, digits and `_` that are not in PostgreSQL's list of reserved words.
pub fn quote_ident(name: &str) -> String {
    let plain = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && RESERVED.binary_search(&name).is_err();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// `text` as an SQL string literal. Backslashes need the E form only where `standard_conforming_strings` is off; it is right under
/// both.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// Every keyword of PostgreSQL 14 to 18 that is not unreserved (`pg_get_keywords()`, catcode <> 'U'),
/// as `quote_ident()` of the server treats them. Sorted.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// A table by schema and name, as stored in the catalogs (unquoted, case kept). Prints quoted where SQL
/// would quote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema, never empty.
    pub schema: String,
    /// The table, never empty.
    pub table: String,
}

impl TableName {
    /// A name from its two parts as the catalogs hold them.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote_ident(&self.schema), quote_ident(&self.table))
    }
}

impl Serialize for TableName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_table_name(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a `tables` entry of the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TablePattern {
    /// One table.
    Table(TableName),
    /// `schema.*`: every table of the schema that the mode can take.
    Schema(String),
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TablePattern::Table(name) => name.fmt(f),
            TablePattern::Schema(schema) => write!(f, "{}.*", quote_ident(schema)),
        }
    }
}

/// The text is not a schema-qualified SQL name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a table name: {problem}")]
pub struct ParseNameError {
    text: String,
    problem: &'static str,
}

/// Reads `schema.table`, folding unquoted parts to lower case as SQL does.
pub fn parse_table_name(text: &str) -> Result<TableName, ParseNameError> {
    match parse_table_pattern(text)? {
        TablePattern::Table(name) => Ok(name),
        TablePattern::Schema(_) => {
            Err(ParseNameError { text: text.to_owned(), problem: "\"*\" is not allowed here" })
        }
    }
}

/// Reads one identifier (a column, a role), folding it to lower case unless it is in double quotes, as SQL does.
/// The error says what is wrong with it.
pub fn parse_identifier(text: &str) -> Result<String, &'static str> {
    match identifier(text)? {
        (name, "") => Ok(name),
        _ => Err("a quote is missing or something follows the name"),
    }
}

/// Reads `schema.table` or `schema.*`.
pub fn parse_table_pattern(text: &str) -> Result<TablePattern, ParseNameError> {
    let fail = |problem| ParseNameError { text: text.to_owned(), problem };
    let (schema, rest) = identifier(text).map_err(fail)?;
    let rest = rest.strip_prefix('.').ok_or_else(|| fail("write it as schema.table"))?;
    if rest == "*" {
        return Ok(TablePattern::Schema(schema));
    }
    let (table, rest) = identifier(rest).map_err(fail)?;
    if !rest.is_empty() {
        return Err(fail("a quote is missing or something follows the name"));
    }
    Ok(TablePattern::Table(TableName { schema, table }))
}

/// One identifier at the start of `text`, and what follows it.
fn identifier(text: &str) -> Result<(String, &str), &'static str> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_identifier(quoted)?,
        None => {
            let end = text
                .char_indices()
                .find(|&(i, c)| !(c == '_' || c.is_alphabetic() || i > 0 && (c.is_ascii_digit() || c == '$')))
                .map_or(text.len(), |(i, _)| i);
            // PostgreSQL folds ASCII only in multi-byte encodings.
            (text[..end].to_ascii_lowercase(), &text[end..])
        }
    };
    if name.is_empty() {
        return Err("a part is empty or has a character that needs double quotes");
    }
    if name.len() > 63 {
        return Err("a part is longer than 63 bytes");
    }
    Ok((name, rest))
}

/// The rest of a quoted identifier whose opening quote has been read.
fn quoted_identifier(text: &str) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a closing double quote is missing")?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Ok((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_hold_any_text() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn quotes_only_where_sql_would() {
        assert!(RESERVED.is_sorted());
        for (name, quoted) in [
            ("orders", "orders"),
            ("Orders", "\"Orders\""),
            ("order", "\"order\""),
            ("1st", "\"1st\""),
            ("a b", "\"a b\""),
            ("a\"b", "\"a\"\"b\""),
            ("über", "\"über\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name), quoted);
        }
    }

    #[test]
    fn reads_names_as_sql_does() {
        for (text, schema, table) in [
            ("public.orders", "public", "orders"),
            ("Public.ORDERS", "public", "orders"),
            ("public.\"Big Table\"", "public", "Big Table"),
            ("\"a.b\".\"c\"\"d\"", "a.b", "c\"d"),
            ("s.t$1", "s", "t$1"),
        ] {
            assert_eq!(parse_table_name(text), Ok(TableName::new(schema, table)), "{text}");
        }
        assert_eq!(parse_table_pattern("sales.*"), Ok(TablePattern::Schema("sales".into())));
        assert_eq!(parse_table_pattern("sales.\"*\""), Ok(TablePattern::Table(TableName::new("sales", "*"))));
    }

    #[test]
    fn reads_single_identifiers_as_sql_does() {
        for (text, name) in [("Id", "id"), ("\"Id\"", "Id"), ("\"a\"\"b\"", "a\"b")] {
            assert_eq!(parse_identifier(text).as_deref(), Ok(name), "{text}");
        }
        for text in ["", "a.b", "a b", "\"a", "1a"] {
            assert!(parse_identifier(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_name() {
        for text in ["", "orders", "a.", ".b", "a.b.c", "a.\"b", "a b.c", "a.1b", "a.*x", "a.b "] {
            assert!(parse_table_pattern(text).is_err(), "{text:?}");
        }
        assert!(parse_table_name("a.*").is_err());
        assert!(parse_table_name(&format!("a.{}", "x".repeat(64))).is_err());
    }

    #[test]
    fn what_is_printed_reads_back() {
        for name in [TableName::new("public", "order"), TableName::new("A b", "x\"y.z")] {
            assert_eq!(parse_table_name(&name.to_string()), Ok(name.clone()));
            let stored = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<TableName>(&stored).unwrap(), name);
        }
    }
}
