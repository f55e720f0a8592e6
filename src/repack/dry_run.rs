//! `--dry-run`: what a repack would do to one table, for people and as JSON. Pure.

mod lock;
mod look;

use std::fmt::Write as _;

pub use lock::LockForecast;
pub use look::{Seen, SeenLine, look};
use serde::Serialize;

use super::alignment::Alignment;
use super::plan::RepackPlan;
use super::preflight::space::{Forecast, bytes};
use super::preflight::{Finding, Severity, is_refused};
use super::select::TableFacts;
use crate::model::quote_ident;

/// Bytes a second that are reckoned with; rough, and said to be.
const READ: f64 = 400e6;
const WRITE: f64 = 120e6;
const INDEX: f64 = 60e6;

/// What is known before a repack.
#[derive(Debug, Clone, Copy)]
pub struct DryRun<'a> {
    /// The table.
    pub table: &'a TableFacts,
    /// What pre-flight says.
    pub findings: &'a [Finding],
    /// The statements; `None` where the table is refused.
    pub plan: Option<&'a RepackPlan>,
    /// What the exchange will take; `None` where there are no statements.
    pub lock: Option<LockForecast>,
    /// What it will need.
    pub forecast: &'a Forecast,
    /// Sessions that copy and build indexes.
    pub jobs: usize,
}

/// The line of CONTRACT 4, and beside it what only a dry run has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DryRunLine {
    table: String,
    outcome: &'static str,
    reason: Option<String>,
    capture: &'static str,
    rows_copied: u64,
    changes_replayed: u64,
    bytes_before: u64,
    /// Expected.
    bytes_after: u64,
    /// Expected.
    copy_seconds: f64,
    /// Expected.
    index_seconds: f64,
    catch_up_seconds: f64,
    /// Expected.
    lock_ms: f64,
    swap_attempts: u32,
    /// Expected.
    total_seconds: f64,
    size: Size,
    bloat: Option<BloatLine>,
    padding: Option<PaddingLine>,
    needs: Needs,
    findings: Vec<FindingLine>,
    /// What `lock_ms` consists of.
    lock: Option<LockForecast>,
    plan: Option<Statements>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Size {
    heap_bytes: u64,
    toast_bytes: u64,
    index_bytes: u64,
    rows: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct BloatLine {
    bytes: u64,
    percent: f64,
}

/// Bytes a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct PaddingLine {
    bytes: f64,
    saving: f64,
    best_order: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Needs {
    table_bytes: u64,
    wal_bytes: u64,
    total_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FindingLine {
    check: &'static str,
    severity: &'static str,
    object: String,
    problem: String,
    remedy: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Statements {
    before: Vec<String>,
    locks: Vec<String>,
    exchange: Vec<String>,
    after: Vec<String>,
    drop_old: Vec<String>,
}

impl DryRun<'_> {
    fn copy_seconds(&self) -> f64 {
        let new = (self.forecast.heap + self.forecast.toast) as f64;
        let old = (self.table.heap_bytes + self.table.toast_bytes) as f64;
        old / READ + new / WRITE / self.speed_up()
    }

    fn index_seconds(&self) -> f64 {
        self.forecast.indexes as f64 / INDEX / self.speed_up()
    }

    /// Of several sessions; disks and WAL are shared.
    fn speed_up(&self) -> f64 {
        (self.jobs.max(1) as f64).sqrt()
    }

    fn reason(&self) -> Option<String> {
        let refusing = self.findings.iter().filter(|finding| finding.severity == Severity::Refuse);
        let texts: Vec<String> = refusing.map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// For `--json`, one line.
    pub fn json(&self) -> DryRunLine {
        let (copy_seconds, index_seconds) = (self.copy_seconds(), self.index_seconds());
        DryRunLine {
            table: self.table.name.to_string(),
            outcome: if is_refused(self.findings) { "refused" } else { "dry-run" },
            reason: self.reason(),
            capture: "slot",
            rows_copied: 0,
            changes_replayed: 0,
            bytes_before: self.table.total_bytes(),
            bytes_after: self.forecast.table(),
            copy_seconds,
            index_seconds,
            catch_up_seconds: 0.0,
            lock_ms: self.lock.map_or(0.0, |lock| lock.total_ms()),
            swap_attempts: 0,
            total_seconds: copy_seconds + index_seconds,
            size: Size {
                heap_bytes: self.table.heap_bytes,
                toast_bytes: self.table.toast_bytes,
                index_bytes: self.table.index_bytes,
                rows: self.table.rows,
            },
            bloat: self.table.bloat.map(|b| BloatLine { bytes: b.bytes, percent: b.percent }),
            padding: self.table.alignment.as_ref().map(|alignment| PaddingLine {
                bytes: alignment.padding,
                saving: alignment.saving,
                best_order: alignment.order.clone(),
            }),
            needs: Needs {
                table_bytes: self.forecast.table(),
                wal_bytes: self.forecast.wal,
                total_bytes: self.forecast.total(),
            },
            findings: self.findings.iter().map(finding).collect(),
            lock: self.lock,
            plan: self.plan.map(statements),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("table {}\n", self.table.name);
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<11}{value}");
        };
        let table = self.table;
        let rows =
            table.rows.map_or_else(|| "rows unknown".to_owned(), |rows| format!("about {rows:.0} rows"));
        let [heap, toast, indexes] = [table.heap_bytes, table.toast_bytes, table.index_bytes].map(bytes);
        row("size", format!("heap {heap}, TOAST {toast}, indexes {indexes}; {rows}"));
        row(
            "bloat",
            match table.bloat {
                None => "unknown: there are no statistics (ANALYZE the table)".to_owned(),
                Some(bloat) => format!("about {} of the heap ({:.0} %)", bytes(bloat.bytes), bloat.percent),
            },
        );
        if let Some(alignment) = &table.alignment {
            row("padding", padding(alignment));
        }
        if is_refused(self.findings) {
            row("outcome", "refused, nothing would be changed".to_owned());
        } else {
            self.expectations(&mut row);
        }
        self.list(&mut text, "refused because", Severity::Refuse);
        self.list(&mut text, "to be known", Severity::Warn);
        if let Some(plan) = self.plan {
            let plan = statements(plan);
            for (title, statements) in [
                ("before the exchange", &plan.before),
                ("locks of the exchange, in this order", &plan.locks),
                ("exchange", &plan.exchange),
                ("after the exchange", &plan.after),
                ("at last", &plan.drop_old),
            ] {
                section(&mut text, title, statements.iter().map(|statement| format!("{statement};")));
            }
        }
        text
    }

    fn expectations(&self, row: &mut impl FnMut(&str, String)) {
        let forecast = self.forecast;
        let [heap, indexes, disk, wal] =
            [forecast.heap + forecast.toast, forecast.indexes, forecast.total(), forecast.wal].map(bytes);
        row("afterwards", format!("about {heap} and {indexes} of indexes"));
        row(
            "disk",
            format!(
                "about {disk} for the time of the repack, {wal} of it WAL, and what others write meanwhile"
            ),
        );
        let seconds = self.copy_seconds() + self.index_seconds();
        let locked = self
            .lock
            .map(|lock| format!(", {:.0} ms of it locked", lock.total_ms().ceil()))
            .unwrap_or_default();
        row("time", format!("roughly {}{locked}", duration(seconds)));
        if let Some(lock) = self.lock {
            row("locked", lock.to_string());
        }
    }

    fn list(&self, text: &mut String, title: &str, severity: Severity) {
        let findings = self.findings.iter().filter(|finding| finding.severity == severity);
        section(text, title, findings.map(ToString::to_string));
    }
}

/// A title and its lines; nothing where there are none. Statements of several lines keep them.
fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "  {title}:");
    for line in lines {
        let _ = writeln!(text, "    {}", line.replace('\n', "\n      "));
    }
}

