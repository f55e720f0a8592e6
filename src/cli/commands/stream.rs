//! `stream`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::args::{StreamArgs, Until as UntilArg};
use crate::cli::logging::LAST_WORDS;
use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::cli::wiring::{block_on, capture_options, flow_failure, stream_events, streams};
use crate::flow::status::Board;
use crate::flow::view::{StreamState, StreamView};
use crate::flow::{self, StreamOptions, Until};
use crate::service::shutdown::{Asked, Shutdown};
use crate::service::status_file;

/// Keeps the tables of a source in step until stopped, or until `--until` is reached.
pub fn run(context: &Context, args: &StreamArgs) -> Result<Exit, Failure> {
    let source = context.source(&args.source)?;
    let until = match args.until {
        None => Until::Stopped,
        Some(UntilArg::CaughtUp) => Until::CaughtUp,
        Some(UntilArg::Position(lsn)) => Until::Position(lsn),
    };
    let mut streams = streams(&context.settings, source);
    for stream in &mut streams {
        stream.capture = capture_options(source, args.capture);
    }
    block_on(run_all(context, &args.source, streams, until))
}

async fn run_all(
    context: &Context,
    source: &str,
    streams: Vec<StreamOptions>,
    until: Until,
) -> Result<Exit, Failure> {
    let shutdown = Shutdown::listen().map_err(|e| Failure::from(anyhow::Error::new(e)))?;
    let bars = (context.progress && std::io::stderr().is_terminal()).then(MultiProgress::new);
    let runs = streams.iter().map(|options| {
        let stop = shutdown.stop.clone();
        let bars = bars.clone();
        async move {
            let board = Board::new(first_view(options));
            let events = stream_events(&options.key);
            let shown = Shown::new(context.streams_folder(), bars.as_ref());
            let result = {
                let work = flow::run(options, until, &events, &board, stop);
                tokio::select! {
                    result = work => result,
                    never = shown.keep(&board) => match never {},
                }
            };
            board.update(|view| {
                view.pid = None;
                view.state = if result.is_ok() { StreamState::Stopped } else { StreamState::Failed };
                view.error = result.as_ref().err().map(ToString::to_string);
            });
            shown.last(&board.view());
            if context.output.json {
                context.output.document(&board.view())?;
            }
            Ok::<_, Failure>(result)
        }
    });
    let mut failure = None;
    for result in join_all(runs).await {
        if let Err(error) = result? {
            match failure {
                None => tracing::error!(target: LAST_WORDS, "{error}"),
                Some(_) => tracing::error!("{error}"),
            }
            failure = failure.or(Some(flow_failure(error, source)));
        }
    }
    match (failure, shutdown.asked()) {
        (Some(failure), _) => Err(failure),
        (None, Some(Asked::Interrupt)) => {
            tracing::info!("interrupted; the position is kept in the target, start again to go on");
            Ok(Exit::Interrupted)
        }
        (None, _) => Ok(Exit::Done),
    }
}

fn first_view(options: &StreamOptions) -> StreamView {
    StreamView {
        source: options.key.source.clone(),
        target: options.key.target.clone(),
        capture: "slot".to_owned(),
        slot: options.slot(),
        pid: Some(std::process::id()),
        state: StreamState::Copying,
        ..StreamView::default()
    }
}

/// Where a stream's state is shown while it runs: the status file, and a line on a terminal.
struct Shown {
    folder: PathBuf,
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(folder: PathBuf, bars: Option<&MultiProgress>) -> Self {
        let bar = bars.map(|bars| {
            let style = ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            bars.add(ProgressBar::new_spinner().with_style(style))
        });
        Shown { folder, bar }
    }

    /// Shows the board every second, for ever.
    async fn keep(&self, board: &Board) -> std::convert::Infallible {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = board.view().changes_applied;
        loop {
            tick.tick().await;
            let view = board.view();
            if let Some(bar) = &self.bar {
                bar.set_message(line(&view, view.changes_applied.saturating_sub(before)));
                bar.tick();
            }
            before = view.changes_applied;
            self.write(&view);
        }
    }

    fn last(&self, view: &StreamView) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.write(view);
    }

    fn write(&self, view: &StreamView) {
        if let Err(error) = status_file::write(&self.folder, view) {
            tracing::debug!("the status file could not be written: {error}");
        }
    }
}

/// One line for a person.
fn line(view: &StreamView, changes_per_second: u64) -> String {
    let name = format!("{} → {}", view.source, view.target);
    if view.state == StreamState::Copying {
        let (copied, total) = view.tables.iter().fold((0, 0), |(c, t), table| {
            (c + table.rows_copied, t + table.rows_total.max(table.rows_copied))
        });
        let bar = progress_bar(copied, total);
        return format!("{name}  first copy {bar} {copied} of about {total} rows");
    }
    format!(
        "{name}  {changes_per_second} changes/s, lag {:.1} s ({} KB)",
        view.lag_seconds,
        view.lag_bytes >> 10
    )
}

pub(super) fn progress_bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 24;
    let filled = (done * WIDTH).checked_div(total).unwrap_or(0).min(WIDTH) as usize;
    format!("[{}{}]", "#".repeat(filled), "-".repeat(WIDTH as usize - filled))
}
