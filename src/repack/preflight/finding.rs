//! One thing that pre-flight has to say. Pure.

use std::fmt;

use crate::model::{TableName, quote_ident};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The repack goes on; somebody should know.
    Warn,
    /// The repack is refused, and nothing is changed.
    Refuse,
}

/// One thing that speaks against a repack, or that somebody should know before it.
///
/// Prints as `table public.orders: problem; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it, as the file is called.
    pub check: &'static str,
    /// What it is about: `table public.orders`, `role app`, `server`.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// A statement that helps, or what else to do.
    pub remedy: Option<String>,
    /// How much it weighs.
    pub severity: Severity,
}

impl Finding {
    /// About a table, which is refused.
    pub fn refuse(check: &'static str, table: &TableName, problem: impl Into<String>) -> Self {
        Finding::new(check, Severity::Refuse, format!("table {table}"), problem)
    }

    /// About a table, which is repacked all the same.
    pub fn warn(check: &'static str, table: &TableName, problem: impl Into<String>) -> Self {
        Finding::new(check, Severity::Warn, format!("table {table}"), problem)
    }

    /// About the role we work as.
    pub fn of_role(check: &'static str, role: &str, problem: impl Into<String>) -> Self {
        Finding::new(check, Severity::Refuse, format!("role {}", quote_ident(role)), problem)
    }

    /// About the server.
    pub fn of_server(check: &'static str, severity: Severity, problem: impl Into<String>) -> Self {
        Finding::new(check, severity, "server".to_owned(), problem)
    }

    /// About anything.
    pub fn new(check: &'static str, severity: Severity, object: String, problem: impl Into<String>) -> Self {
        Finding { check, object, problem: problem.into(), remedy: None, severity }
    }

    /// With what helps.
    #[must_use]
    pub fn help(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.problem)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// True when one of the findings refuses the repack.
pub fn is_refused(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Refuse)
}
