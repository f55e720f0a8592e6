//! A statement that makes one index or constraint, under the name it should have or another one.

use crate::model::{TableName, quote_ident};

/// Longest name PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1).
const NAME_LIMIT: usize = 63;

/// How many names are thought of for one index beside its own.
const OTHER_NAMES: usize = 20;

/// A statement that makes one index or constraint of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedStatement {
    /// Name of what it makes, unquoted.
    pub name: String,
    /// The statement.
    pub sql: String,
    /// What it makes.
    pub makes: Makes,
}

/// What a statement makes, without names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Makes {
    /// `CREATE INDEX`.
    Index {
        /// UNIQUE.
        unique: bool,
        /// From ` USING` on.
        body: String,
    },
    /// `ADD CONSTRAINT`: its definition, as `pg_get_constraintdef` prints it.
    Constraint(String),
}

impl NamedStatement {
    /// The statement for `table`.
    pub(super) fn new(table: &TableName, name: String, makes: Makes) -> Self {
        NamedStatement { sql: statement(table, &name, &makes), name, makes }
    }

    /// The statement that makes the same on another table, or under another name.
    pub fn under(&self, table: &TableName, name: &str) -> String {
        statement(table, name, &self.makes)
    }

    /// Names to try where something else bears its own: they begin with the table's.
    pub fn other_names(&self, table: &TableName) -> Vec<String> {
        let begin = format!("{}_{}", table.table, self.name);
        let numbered = (2..=OTHER_NAMES).map(|n| fit(&format!("{begin}_{n}")));
        std::iter::once(fit(&begin)).chain(numbered).collect()
    }
}

fn statement(table: &TableName, name: &str, makes: &Makes) -> String {
    let name = quote_ident(name);
    match makes {
        Makes::Index { unique, body } => {
            let unique = if *unique { "UNIQUE " } else { "" };
            format!("CREATE {unique}INDEX {name} ON {table}{body}")
        }
        Makes::Constraint(definition) => format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"),
    }
}

/// `name` within PostgreSQL's limit: a longer one is cut and ends in a checksum of the whole, so that two long
/// names stay different (the server would cut both to the same).
pub(super) fn fit(name: &str) -> String {
    if name.len() <= NAME_LIMIT {
        return name.to_owned();
    }
    // FNV-1a: stable across runs and versions, which the standard library's hasher does not promise.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let mut end = NAME_LIMIT - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash:08x}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_index_names_stay_different_and_within_the_limit() {
        let long = "ü".repeat(40);
        let (a, b) = (fit(&format!("{long}_a")), fit(&format!("{long}_b")));
        assert!(a.len() <= NAME_LIMIT && b.len() <= NAME_LIMIT && a != b);
        assert_eq!(fit("short"), "short");
    }

    #[test]
    fn another_name_makes_the_same() {
        let (t, other) = (TableName::new("s", "t"), TableName::new("s", "T 2"));
        let index = Makes::Index { unique: true, body: " USING btree (id)".to_owned() };
        let index = NamedStatement::new(&t, "u_id".to_owned(), index);
        assert_eq!(index.sql, "CREATE UNIQUE INDEX u_id ON s.t USING btree (id)");
        let names = index.other_names(&other);
        assert_eq!(names[..2], ["T 2_u_id", "T 2_u_id_2"]);
        assert_eq!(
            index.under(&other, &names[0]),
            "CREATE UNIQUE INDEX \"T 2_u_id\" ON s.\"T 2\" USING btree (id)"
        );
        let key = NamedStatement::new(&t, "k".to_owned(), Makes::Constraint("PRIMARY KEY (id)".to_owned()));
        assert_eq!(key.sql, "ALTER TABLE s.t ADD CONSTRAINT k PRIMARY KEY (id)");
    }
}
