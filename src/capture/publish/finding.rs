//! What stands in the way of a stream, and what helps.

use std::fmt;

use crate::model::TableName;

/// One obstacle that pre-flight found. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table; `None`: the source as a whole.
    pub table: Option<TableName>,
    /// What is wrong, and what else may be done than run a statement.
    pub problem: String,
    /// Statements that help, each by itself, the recommended one first.
    pub statements: Vec<String>,
}

impl Finding {
    /// An obstacle at a table.
    pub fn new(table: &TableName, problem: impl Into<String>) -> Self {
        Finding { table: Some(table.clone()), problem: problem.into(), statements: Vec::new() }
    }

    /// An obstacle at the source as a whole.
    pub fn of_source(problem: impl Into<String>) -> Self {
        Finding { table: None, problem: problem.into(), statements: Vec::new() }
    }

    /// The same with one more statement that helps.
    #[must_use]
    pub fn help(mut self, statement: impl Into<String>) -> Self {
        self.statements.push(statement.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "table {table}: ")?;
        }
        f.write_str(&self.problem)?;
        for (index, statement) in self.statements.iter().enumerate() {
            write!(f, "{}{statement};", if index == 0 { "; run: " } else { " or: " })?;
        }
        Ok(())
    }
}
