//! What the doctor found, for a person and as JSON. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::doctor::{Check, Level, Reading, Report};

/// As CONTRACT 4 has it.
pub(super) fn document(reports: &[Report]) -> Value {
    let check = |check: &Check| {
        json!({
            "check": check.check,
            "ok": check.level != Level::Fail,
            "level": check.level.as_str(),
            "detail": check.detail,
            "remedy": check.remedy.as_ref().map(ToString::to_string),
            "statements": check.remedy.as_ref().map(|r| r.statements.clone()).unwrap_or_default(),
            "one_of": check.remedy.as_ref().is_some_and(|r| r.one_of),
        })
    };
    let reading = |reading: &Reading| json!({ "work": reading.work, "capture": reading.capture(), "way": reading.way.map(|w| w.to_string()) });
    let report = |report: &Report| {
        let checks: Vec<Value> = report.checks.iter().map(check).collect();
        let work: Vec<Value> = report.readings.iter().map(reading).collect();
        json!({ "name": report.name, "capture": report.capture(), "work": work, "checks": checks })
    };
    json!({ "connections": reports.iter().map(report).collect::<Vec<_>>() })
}

/// A line a check, what is wrong first; then how each piece of work reads changes, and what there is to do.
pub(super) fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", report.name);
        let width = report.checks.iter().map(|c| c.check.chars().count()).max().unwrap_or(0).min(34);
        let mut checks: Vec<&Check> = report.checks.iter().collect();
        // Stable: within a level in the order of looking.
        checks.sort_by_key(|check| std::cmp::Reverse(check.level));
        for check in checks {
            let mark = match check.level {
                Level::Fail => "FAIL",
                Level::Warn => "warn",
                Level::Ok => "ok",
            };
            let _ = writeln!(text, "  {mark:<4}  {:<width$}  {}", check.check, check.detail);
            if let Some(remedy) = check.remedy.as_ref().filter(|_| check.level != Level::Ok) {
                let _ = writeln!(text, "  {:<4}  {:<width$}  → {remedy}", "", "");
            }
        }
        for reading in &report.readings {
            let way = match reading.way {
                Some(way) => format!("changes are read from {way}"),
                None => "changes can be read in none of the ways that are configured".to_owned(),
            };
            let _ = writeln!(text, "  {}: {way}", reading.work);
        }
        text.push('\n');
    }
    text.push_str(&summary(reports));
    text
}

fn summary(reports: &[Report]) -> String {
    let count = |report: &Report, level| report.checks.iter().filter(|c| c.level == level).count();
    let warnings: usize = reports.iter().map(|r| count(r, Level::Warn)).sum();
    let noted = match warnings {
        0 => String::new(),
        1 => "; 1 warning".to_owned(),
        many => format!("; {many} warnings"),
    };
    let failed: Vec<String> = reports
        .iter()
        .filter(|r| r.is_failed())
        .map(|r| format!("{} ({})", r.name, count(r, Level::Fail)))
        .collect();
    match failed.is_empty() {
        true => format!("everything that is needed is there{noted}\n"),
        false => format!("something that is needed is missing: {}{noted}\n", failed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Plugin;
    use crate::capture::auto::Way;
    use crate::doctor::Remedy;

    #[test]
    fn what_is_wrong_comes_first_and_the_ways_last() {
        let checks = vec![
            Check::ok("reachable", "db:5432"),
            Check::warn("tls", "not encrypted").help(Remedy::note("set sslmode")),
            Check::fail("schema repcloud", "not ours").help(Remedy::run(["ALTER ROLE a REPLICATION"])),
        ];
        let readings = vec![
            Reading { work: "stream to b".into(), way: Some(Way::Slot(Plugin::Pgoutput)) },
            Reading { work: "repack".into(), way: None },
        ];
        let report = Report { name: "prod".into(), readings, checks };
        let shown = text(std::slice::from_ref(&report));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines,
            [
                "prod",
                "  FAIL  schema repcloud  not ours",
                "                         → run: ALTER ROLE a REPLICATION;",
                "  warn  tls              not encrypted",
                "                         → set sslmode",
                "  ok    reachable        db:5432",
                "  stream to b: changes are read from a slot with pgoutput",
                "  repack: changes can be read in none of the ways that are configured",
                "",
                "something that is needed is missing: prod (1); 1 warning",
            ]
        );
        let document = document(&[report]);
        assert_eq!(document["connections"][0]["capture"], "slot");
        assert_eq!(document["connections"][0]["checks"][2]["ok"], false);
    }
}
