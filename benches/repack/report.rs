//! The table: medians and what each run said.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::bars::{self, Row, Series};
use crate::load::RATE;
use crate::machine::{load, machine, median};
use crate::run::Measured;
use crate::stage::SETTINGS;
use crate::tools::{ALL, Tool};
use crate::{Options, readme};

pub(crate) struct Report {
    machine: String,
    load_before: String,
    load_after: String,
    rows: u64,
    rounds: usize,
    pub(crate) left_out: Vec<(Tool, String)>,
    runs: BTreeMap<(bool, Tool), Vec<Measured>>,
}

impl Report {
    pub(crate) fn begin(options: &Options) -> Self {
        Report {
            machine: machine(),
            load_before: load(),
            load_after: String::new(),
            rows: options.rows,
            rounds: options.rounds,
            left_out: Vec::new(),
            runs: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, tool: Tool, loaded: bool, measured: Measured) {
        self.runs.entry((loaded, tool)).or_default().push(measured);
    }

    pub(crate) fn end(&mut self) {
        self.load_after = load();
    }

    fn middle(&self, loaded: bool, tool: Tool, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.runs.get(&(loaded, tool))?.iter().filter_map(of).collect();
        (!values.is_empty()).then(|| median(values.into_iter()))
    }

    fn seconds(&self, loaded: bool, tool: Tool) -> Option<f64> {
        self.middle(loaded, tool, |run| Some(run.seconds))
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let settings: Vec<String> =
            SETTINGS.iter().map(|(name, value)| format!("`{name} = {value}`")).collect();
        let _ = writeln!(
            out,
            "Machine: {}. Load average before {}, after {} (the benchmark itself among it). {} rows, half of the table dead, three \
             indexes, a foreign key each way, a view; {} rounds in turn, medians. {}.",
            self.machine,
            self.load_before,
            self.load_after,
            self.rows,
            self.rounds,
            settings.join(", ")
        );
        for (tool, why) in &self.left_out {
            let _ = writeln!(out, "\n{} was left out: {why}.", tool.title());
        }
        let _ = writeln!(out, "\nIdle:\n");
        out += &self.table(false);
        let _ = writeln!(
            out,
            "\nWith {RATE} transactions a second (70 % updates, 15 % inserts, 7 % deletes, 8 % reads of the view):\n"
        );
        out += &self.table(true);
        out
    }

    fn table(&self, loaded: bool) -> String {
        let mut out = String::from(
            "| | seconds (each) | to pg_repack | to VACUUM FULL | WAL MB | to pg_repack | CPU s client | CPU s server | peak MB client | lock ms | slowest client ms (each) | p99 ms | failed |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|\n",
        );
        for tool in ALL {
            let Some(runs) = self.runs.get(&(loaded, tool)) else { continue };
            let cell = |value: Option<f64>, digits: usize| {
                value.map_or_else(String::new, |value| format!("{value:.digits$}"))
            };
            let middle = |of: fn(&Measured) -> Option<f64>| self.middle(loaded, tool, of);
            let ratio = |other: Tool, of: fn(&Measured) -> Option<f64>| {
                cell(middle(of).zip(self.middle(loaded, other, of)).map(|(ours, theirs)| ours / theirs), 2)
            };
            let each = |of: fn(&Measured) -> Option<f64>, digits: usize| {
                runs.iter().map(|run| cell(of(run), digits)).collect::<Vec<_>>().join(", ")
            };
            let seconds: fn(&Measured) -> Option<f64> = |run| Some(run.seconds);
            let wal: fn(&Measured) -> Option<f64> = |run| Some(run.wal / 1e6);
            let slowest: fn(&Measured) -> Option<f64> = |run| run.seen.as_ref().map(|seen| seen.slowest_ms);
            let _ = writeln!(
                out,
                "| {} | **{}** ({}) | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                tool.title(),
                cell(middle(seconds), 2),
                each(seconds, 2),
                ratio(Tool::PgRepack, seconds),
                ratio(Tool::VacuumFull, seconds),
                cell(middle(wal), 0),
                ratio(Tool::PgRepack, wal),
                cell(middle(|run| Some(run.client_cpu)), 2),
                cell(middle(|run| Some(run.server_cpu)), 2),
                cell(middle(|run| Some(run.client_peak as f64 / 1e6)), 0),
                cell(middle(|run| run.lock_ms), 1),
                match middle(slowest) {
                    Some(value) => format!("**{value:.1}** ({})", each(slowest, 1)),
                    None => String::new(),
                },
                cell(middle(|run| run.seen.as_ref().map(|seen| seen.p99_ms)), 1),
                cell(middle(|run| run.seen.as_ref().map(|seen| seen.failures.len() as f64)), 0),
            );
        }
        out
    }

    /// Into `benches/README.md`, between the markers, and `benches/repack.svg`.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        readme::write_part("bench-repack", &self.text())?;
        let series: Vec<Series> = ALL.iter().map(|tool| (tool.title(), tool.colour())).collect();
        let row = |title: &str, loaded| Row {
            title: title.to_owned(),
            values: ALL.iter().map(|tool| self.seconds(loaded, *tool)).collect(),
        };
        let rows = [row("idle", false), row(&format!("{RATE} transactions a second"), true)];
        let picture = bars::svg("Seconds to rebuild a bloated table (less is better)", &series, &rows, "s");
        std::fs::write(readme::folder().join("repack.svg"), picture)?;
        println!("written: benches/README.md, benches/repack.svg");
        Ok(())
    }
}
