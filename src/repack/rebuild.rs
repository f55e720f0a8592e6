//! What is to be different in the new table beside its bloat: the order of its rows and of its columns, its tablespace. Pure.

use serde::{Deserialize, Serialize};

use crate::model::name::parse_identifier;
use crate::model::quote_ident;

/// What was asked for; empty: everything as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rebuild {
    /// The order in which rows are written; empty: that of the old heap.
    pub order_by: Vec<SortColumn>,
    /// Tablespace of the table and of its indexes.
    pub tablespace: Option<String>,
    /// All columns in their new order.
    pub column_order: Vec<String>,
}

/// A column rows are ordered by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortColumn {
    /// Its name.
    pub name: String,
    /// Largest first.
    pub descending: bool,
}

impl SortColumn {
    /// `a`, `"B" desc`.
    ///
    /// # Errors
    /// Another word than `asc` or `desc` follows the name, or there is no name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let direction = |word: &str| {
            let (name, last) = text.rsplit_once(char::is_whitespace)?;
            last.eq_ignore_ascii_case(word).then(|| name.trim_end())
        };
        let (name, descending) = match (direction("asc"), direction("desc")) {
            (Some(name), _) => (name, false),
            (_, Some(name)) => (name, true),
            _ => (text, false),
        };
        Ok(SortColumn { name: identifier(name)?, descending })
    }

    /// For ORDER BY, in a query that knows the table as `alias` (quoted).
    pub fn sql(&self, alias: &str) -> String {
        let direction = if self.descending { " DESC" } else { "" };
        format!("{alias}.{}{direction}", quote_ident(&self.name))
    }
}

/// One identifier, quoted where SQL wants it.
///
/// # Errors
/// It is none.
pub fn identifier(text: &str) -> Result<String, String> {
    parse_identifier(text.trim()).map_err(str::to_owned)
}

/// The parts of a list, as commas outside of quotes divide it.
pub fn list(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    })
    .collect()
}

impl Rebuild {
    /// What holds for a repack that was begun with `self` and is now asked for with `typed`.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn resumed(&self, typed: &Rebuild) -> Result<Rebuild, String> {
        if *typed == Rebuild::default() || typed == self {
            return Ok(self.clone());
        }
        let begun = self.to_string();
        Err(format!(
            "its unfinished repack was begun {}; go on without these options, or undo it first (repcloud abort)",
            if begun.is_empty() { "without them".to_owned() } else { format!("with {begun}") }
        ))
    }

    /// The columns come in another order than they had; where that one is not known, if one was asked for.
    pub fn reorders(&self, before: Option<&[String]>) -> bool {
        !self.column_order.is_empty() && before.is_none_or(|before| before != self.column_order)
    }

    /// As text to store.
    pub fn to_text(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// From stored text; what a version without these options left is empty.
    pub fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(Rebuild::default()) } else { serde_json::from_str(text).ok() }
    }
}

/// As it is typed.
impl std::fmt::Display for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.order_by.is_empty() {
            let columns = self.order_by.iter().map(|column| {
                let direction = if column.descending { " desc" } else { "" };
                format!("{}{direction}", quote_ident(&column.name))
            });
            parts.push(format!("--order-by {}", columns.collect::<Vec<_>>().join(",")));
        }
        parts.extend(self.tablespace.as_ref().map(|name| format!("--tablespace {}", quote_ident(name))));
        if !self.column_order.is_empty() {
            let columns: Vec<String> = self.column_order.iter().map(|name| quote_ident(name)).collect();
            parts.push(format!("--column-order {}", columns.join(",")));
        }
        f.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_the_old_one_changes_nothing() {
        let columns = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let asked = Rebuild { column_order: columns(&["b", "a"]), ..Rebuild::default() };
        assert!(asked.reorders(Some(&columns(&["a", "b"]))) && asked.reorders(None));
        assert!(!asked.reorders(Some(&columns(&["b", "a"]))));
        assert!(!Rebuild::default().reorders(Some(&columns(&["a"]))));
    }

    fn sorted(text: &str) -> Rebuild {
        let order_by = list(text).into_iter().map(|part| SortColumn::parse(part).unwrap()).collect();
        Rebuild { order_by, ..Rebuild::default() }
    }

    #[test]
    fn columns_are_read_with_quotes_and_directions() {
        let rebuild = sorted("a, \"B, c\" DESC,d asc");
        assert_eq!(rebuild.to_string(), "--order-by a,\"B, c\" desc,d");
        assert_eq!(rebuild.order_by[1].sql("x"), "x.\"B, c\" DESC");
        assert!(SortColumn::parse("a b").is_err() && SortColumn::parse("").is_err());
    }

    #[test]
    fn a_resumed_repack_goes_on_as_it_began_or_refuses() {
        let (begun, other, none) = (sorted("a"), sorted("a desc"), Rebuild::default());
        assert_eq!(begun.resumed(&none), Ok(begun.clone()));
        assert_eq!(begun.resumed(&begun), Ok(begun.clone()));
        assert!(begun.resumed(&other).unwrap_err().contains("--order-by a;"));
        assert!(none.resumed(&begun).unwrap_err().contains("without them"));
        assert_eq!(Rebuild::from_text(&begun.to_text()), Some(begun));
        assert_eq!(Rebuild::from_text(""), Some(none));
        assert_eq!(Rebuild::from_text("{"), None);
    }
}
