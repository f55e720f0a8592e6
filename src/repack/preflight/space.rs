//! Disk that a repack needs beside the table. Pure: how much is free only the server's machine knows.

use super::finding::Finding;
use super::server::ServerFacts;
use crate::repack::options::RepackSettings;
use crate::repack::select::TableFacts;

const CHECK: &str = "space";

/// From here on the need is worth a warning.
const NOTABLE: u64 = 1 << 30;

/// What a repack is expected to need and to give back, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// New heap.
    pub heap: u64,
    /// New TOAST.
    pub toast: u64,
    /// New indexes.
    pub indexes: u64,
    /// WAL written, and kept by the slot until the new table has caught up; that of others is not in it.
    pub wal: u64,
}

impl Forecast {
    /// Everything that must fit beside the table.
    pub fn total(&self) -> u64 {
        self.heap + self.toast + self.indexes + self.wal
    }

    /// The new table with its indexes.
    pub fn table(&self) -> u64 {
        self.heap + self.toast + self.indexes
    }
}

/// Expects indexes and TOAST to shrink as the heap does, but never below half: nothing is known of how full they are.
pub fn forecast(table: &TableFacts) -> Forecast {
    let heap = table.new_heap_bytes;
    let kept = if table.heap_bytes == 0 { 1.0 } else { heap as f64 / table.heap_bytes as f64 };
    let kept = kept.clamp(0.5, 1.0);
    let (toast, indexes) = (table.toast_bytes, (table.index_bytes as f64 * kept) as u64);
    let written = heap + toast + indexes;
    // Measured: a copy with its indexes writes between 1.02 and 1.07 times its size.
    Forecast { heap, toast, indexes, wal: written + written / 14 }
}

/// Says what is needed, and whether our own or the server's limit of WAL will not do.
pub fn judge(
    table: &TableFacts,
    forecast: &Forecast,
    server: &ServerFacts,
    settings: &RepackSettings,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let need = bytes(forecast.wal);
    if let Some(limit) = settings.max_retained_wal.filter(|limit| *limit < forecast.wal) {
        let problem = format!(
            "its copy writes about {need} of WAL, and the repack is given up when its slot keeps {} \
             (max_retained_wal)",
            bytes(limit)
        );
        findings.push(Finding::warn(CHECK, &table.name, problem).help("raise max_retained_wal"));
    }
    if let Some(limit) = server.slot_wal_limit.filter(|limit| *limit < forecast.wal) {
        let problem = format!(
            "its copy writes about {need} of WAL, and the server invalidates a slot that keeps {} \
             (max_slot_wal_keep_size)",
            bytes(limit)
        );
        findings.push(Finding::warn(CHECK, &table.name, problem).help("raise max_slot_wal_keep_size"));
    }
    if forecast.total() >= NOTABLE {
        let problem = format!(
            "about {} of disk are needed for the time of the repack: {} for the new table, {} for its indexes, {need} for \
             WAL, and what others write meanwhile",
            bytes(forecast.total()),
            bytes(forecast.heap + forecast.toast),
            bytes(forecast.indexes),
        );
        findings.push(
            Finding::warn(CHECK, &table.name, problem)
                .help("see that they are free on the server; no role can ask for that"),
        );
    }
    findings
}

/// A size for people.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS.get(unit).copied().unwrap_or("TB"))
}

#[cfg(test)]
mod tests {
    use super::super::server::tests::server;
    use super::*;
    use crate::repack::select::tests::table;

    #[test]
    fn sizes_are_for_people() {
        for (number, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (200 << 20, "200 MB"), (3 << 41, "6.0 TB")]
        {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn the_need_follows_from_what_is_left() {
        let half = TableFacts {
            heap_bytes: 1000,
            index_bytes: 500,
            toast_bytes: 10,
            new_heap_bytes: 600,
            ..table("t", None)
        };
        let need = forecast(&half);
        assert_eq!((need.heap, need.toast, need.indexes), (600, 10, 300));
        assert!(need.wal >= need.table());
        let empty =
            forecast(&TableFacts { heap_bytes: 0, index_bytes: 16, new_heap_bytes: 0, ..table("t", None) });
        assert_eq!((empty.heap, empty.indexes), (0, 16));
    }

    #[test]
    fn limits_that_will_not_do_are_named() {
        let large = TableFacts { heap_bytes: 4 << 30, new_heap_bytes: 4 << 30, ..table("t", None) };
        let need = forecast(&large);
        let settings = RepackSettings { max_retained_wal: Some(1 << 30), ..RepackSettings::default() };
        let limited = ServerFacts { slot_wal_limit: Some(1 << 30), ..server() };
        let findings = judge(&large, &need, &limited, &settings);
        let words = ["max_retained_wal", "max_slot_wal_keep_size", "of disk are needed"];
        assert_eq!(findings.len(), 3);
        for (finding, word) in findings.iter().zip(words) {
            assert!(finding.problem.contains(word), "{finding}");
        }
        assert_eq!(
            judge(&table("t", None), &forecast(&table("t", None)), &server(), &RepackSettings::default()),
            []
        );
    }
}
