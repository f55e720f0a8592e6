//! Files of statements that several sessions run.
//!
//! A statement ends with `;` at the end of a line; each is sent by itself, so it is a transaction unless BEGIN and COMMIT stand
//! around it. `-- @NAME ROLE` at the beginning of a line: what follows is done by this role, in the session of this name, which
//! stays open until the file's end.

use std::collections::BTreeMap;

use repcloud::cluster::Cluster;

use super::db::Db;

/// What stands below one `-- @` line; `head` is the line's rest, empty for what stands above the first.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) head: &'a str,
    pub(crate) statements: Vec<String>,
}

/// The parts of a file, in order.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut head, mut rest) = ("", text);
    loop {
        let (body, next) = match rest.strip_prefix("-- @") {
            Some(next) => ("", Some(next)),
            None => rest.split_once("\n-- @").map_or((rest, None), |(body, next)| (body, Some(next))),
        };
        let part = Part { head, statements: statements(body) };
        if !part.head.is_empty() || !part.statements.is_empty() {
            parts.push(part);
        }
        let Some(next) = next else { return parts };
        (head, rest) = next.split_once('\n').unwrap_or((next, ""));
    }
}

/// Statements end with `;` at the end of a line, outside of `$$` quotes.
pub(crate) fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("--")) {
        current.push_str(line);
        current.push('\n');
        if line.trim_end().ends_with(';') && current.matches("$$").count().is_multiple_of(2) {
            statements.push(std::mem::take(&mut current));
        }
    }
    assert!(current.trim().is_empty(), "no `;` ends this statement:\n{current}");
    statements
}

/// The sessions of a script, by name.
pub(crate) struct Sessions<'c> {
    cluster: &'c Cluster,
    database: &'c str,
    open: BTreeMap<String, Db>,
}

impl<'c> Sessions<'c> {
    pub(crate) fn new(cluster: &'c Cluster, database: &'c str) -> Self {
        Sessions { cluster, database, open: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Runs one part; `head` names the session and its role, and what has no head is done by the superuser.
    pub(crate) async fn run(&mut self, part: &Part<'_>) {
        let (name, role) = part.head.split_once(' ').unwrap_or(("", "postgres"));
        if !self.open.contains_key(name) {
            let conninfo = self.cluster.conninfo(self.database);
            let conninfo = conninfo.replace("user=postgres", &format!("user={role}"));
            self.open.insert(name.to_owned(), Db::connect_to(&conninfo).await);
        }
        for sql in &part.statements {
            self.open[name].exec(sql).await;
        }
    }
}
