//! What is being read, and everything said about it.

use std::cell::RefCell;
use std::path::Path;

use super::environment::Environment;
use super::error::Finding;
use super::not_built::NotBuilt;

/// What is being read, and what was found wrong with it so far.
pub(super) struct Reader<'e> {
    pub(super) file: &'e Path,
    pub(super) environment: &'e dyn Environment,
    /// The file was written for rpcl: numbers and booleans may be strings, and keys of rpcl whose work is not
    /// built lead to warnings.
    pub(super) rpcl: bool,
    line_starts: Vec<usize>,
    errors: RefCell<Vec<Finding>>,
    warnings: RefCell<Vec<Finding>>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(file: &'e Path, text: &str, environment: &'e dyn Environment) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1);
        Reader {
            file,
            environment,
            rpcl: false,
            line_starts: std::iter::once(0).chain(newlines).collect(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// The line, from 1, of a byte of the text.
    pub(super) fn line_of(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= byte)
    }

    pub(super) fn error(
        &self,
        line: usize,
        key: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.errors.borrow_mut().push(self.finding(line, key.into(), problem.into(), advice.into()));
    }

    pub(super) fn warn(
        &self,
        line: usize,
        key: impl Into<String>,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.warnings.borrow_mut().push(self.finding(line, key.into(), problem.into(), advice.into()));
    }

    fn finding(&self, line: usize, key: String, problem: String, advice: String) -> Finding {
        Finding { file: self.file.to_owned(), line, key, problem, advice }
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.borrow().is_empty()
    }

    /// Errors and warnings, each in the order of the file.
    pub(super) fn into_findings(self) -> (Vec<Finding>, Vec<Finding>) {
        let sorted = |findings: RefCell<Vec<Finding>>| {
            let mut findings = findings.into_inner();
            findings.sort_by_key(|f| f.line);
            findings
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    /// Something whose work is not built: an error, or for what rpcl knew a warning.
    pub(super) fn not_built(&self, line: usize, key: String, entry: &NotBuilt) {
        let what = entry.value.map(|v| format!("\"{v}\" is ")).unwrap_or_default();
        if self.rpcl && entry.rpcl {
            self.warn(line, key, format!("{what}not built yet ({}), so it has no effect", entry.work), "");
        } else {
            let advice = if entry.value.is_some() { "choose another value" } else { "remove the key" };
            self.error(line, key, format!("{what}not built yet ({})", entry.work), advice);
        }
    }
}
