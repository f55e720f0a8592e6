//! How long the exchange will lock the table, and what of that is what. Pure.

use std::fmt;

use serde::Serialize;

use crate::repack::plan::RepackPlan;

/// Under the lock the definition is read before the exchange and after it.
const READINGS: u32 = 2;

/// What the lock will be held for, in milliseconds; the last changes come on top, a few milliseconds each time it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LockForecast {
    /// Statements that lock and exchange.
    pub statements: usize,
    /// What they take on a quiet machine.
    pub statements_ms: f64,
    /// Rows that are read under the lock: of the default partition, for foreign keys of a partition.
    pub scans_ms: f64,
    /// The definitions of the table and of all that hangs on it, read twice: as long as that took just now.
    pub readings_ms: f64,
}

impl LockForecast {
    /// Of a plan, where reading the definition took `reading_ms`.
    pub fn new(plan: &RepackPlan, reading_ms: f64) -> Self {
        LockForecast {
            statements: plan.locks.len() + plan.exchange.len(),
            statements_ms: plan.forecast_ms,
            scans_ms: plan.scan_ms,
            readings_ms: rounded(reading_ms * f64::from(READINGS)),
        }
    }

    /// All of it.
    pub fn total_ms(&self) -> f64 {
        rounded(self.statements_ms + self.scans_ms + self.readings_ms)
    }
}

/// To hundredths.
fn rounded(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

impl fmt::Display for LockForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} statements {:.1} ms", self.statements, self.statements_ms)?;
        if self.scans_ms > 0.0 {
            write!(f, ", rows that are checked {:.1} ms", self.scans_ms)?;
        }
        write!(
            f,
            ", reading the definitions {READINGS} times {:.1} ms; and the last changes",
            self.readings_ms
        )
    }
}
