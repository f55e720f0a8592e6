//! What the plugin is asked for, and what it cannot send.

use crate::model::{Oid, TableName};

/// The option that makes numbers strings, so that NaN and the infinities arrive. Version 2.5 does not know it and refuses
/// to start (22023, invalid_parameter_value).
pub const NUMBERS_AS_STRINGS: &str = "numeric-data-types-as-string";

/// The options of START_REPLICATION for wal2json, format version 2. Only these tables are sent; messages with
/// `message_prefix` alone.
pub fn plugin_options<'a>(
    tables: impl IntoIterator<Item = &'a TableName>,
    message_prefix: &str,
    numbers_as_strings: bool,
) -> Vec<(String, String)> {
    let tables: Vec<String> = tables.into_iter().map(selected).collect();
    let mut options = vec![
        ("format-version".to_owned(), "2".to_owned()),
        // Positions and times are those of pgoutput's Begin and Commit.
        ("include-lsn".to_owned(), "true".to_owned()),
        ("include-xids".to_owned(), "true".to_owned()),
        ("include-timestamp".to_owned(), "true".to_owned()),
        // Names of types are left out: a quoted one is not valid JSON.
        ("include-types".to_owned(), "false".to_owned()),
        ("include-type-oids".to_owned(), "true".to_owned()),
        ("include-column-positions".to_owned(), "true".to_owned()),
        ("add-msg-prefixes".to_owned(), message_prefix.to_owned()),
        // An empty list would be every table: a schema that cannot be is none.
        ("add-tables".to_owned(), if tables.is_empty() { "\\ .\\ ".to_owned() } else { tables.join(",") }),
    ];
    if numbers_as_strings {
        options.push((NUMBERS_AS_STRINGS.to_owned(), "true".to_owned()));
    }
    options
}

/// A table as `add-tables` wants it: what is no letter, digit or underscore of ASCII gets a backslash.
fn selected(table: &TableName) -> String {
    let escaped = |name: &str| {
        let mut text = String::with_capacity(name.len());
        for character in name.chars() {
            if character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_' {
                text.push('\\');
            }
            text.push(character);
        }
        text
    };
    format!("{}.{}", escaped(&table.schema), escaped(&table.table))
}

/// True for the types of which version 2.5 sends NaN and the infinities as null: float4, float8, numeric. (A domain over
/// them, an array of them and a row with them in it are sent as strings, and whole.)
pub fn loses_numbers(type_oid: Oid) -> bool {
    const FLOAT4: Oid = 700;
    const FLOAT8: Oid = 701;
    const NUMERIC: Oid = 1700;
    matches!(type_oid, FLOAT4 | FLOAT8 | NUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_the_list() {
        let list = [TableName::new("public", "t_1"), TableName::new("Sc.h", "T, x\\*é")];
        let options = plugin_options(&list, "repcloud", false);
        let (_, tables) = options.iter().find(|(name, _)| name == "add-tables").unwrap();
        assert_eq!(tables, r"public.t_1,Sc\.h.T\,\ x\\\*é");
        assert!(!options.iter().any(|(name, _)| name == NUMBERS_AS_STRINGS));
    }
}
