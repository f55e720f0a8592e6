//! The wall clock, for lag alone.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::PgTimestamp;

/// Seconds between a commit on the source and now by our clock; never negative.
pub(crate) fn seconds_since(time: PgTimestamp) -> f64 {
    const PG_EPOCH: f64 = 946_684_800.0;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    (now - PG_EPOCH - time.0 as f64 / 1e6).max(0.0)
}
