//! The options of the commands about repack.

use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use super::CaptureArg;
use crate::config::parse_size;
use crate::model::TablePattern;
use crate::model::name::{parse_identifier, parse_table_pattern};
use crate::repack::options::RunOptions;
use crate::repack::rebuild::{Rebuild, SortColumn, identifier, list};
use crate::repack::window::Window;

/// Options of `create-schema` and `drop-schema`.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// The connection; default: every one
    #[arg(long, value_name = "CONNECTION")]
    pub connection: Option<String>,
}

/// Options of `pause`, `resume` and `stop`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("whose").args(["source", "connection"]))]
pub struct ControlArgs {
    /// The streams of this connection
    #[arg(long, value_name = "CONNECTION")]
    pub source: Option<String>,
    /// The repacks of this connection; default: all streams and repacks
    #[arg(long, value_name = "CONNECTION")]
    pub connection: Option<String>,
}

/// Options of `throttle`.
#[derive(Debug, Clone, Args)]
pub struct ThrottleArgs {
    /// Which processes
    #[command(flatten)]
    pub whose: ControlArgs,
    /// Most WAL the server may write a second (B, kB, MB, GB) for the copy to go on, or off
    #[arg(long, value_name = "BYTES|off", value_parser = rate)]
    pub max_wal_rate: Rate,
}

/// A limit that may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

/// Options of `repack`, `swap` and `abort`.
#[derive(Debug, Clone, Args)]
pub struct RepackArgs {
    /// The connection; default: every one
    #[arg(long, value_name = "CONNECTION")]
    pub connection: Option<String>,
    /// This table, or SCHEMA.* (may be repeated); default: as configured
    #[arg(long = "table", value_name = "SCHEMA.TABLE", value_parser = pattern)]
    pub tables: Vec<TablePattern>,
    /// The tables of this schema (may be repeated)
    #[arg(long = "schema", value_name = "SCHEMA", value_parser = schema)]
    pub schemas: Vec<String>,
    /// How changes are read; default: as configured
    #[arg(long, value_enum)]
    pub capture: Option<CaptureArg>,
    /// Show the plan and what stands in the way; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Sessions that copy, build indexes and, up to four, apply changes at once
    #[arg(long, value_name = "N", default_value_t = RunOptions::default().jobs, value_parser = jobs)]
    pub jobs: usize,
    /// How much is compared before the exchange; of a copy that `prepare` compared only `full` compares again
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    pub verify: VerifyLevelArg,
    /// Longest time the table is locked for the exchange, in milliseconds
    #[arg(long, value_name = "N", default_value_t = default_lock(),
        value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub max_lock_ms: u64,
    /// Attempts of the exchange
    #[arg(long, value_name = "N", default_value_t = RunOptions::default().attempts,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// An unfinished repack that fails is kept for the next run, or undone
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub on_failure: OnFailureArg,
    /// Go on applying changes until `repcloud swap` asks for the exchange
    #[arg(long)]
    pub postpone_swap: bool,
    /// Only tables with at least this much bloat, by estimate
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub min_bloat: Option<f64>,
    /// Only tables of at least this size, indexes included (B, kB, MB, GB, TB)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub min_size: Option<u64>,
    /// Exchange only in these hours, by this machine's clock
    #[arg(long, value_name = "HH:MM-HH:MM", value_parser = window)]
    pub window: Option<Window>,
    /// Write the rows in the order of these columns (COLUMN [desc], …); with --table
    #[arg(long, value_name = "COLUMNS", value_parser = order_by, requires = "tables")]
    pub order_by: Option<SortColumns>,
    /// Put the new table and its indexes into this tablespace
    #[arg(long, value_name = "TABLESPACE", value_parser = identifier)]
    pub tablespace: Option<String>,
    /// Give the new table its columns in this order (every column, once); with --table
    #[arg(long, value_name = "COLUMNS", value_parser = columns, requires = "tables")]
    pub column_order: Option<ColumnNames>,
}

/// Columns rows are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortColumns(pub Vec<SortColumn>);

/// Columns by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNames(pub Vec<String>);

impl RepackArgs {
    /// What is to be different in the new table.
    pub fn rebuild(&self) -> Rebuild {
        Rebuild {
            order_by: self.order_by.clone().map(|columns| columns.0).unwrap_or_default(),
            tablespace: self.tablespace.clone(),
            column_order: self.column_order.clone().map(|columns| columns.0).unwrap_or_default(),
        }
    }
}

impl RepackArgs {
    /// The limit of the whole cut-over.
    pub fn max_lock(&self) -> Duration {
        Duration::from_millis(self.max_lock_ms)
    }
}

