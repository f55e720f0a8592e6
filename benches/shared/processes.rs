//! CPU seconds and peak memory of processes, sampled from `/proc` while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a process ends within this of its last sample is lost.
const EVERY: Duration = Duration::from_millis(10);
/// The unit of `/proc/PID/stat` on every Linux we know (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// `VmHWM`; of a server process it counts the shared buffers it touched.
    pub(crate) peak_bytes: u64,
}

type Watched = Arc<Mutex<(BTreeSet<(String, u32)>, BTreeMap<(String, u32), Usage>)>>;

/// Samples processes until it is asked for the result.
pub(crate) struct Sampler {
    watched: Watched,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Sampler {
    pub(crate) fn start() -> Self {
        let watched = Watched::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (watched, stop) = (watched.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    sample(&watched);
                    std::thread::sleep(EVERY);
                }
            }
        });
        Sampler { watched, stop, thread }
    }

    /// Counts process `pid` as `role` from now on; its whole life counts.
    pub(crate) fn watch(&self, role: &str, pid: u32) {
        self.watched.lock().unwrap().0.insert((role.to_owned(), pid));
    }

    /// Sums by role.
    pub(crate) fn finish(self) -> BTreeMap<String, Usage> {
        sample(&self.watched);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let mut roles: BTreeMap<String, Usage> = BTreeMap::new();
        for ((role, _), usage) in &self.watched.lock().unwrap().1 {
            let sum = roles.entry(role.clone()).or_default();
            sum.cpu_seconds += usage.cpu_seconds;
            sum.peak_bytes = sum.peak_bytes.max(usage.peak_bytes);
        }
        roles
    }
}

fn sample(watched: &Watched) {
    let mut watched = watched.lock().unwrap();
    let (pids, usages) = &mut *watched;
    for key in pids.iter() {
        let usage = usages.entry(key.clone()).or_default();
        // A process that has ended keeps its last sample.
        if let Some(cpu) = cpu_seconds(key.1) {
            usage.cpu_seconds = usage.cpu_seconds.max(cpu);
        }
        if let Some(peak) = peak_bytes(key.1) {
            usage.peak_bytes = usage.peak_bytes.max(peak);
        }
    }
}

/// User and system time; a zombie's can still be read.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn peak_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// User and system time of a process's children that have ended.
#[allow(dead_code, reason = "one of the benchmarks asks")]
pub(crate) fn children_cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(13).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}
