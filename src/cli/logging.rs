//! Log lines: for people on standard error, or in a daily file.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use super::args::Global;
use crate::config::{LogDest, LogLevel, Logging};

/// What the command's last words on standard error say is not logged there too, only in the file.
pub(crate) const LAST_WORDS: &str = "repcloud::last_words";

/// Where log lines go, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlan {
    /// Least severe level.
    pub level: LogLevel,
    /// To standard error.
    pub console: bool,
    /// To the log file.
    pub file: bool,
}

/// What the configuration and the command line ask for; the command line wins. `logged`: the command is one that
/// writes to the log file.
pub fn plan(logging: &Logging, global: &Global, logged: bool) -> LogPlan {
    let level = match (global.debug, global.verbose, global.quiet) {
        (_, 2.., _) => LogLevel::Trace,
        (true, ..) | (_, 1, _) => logging.log_level.max(LogLevel::Debug),
        (_, _, 0) => logging.log_level,
        (_, _, 1) => logging.log_level.min(LogLevel::Warn),
        (_, _, 2..) => LogLevel::Error,
    };
    let to_file = logging.log_dest == LogDest::File;
    LogPlan { level, console: global.debug || !to_file || !logged, file: logged && (global.debug || to_file) }
}

/// Starts logging for the rest of the process. `name` is the configuration's.
pub fn start(plan: LogPlan, logging: &Logging, name: &str) -> anyhow::Result<()> {
    let console = plan.console.then(|| {
        fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // It would report a closed standard error on standard error, and panic.
            .log_internal_errors(false)
            .with_filter(filter(plan.level))
            .with_filter(FilterFn::new(|event| event.target() != LAST_WORDS))
    });
    let file = if plan.file {
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix(format!("repcloud_{name}"))
            .filename_suffix("log")
            .max_log_files(logging.log_days_keep)
            .build(&logging.log_dir)
            .with_context(|| format!("cannot write log files to {}", logging.log_dir.display()))?;
        let layer = fmt::layer().with_writer(appender).with_ansi(false).log_internal_errors(false);
        Some(layer.with_filter(filter(plan.level)))
    } else {
        None
    };
    tracing_subscriber::registry()
        .with(console)
        .with(file)
        .try_init()
        .context("cannot start logging twice in one process")
}

/// Our own lines at `level`. Libraries at most at `warn`: at `debug` the PostgreSQL client logs parameters, and
/// those are row values.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "warn,repcloud=info",
        LogLevel::Debug => "warn,repcloud=debug",
        LogLevel::Trace => "warn,repcloud=trace",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_configuration() {
        let global = |debug, verbose, quiet| Global {
            config: String::new(),
            debug,
            verbose,
            quiet,
            json: false,
            no_progress: false,
        };
        let logging = |log_dest| Logging {
            log_dir: "/logs".into(),
            log_level: LogLevel::Info,
            log_dest,
            log_days_keep: 7,
        };
        let (console, file) = (logging(LogDest::Console), logging(LogDest::File));
        let plan = |logging, global, logged| {
            let LogPlan { level, console, file } = plan(logging, &global, logged);
            (level, console, file)
        };
        assert_eq!(plan(&console, global(false, 0, 0), true), (LogLevel::Info, true, false));
        assert_eq!(plan(&console, global(false, 2, 0), true), (LogLevel::Trace, true, false));
        assert_eq!(plan(&console, global(false, 0, 1), true), (LogLevel::Warn, true, false));
        assert_eq!(plan(&console, global(false, 0, 3), true), (LogLevel::Error, true, false));
        assert_eq!(plan(&file, global(false, 1, 0), true), (LogLevel::Debug, false, true));
        assert_eq!(plan(&console, global(true, 0, 0), true), (LogLevel::Debug, true, true));
        assert_eq!(plan(&file, global(false, 0, 0), false), (LogLevel::Info, true, false));
    }
}