/// What the order of the columns costs, and what to do about it.
fn padding(alignment: &Alignment) -> String {
    let now = format!("about {:.0} bytes a row between its columns", alignment.padding);
    if alignment.saving == 0.0 {
        return format!("{now}; no order of columns saves any");
    }
    let order: Vec<String> = alignment.order.iter().map(|name| quote_ident(name)).collect();
    format!("{now}; {:.0} fewer with --column-order {}", alignment.saving, order.join(","))
}

fn duration(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        short @ 0..120 => format!("{} s", short.max(1)),
        middle @ 120..7200 => format!("{} min", middle.div_ceil(60)),
        long => format!("{:.1} h", long as f64 / 3600.0),
    }
}

fn finding(finding: &Finding) -> FindingLine {
    FindingLine {
        check: finding.check,
        severity: match finding.severity {
            Severity::Refuse => "refuse",
            Severity::Warn => "warn",
        },
        object: finding.object.clone(),
        problem: finding.problem.clone(),
        remedy: finding.remedy.clone(),
    }
}

fn statements(plan: &RepackPlan) -> Statements {
    let identity = plan.key.identity.iter().map(|identity| identity.set.clone());
    let indexes = plan.indexes.iter().flat_map(|index| index.statements.iter().chain(&index.attach).cloned());
    Statements {
        before: identity
            .chain(plan.create.iter().cloned())
            .chain(indexes)
            .chain(plan.finish.iter().cloned())
            .chain(plan.refresh.iter().map(|view| format!("REFRESH MATERIALIZED VIEW {view}")))
            .collect(),
        locks: plan.locks.iter().map(|lock| lock.statement.clone()).collect(),
        exchange: plan.exchange.clone(),
        after: plan.after.iter().map(|step| step.statement.clone()).collect(),
        drop_old: plan.drop_old.clone(),
    }
}

#[cfg(test)]
mod tests;
