//! One thing that was looked at, and what mends it. Pure.

use std::fmt;

use super::statements::{shape, split};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// A run works; somebody should know.
    Warn,
    /// Something that the configured work needs is missing.
    Fail,
}

impl Level {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What mends a finding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remedy {
    /// SQL, each statement by itself, for somebody who may run it on this connection's database.
    pub statements: Vec<String>,
    /// Any one of the statements does; else all, in order.
    pub one_of: bool,
    /// What else is to be done, or what helps where no statement does: a console's setting, a restart.
    pub note: Option<String>,
}

impl Remedy {
    /// Statements to run in order.
    pub fn run<S: Into<String>>(statements: impl IntoIterator<Item = S>) -> Self {
        Remedy { statements: statements.into_iter().map(Into::into).collect(), ..Remedy::default() }
    }

    /// Something no statement does.
    pub fn note(note: impl Into<String>) -> Self {
        Remedy { note: Some(note.into()), ..Remedy::default() }
    }

    /// With something to do besides.
    #[must_use]
    pub fn and(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// What another room advises: statements, each by itself, any one of which does. Several that belong together are divided by
    /// semicolons, and shown where they are the only way.
    pub fn one_of(advised: Vec<String>) -> Self {
        match advised.as_slice() {
            [only] => Remedy::run(split(only)),
            _ => Remedy { statements: advised, one_of: true, note: None },
        }
    }

    /// Statements of a shape that nobody has tried become advice to read.
    fn tried(mut self) -> Self {
        let (known, unknown): (Vec<String>, Vec<String>) =
            self.statements.into_iter().partition(|s| shape(s).is_some());
        self.statements = known;
        if !unknown.is_empty() {
            let advice = unknown.join(if self.one_of { ", or " } else { ", then " });
            let before = match (self.statements.is_empty(), self.one_of) {
                (true, _) => "",
                (false, true) => "or ",
                (false, false) => "then ",
            };
            let after = self.note.map(|note| format!("; {note}")).unwrap_or_default();
            self.note = Some(format!("{before}{advice}{after}"));
        }
        self
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.one_of { " or: " } else { " " };
        let statements: Vec<String> = self.statements.iter().map(|s| format!("{s};")).collect();
        match (statements.is_empty(), &self.note) {
            (false, None) => write!(f, "run: {}", statements.join(between)),
            (false, Some(note)) => write!(f, "run: {} {note}", statements.join(between)),
            (true, Some(note)) => f.write_str(note),
            (true, None) => Ok(()),
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, a word or two.
    pub check: String,
    /// How it ended.
    pub level: Level,
    /// What was found. Never a secret, never a row's value.
    pub detail: String,
    /// What mends it.
    pub remedy: Option<Remedy>,
}

impl Check {
    /// As it should be.
    pub fn ok(check: &str, detail: impl Into<String>) -> Self {
        Check { check: check.to_owned(), level: Level::Ok, detail: detail.into(), remedy: None }
    }

    /// A run works all the same.
    pub fn warn(check: &str, detail: impl Into<String>) -> Self {
        Check { level: Level::Warn, ..Check::ok(check, detail) }
    }

    /// Something is missing.
    pub fn fail(check: &str, detail: impl Into<String>) -> Self {
        Check { level: Level::Fail, ..Check::ok(check, detail) }
    }

    /// With what mends it.
    #[must_use]
    pub fn help(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy.tried());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_reads_like_an_instruction() {
        let both = Remedy::run(["A", "B"]);
        assert_eq!(both.to_string(), "run: A; B;");
        assert_eq!(Remedy { one_of: true, ..both.clone() }.to_string(), "run: A; or: B;");
        assert_eq!(both.and("and restart").to_string(), "run: A; B; and restart");
        assert_eq!(Remedy::note("in the console").to_string(), "in the console");
    }

    #[test]
    fn a_statement_that_nobody_has_tried_is_advice() {
        let shown = |remedy| Check::fail("x", "y").help(remedy).remedy.unwrap().to_string();
        assert_eq!(shown(Remedy::run(["ALTER ROLE a REPLICATION"])), "run: ALTER ROLE a REPLICATION;");
        assert_eq!(shown(Remedy::run(["DROP DATABASE a"])), "DROP DATABASE a");
        let ways = vec!["ALTER TABLE a.b SET LOGGED".to_owned(), "set capture = \"trigger\"".to_owned()];
        assert_eq!(
            shown(Remedy::one_of(ways)),
            "run: ALTER TABLE a.b SET LOGGED; or set capture = \"trigger\""
        );
        let both = vec!["DROP PUBLICATION a; ALTER ROLE a REPLICATION".to_owned()];
        assert_eq!(shown(Remedy::one_of(both)), "run: DROP PUBLICATION a; ALTER ROLE a REPLICATION;");
    }
}
