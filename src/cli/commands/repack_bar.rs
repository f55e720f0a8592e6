//! The line that a terminal shows while tables are repacked.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::commands::stream::progress_bar;
use crate::pg::{self, Session};
use crate::repack::RepackError;
use crate::repack::options::RepackOptions;
use crate::repack::preflight::space::bytes;
use crate::repack::view::{self, RepackView};

/// Shows how far the tables of a connection are, every second, until it is dropped. It has a session of its own; what it
/// cannot see it does not show.
pub(super) async fn keep(options: &RepackOptions) -> Infallible {
    let style =
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = Cleared(ProgressBar::new_spinner().with_style(style));
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = None;
    loop {
        tick.tick().await;
        match look(options, &mut session).await {
            Ok(views) => {
                let lines: Vec<String> = views.iter().filter(|view| view.running).map(line).collect();
                bar.0.set_message(lines.join("; "));
                bar.0.tick();
            }
            Err(error) => {
                tracing::debug!("progress could not be read: {error}");
                session = None;
            }
        }
    }
}

/// The line goes when the work is done.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn look(
    options: &RepackOptions,
    session: &mut Option<Session>,
) -> Result<Vec<RepackView>, RepackError> {
    let session = match session {
        Some(session) => session,
        None => session.insert(pg::connect(&options.connect).await?),
    };
    view::read_on(session, &options.connection).await
}

/// One table. Pure.
fn line(view: &RepackView) -> String {
    let table = &view.table;
    let unsigned = |n: i64| u64::try_from(n).unwrap_or(0);
    match view.state.as_str() {
        "shadow_ready" => {
            let (done, all) = (unsigned(view.rows_copied), unsigned(view.rows_total).max(1));
            let share = done as f64 / all as f64;
            let copied = (view.bytes.max(0) as f64 * share) as u64;
            let how = match (&view.throttled_by, view.eta_seconds) {
                (Some(reason), _) => format!(", rests: {reason}"),
                (None, Some(left)) if left > 0.0 => {
                    let rate = (unsigned(view.bytes) - copied) as f64 / left;
                    format!(", {}/s, about {left:.0} s left", bytes(rate as u64))
                }
                (None, _) => String::new(),
            };
            format!(
                "{table}  copy {} {:.0} %, {} of {}{how}",
                progress_bar(done, all),
                share * 100.0,
                bytes(copied),
                bytes(unsigned(view.bytes))
            )
        }
        "rows_copied" => format!("{table}  building indexes"),
        "indexes_built" => format!("{table}  catching up, {} behind", bytes(unsigned(view.lag_bytes))),
        "caught_up" => format!("{table}  comparing"),
        "verified" if view.attempt > 0 => format!("{table}  exchange, attempt {}", view.attempt),
        "verified" => format!("{table}  ready"),
        _ => format!("{table}  {}", view.state.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_bytes_rate_and_time_left_or_why_it_rests() {
        let copying = RepackView {
            connection: "prod".into(),
            table: "public.orders".into(),
            state: "shadow_ready".into(),
            rows_copied: 500,
            rows_total: 1000,
            eta_seconds: Some(5.0),
            changes_replayed: 0,
            lag_bytes: 0,
            attempt: 0,
            blocked_by: Vec::new(),
            throttled_by: None,
            error: None,
            running: true,
            retained: 0,
            bytes: 100_000_000,
        };
        assert_eq!(
            line(&copying),
            "public.orders  copy [############------------] 50 %, 47.7 MB of 95.4 MB, 9.5 MB/s, about 5 s left"
        );
        let rests = RepackView { throttled_by: Some("paused".into()), ..copying.clone() };
        assert!(line(&rests).ends_with("47.7 MB of 95.4 MB, rests: paused"));
        let behind = RepackView { state: "indexes_built".into(), lag_bytes: 2_000_000, ..copying };
        assert_eq!(line(&behind), "public.orders  catching up, 1.9 MB behind");
    }
}
