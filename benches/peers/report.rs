//! The table: medians, ratios, CPU seconds, memory; and where it goes.

use std::fmt::Write as _;

use crate::Options;
use crate::bars::{self, Row, Series};
use crate::drain::{Drained, PEERS, Run};
use crate::latency::{Latencies, Quantiles};
use crate::machine::{load, machine, median};
use crate::queues::Queues;
use crate::readme;
use crate::stage::SETTINGS;

const COLOURS: [&str; 3] = ["#9aa5b1", "#4c78a8", "#e4572e"];

pub(crate) struct Report {
    machine: String,
    load_before: String,
    load_after: String,
    rounds: usize,
    pub(crate) drains: Vec<Drained>,
    pub(crate) copy: Option<Drained>,
    pub(crate) latency: Option<Latencies>,
    pub(crate) queues: Option<Queues>,
}

/// The median seconds of one peer.
pub(crate) fn seconds(drained: &Drained, peer: &str) -> Option<f64> {
    drained.runs.get(peer).map(|runs| median(runs.iter().map(|run| run.seconds)))
}

impl Report {
    pub(crate) fn begin(options: &Options) -> Self {
        Report {
            machine: machine(),
            load_before: load(),
            load_after: String::new(),
            rounds: options.rounds,
            drains: Vec::new(),
            copy: None,
            latency: None,
            queues: None,
        }
    }

    pub(crate) fn end(&mut self) {
        self.load_after = load();
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let settings: Vec<String> =
            SETTINGS.iter().map(|(name, value)| format!("`{name} = {value}`")).collect();
        let _ = writeln!(
            out,
            "Machine: {}. Load average before {}, after {} (the benchmark itself among it). {} rounds in turn, medians. All servers: {}.\n",
            self.machine,
            self.load_before,
            self.load_after,
            self.rounds,
            settings.join(", ")
        );
        if !self.drains.is_empty() {
            let _ =
                writeln!(out, "Seconds to drain a backlog, until the last row is visible on the target:\n");
            out += &table(&self.drains, &PEERS, true);
        }
        if let Some(copy) = &self.copy {
            let _ = writeln!(
                out,
                "\nFirst copy (a subscription until its table is ready; `repcloud stream --until caught-up` until it ends, making the table included):\n"
            );
            out += &table(std::slice::from_ref(copy), &["native", "repcloud"], false);
        }
        if let Some(latency) = &self.latency {
            let _ = writeln!(
                out,
                "\nCommit to visible at 1,000 changes/s for {} s, milliseconds:\n\n| | p50 | p99 | worst |\n|---|---:|---:|---:|",
                latency.seconds
            );
            for (peer, runs) in [("native", &latency.native), ("repcloud", &latency.repcloud)] {
                let middle = |of: fn(&Quantiles) -> f64| median(runs.iter().map(of));
                let _ = writeln!(
                    out,
                    "| {peer} | {:.2} | {:.2} | {:.1} |",
                    middle(|q| q.p50),
                    middle(|q| q.p99),
                    middle(|q| q.worst)
                );
            }
        }
        if let Some(queues) = &self.queues {
            out += &queues.text();
        }
        out
    }

    /// Into `benches/README.md`, between the markers, and `benches/peers.svg`.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        readme::write_part("bench-peers", &self.text())?;
        let charted: Vec<&Drained> = self.drains.iter().chain(&self.copy).collect();
        std::fs::write(readme::folder().join("peers.svg"), chart(&charted))?;
        println!("written: benches/README.md, benches/peers.svg");
        Ok(())
    }
}

fn table(drains: &[Drained], peers: &[&str], to_nowhere: bool) -> String {
    let mut out = String::from(
        "| workload | | seconds (each) | changes/s | to pg_recvlogical | to native | CPU s walsender | CPU s target | CPU s client | peak MB client |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for drained in drains {
        for peer in peers {
            let Some(runs) = drained.runs.get(peer) else { continue };
            let own = median(runs.iter().map(|run| run.seconds));
            let ratio = |other: &str| match seconds(drained, other) {
                Some(other) if to_nowhere || *peer != "pg_recvlogical" => format!("{:.2}", own / other),
                _ => String::new(),
            };
            let each: Vec<String> = runs.iter().map(|run| format!("{:.2}", run.seconds)).collect();
            let usage = |role: &str| match runs.iter().any(|run| run.usage.contains_key(role)) {
                true => format!("{:.2}", median(runs.iter().map(|run| cpu(run, role)))),
                false => String::new(),
            };
            let peak = runs.iter().filter_map(|run| run.usage.get("client")).map(|u| u.peak_bytes).max();
            let walsender = if usage("walsender").is_empty() { usage("source") } else { usage("walsender") };
            let _ = writeln!(
                out,
                "| {} | {peer} | **{own:.2}** ({}) | {:.0} | {} | {} | {walsender} | {} | {} | {} |",
                if *peer == peers[0] { drained.title.as_str() } else { "" },
                each.join(", "),
                drained.changes as f64 / own,
                ratio("pg_recvlogical"),
                ratio("native"),
                usage("target"),
                usage("client"),
                peak.map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e6)),
            );
        }
        let ends: Vec<f64> =
            drained.runs.get("repcloud").into_iter().flatten().filter_map(|run| run.until_end).collect();
        if !ends.is_empty() {
            let end = median(ends.into_iter());
            let _ = writeln!(out, "| | repcloud until the command has ended | {end:.2} | | | | | | | |");
        }
    }
    out
}

fn cpu(run: &Run, role: &str) -> f64 {
    run.usage.get(role).map_or(0.0, |usage| usage.cpu_seconds)
}

fn chart(drains: &[&Drained]) -> String {
    let series: Vec<Series> = PEERS.into_iter().zip(COLOURS).collect();
    let row = |drained: &&Drained| Row {
        title: drained.title.clone(),
        values: PEERS.iter().map(|peer| seconds(drained, peer)).collect(),
    };
    let rows: Vec<Row> = drains.iter().map(row).collect();
    bars::svg("Seconds to bring a backlog to its end (less is better)", &series, &rows, "s")
}