/// Options of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct PrepareArgs {
    /// Those of `repack`
    #[command(flatten)]
    pub repack: RepackArgs,
    /// Go on applying changes until `repcloud swap` asks for the exchange
    #[arg(long)]
    pub follow: bool,
}

/// How much is compared before the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum VerifyLevelArg {
    /// Nothing
    Off,
    /// A part of the rows
    #[default]
    Sample,
    /// Every row
    Full,
}

/// What becomes of an unfinished repack that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnFailureArg {
    /// The next run goes on with it
    #[default]
    Keep,
    /// It is undone
    Abort,
}

fn default_lock() -> u64 {
    u64::try_from(RunOptions::default().max_lock.as_millis()).unwrap_or(u64::MAX)
}

fn pattern(text: &str) -> Result<TablePattern, String> {
    parse_table_pattern(text).map_err(|error| error.to_string())
}

fn schema(text: &str) -> Result<String, String> {
    parse_identifier(text).map_err(str::to_owned)
}

fn order_by(text: &str) -> Result<SortColumns, String> {
    list(text).into_iter().map(SortColumn::parse).collect::<Result<_, _>>().map(SortColumns)
}

fn columns(text: &str) -> Result<ColumnNames, String> {
    list(text).into_iter().map(identifier).collect::<Result<_, _>>().map(ColumnNames)
}

fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| (1..=64).contains(jobs)).ok_or_else(|| "expected 1 to 64".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size above zero, like 1073741824 or 1GB".to_owned())
}

fn rate(text: &str) -> Result<Rate, String> {
    if text == "off" {
        return Ok(Rate(None));
    }
    size(text).map(|bytes| Rate(Some(bytes)))
}

fn window(text: &str) -> Result<Window, String> {
    text.parse().map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Command, CommandLine};

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn every_form_of_the_contract_is_understood() {
        for line in [
            "repcloud create-schema",
            "repcloud create_schema --connection prod",
            "repcloud drop-schema --connection prod",
            "repcloud drop_schema",
            "repcloud repack --connection prod --table public.orders --capture=slot",
            "repcloud repack_tables --connection prod --debug",
            "repcloud repack --table public.orders --table sales.* --schema mart --schema \"Big\" --json",
            "repcloud repack --dry-run --jobs 4 --verify full --max-lock-ms 500 --attempts 3 --on-failure abort",
            "repcloud repack --postpone-swap --min-bloat 30 --min-size 1GB --window 22:00-05:30",
            "repcloud repack --table public.t --order-by a,\"B\" --column-order b,a --tablespace fast",
            "repcloud repack --min-bloat 12.5 --min-size 1073741824 --verify off",
            "repcloud prepare --connection prod --follow",
            "repcloud prepare_repack --connection prod --jobs 2",
            "repcloud replay_data --connection prod",
            "repcloud swap --connection prod --table public.orders --max-lock-ms 1000",
            "repcloud abort --connection prod",
            "repcloud abort_repack --table public.orders",
            "repcloud pause --connection prod",
            "repcloud resume --source prod",
            "repcloud stop",
            "repcloud stop_repack --connection prod",
            "repcloud throttle --connection prod --max-wal-rate 10MB",
            "repcloud throttle --max-wal-rate off",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "repcloud repack --table orders",
            "repcloud repack --schema a.b",
            "repcloud repack --capture queue",
            "repcloud repack --jobs 0",
            "repcloud repack --jobs 65",
            "repcloud repack --verify some",
            "repcloud repack --max-lock-ms 0",
            "repcloud repack --attempts 0",
            "repcloud repack --on-failure stop",
            "repcloud repack --min-bloat 101",
            "repcloud repack --min-bloat NaN",
            "repcloud repack --min-size 0",
            "repcloud repack --window 22-5",
            "repcloud repack --order-by a",
            "repcloud repack --column-order a,b",
            "repcloud repack --table public.t --order-by a,",
            "repcloud repack --tablespace a.b",
            "repcloud repack --follow",
            "repcloud pause --source a --connection b",
            "repcloud throttle --connection prod",
            "repcloud throttle --max-wal-rate 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_left_out_is_as_the_room_has_it() {
        let Ok(CommandLine { command: Command::Repack(args), .. }) = parse("repcloud repack") else {
            panic!("not a repack");
        };
        let default = RunOptions::default();
        assert_eq!(
            (args.jobs, args.attempts, args.max_lock()),
            (default.jobs, default.attempts, default.max_lock)
        );
        assert_eq!((args.verify, args.on_failure), (VerifyLevelArg::Sample, OnFailureArg::Keep));
    }
}
