//! The command line, as typed. Only what is built is offered.

mod repack;

use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use repack::{
    ConnectionArgs, ControlArgs, OnFailureArg, PrepareArgs, Rate, RepackArgs, ThrottleArgs, VerifyLevelArg,
};

use crate::model::name::parse_table_name;
use crate::model::{Lsn, TableName};

/// Keeps PostgreSQL tables in step with another database: no extension, no superuser, nothing lost.
#[derive(Debug, Clone, Parser)]
#[command(name = "repcloud", version, max_term_width = 100)]
pub struct CommandLine {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Configuration: a name in REPCLOUD_HOME/config (default ~/.repcloud/config), or a path
    #[arg(long, global = true, value_name = "NAME|PATH", default_value = "default")]
    pub config: String,
    /// Log how things are done, to the log file and the console
    #[arg(long, global = true)]
    pub debug: bool,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say less: warnings and errors; twice: errors
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// Results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make REPCLOUD_HOME and a commented configuration; never overwrites
    Init,
    /// Show the configured connections, without contacting a database
    #[command(alias = "show_connections")]
    ShowConnections,
    /// Try everything the configured work needs on the live servers; say what mends what is missing
    Doctor(DoctorArgs),
    /// Make the schema repcloud, which holds what a repack must remember
    #[command(alias = "create_schema")]
    CreateSchema(ConnectionArgs),
    /// Remove the schema repcloud, with its slots, publications and unfinished copies
    #[command(alias = "drop_schema")]
    DropSchema(ConnectionArgs),
    /// Rebuild bloated tables while they are in use
    #[command(alias = "repack_tables")]
    Repack(RepackArgs),
    /// Rebuild them, all but the exchange; the slot stays and keeps WAL
    #[command(alias = "prepare_repack")]
    Prepare(PrepareArgs),
    /// Go on applying changes to prepared tables: as prepare --follow
    #[command(name = "replay_data", hide = true)]
    ReplayData(PrepareArgs),
    /// Exchange what prepare has left ready
    #[command(
        mut_arg("dry_run", hidden),
        mut_arg("postpone_swap", hidden),
        mut_arg("min_bloat", hidden),
        mut_arg("min_size", hidden),
        mut_arg("order_by", hidden),
        mut_arg("tablespace", hidden),
        mut_arg("column_order", hidden)
    )]
    Swap(RepackArgs),
    /// Undo unfinished repacks completely; may be repeated
    #[command(alias = "abort_repack")]
    #[command(
        mut_arg("dry_run", hidden),
        mut_arg("postpone_swap", hidden),
        mut_arg("min_bloat", hidden),
        mut_arg("min_size", hidden),
        mut_arg("window", hidden),
        mut_arg("on_failure", hidden),
        mut_arg("order_by", hidden),
        mut_arg("tablespace", hidden),
        mut_arg("column_order", hidden),
        mut_arg("verify", hidden),
        mut_arg("max_lock_ms", hidden),
        mut_arg("attempts", hidden),
        mut_arg("jobs", hidden)
    )]
    Abort(RepackArgs),
    /// Let a running process pause
    Pause(ControlArgs),
    /// Let a paused process go on
    Resume(ControlArgs),
    /// End a running process; what it was doing stays resumable
    #[command(aliases = ["stop_repack", "stop_prepare", "stop_replay"])]
    Stop(ControlArgs),
    /// Slow running copies down, or let them run freely
    Throttle(ThrottleArgs),
    /// Keep the tables of a source in step, continuously
    Stream(StreamArgs),
    /// Show streams, their tables, lag and slots
    Status(StatusArgs),
    /// Compare source and target, or a table and its unfinished copy, row by row, online
    Verify(VerifyArgs),
    /// Go on after a lost slot, a changed shape or a rejected row
    Reset(ResetArgs),
    /// Leave one source transaction out; it is kept in repcloud.conflict
    Skip(SkipArgs),
    /// Stop replicating a table and remove what it left on the source
    #[command(alias = "drop_table")]
    DropTable(DropTableArgs),
    /// The five-minute tour: private servers, load, a stream, a crash, a comparison
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual pages
    Man,
}

/// How changes are read; overrides the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaptureArg {
    /// From a slot where the role may use one
    Auto,
    /// From a slot, or not at all
    Slot,
    /// From a queue that triggers on the table fill
    Trigger,
}

/// When a stream ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When all that had been committed on the source at the beginning is durable on the target and confirmed.
    CaughtUp,
    /// When that holds for this position.
    Position(Lsn),
}

fn until(text: &str) -> Result<Until, String> {
    match text {
        "caught-up" => Ok(Until::CaughtUp),
        position => position
            .parse()
            .map(Until::Position)
            .map_err(|_| "expected caught-up, or a WAL position in hexadecimal like 16/B374D848".to_owned()),
    }
}

fn table(text: &str) -> Result<TableName, String> {
    parse_table_name(text).map_err(|error| error.to_string())
}

fn position(text: &str) -> Result<Lsn, String> {
    text.parse().map_err(|_| "expected a WAL position in hexadecimal like 16/B374D848".to_owned())
}

/// Options of `stream`.
#[derive(Debug, Clone, Args)]
pub struct StreamArgs {
    /// Connection the changes come from
    #[arg(long, value_name = "CONNECTION")]
    pub source: String,
    /// How changes are read; default: as configured
    #[arg(long, value_enum)]
    pub capture: Option<CaptureArg>,
    /// End when caught-up with what is committed now, or when a WAL position is reached
    #[arg(long, value_name = "caught-up|LSN", value_parser = until)]
    pub until: Option<Until>,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The connection; default: every one
    #[arg(long, value_name = "CONNECTION")]
    pub connection: Option<String>,
    /// Also write everything support needs to this new file: no passwords, no rows
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// Options of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Show it again every second, until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// Options of `verify`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("side").args(["source", "connection"]).required(true))]
pub struct VerifyArgs {
    /// Connection the rows come from: compare with its targets
    #[arg(long, value_name = "CONNECTION")]
    pub source: Option<String>,
    /// Connection of unfinished repacks: compare a table with its copy
    #[arg(long, value_name = "CONNECTION", requires = "tables")]
    pub connection: Option<String>,
    /// Only this table (may be repeated)
    #[arg(long = "table", value_name = "SCHEMA.TABLE", value_parser = table)]
    pub tables: Vec<TableName>,
    /// Compare numbers of rows only
    #[arg(long)]
    pub count: bool,
}

/// Options of `reset`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").args(["tables", "all"]).required(true))]
#[command(group = ArgGroup::new("how").args(["recopy", "accept_target", "accept_system"]))]
pub struct ResetArgs {
    /// Connection the changes come from
    #[arg(long, value_name = "CONNECTION")]
    pub source: String,
    /// This source table (may be repeated)
    #[arg(long = "table", value_name = "SCHEMA.TABLE", value_parser = table)]
    pub tables: Vec<TableName>,
    /// Every table of the source
    #[arg(long)]
    pub all: bool,
    /// Empty the target and copy the rows again
    #[arg(long)]
    pub recopy: bool,
    /// Take the target's rows as they are and go on from here
    #[arg(long)]
    pub accept_target: bool,
    /// Take a source with another system identifier or timeline as the same one
    #[arg(long)]
    pub accept_system: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Options of `skip`.
#[derive(Debug, Clone, Args)]
pub struct SkipArgs {
    /// Connection the changes come from
    #[arg(long, value_name = "CONNECTION")]
    pub source: String,
    /// Position of the transaction's commit, as the error names it
    #[arg(long, value_name = "LSN", value_parser = position)]
    pub lsn: Lsn,
}

/// Options of `drop-table`.
#[derive(Debug, Clone, Args)]
pub struct DropTableArgs {
    /// The table on the target
    #[arg(value_name = "TARGET_TABLE", value_parser = table)]
    pub table: TableName,
    /// Keep its data as a plain table
    #[arg(long)]
    pub archive: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Options of `demo`. Hidden: they make it shorter or longer for tests, there is nothing to configure.
#[derive(Debug, Clone, Copy, Args)]
pub struct DemoArgs {
    /// pgbench's scale: 100,000 accounts each
    #[arg(long, hide = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub scale: u32,
    /// How long pgbench writes, in seconds
    #[arg(long, hide = true, default_value_t = 25, value_parser = clap::value_parser!(u64).range(3..=3600))]
    pub seconds: u64,
}

/// Options of `completions`.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Command {
    /// True for commands that change something in a database; they write to the log file where one is asked for.
    pub fn is_logged(&self) -> bool {
        use Command::{
            Abort, CreateSchema, DropSchema, DropTable, Prepare, Repack, ReplayData, Reset, Skip, Stream,
            Swap,
        };
        matches!(
            self,
            Stream(_)
                | Reset(_)
                | Skip(_)
                | DropTable(_)
                | CreateSchema(_)
                | DropSchema(_)
                | Repack(_)
                | Prepare(_)
                | ReplayData(_)
                | Swap(_)
                | Abort(_)
        )
    }
}

/// An option that the command shares with `repack` and refuses.
fn hidden(arg: clap::Arg) -> clap::Arg {
    arg.hide(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_form_of_the_contract_is_understood() {
        for line in [
            "repcloud init",
            "repcloud show-connections --json",
            "repcloud show_connections --config prod",
            "repcloud --debug stream --source prod",
            "repcloud stream --source prod --capture slot --until caught-up --no-progress",
            "repcloud stream --source prod --until 16/B374D848 -v",
            "repcloud doctor",
            "repcloud doctor --connection prod --json --bundle for-support.json",
            "repcloud status",
            "repcloud status --watch --json",
            "repcloud verify --source prod --count",
            "repcloud verify --source prod --table public.orders",
            "repcloud verify --connection prod --table public.orders",
            "repcloud reset --source prod --all --recopy --yes",
            "repcloud reset --source prod --table public.orders",
            "repcloud reset --source prod --all --accept-target",
            "repcloud reset --source prod --all --accept-system",
            "repcloud skip --source prod --lsn 0/16B3748",
            "repcloud drop-table mart.orders --archive --yes",
            "repcloud drop_table mart.orders",
            "repcloud demo",
            "repcloud completions bash",
            "repcloud man -qq",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn what_is_wrong_or_not_built_is_refused() {
        for line in [
            "repcloud",
            "repcloud doctor --connection",
            "repcloud stream",
            "repcloud stream --source prod --capture queue",
            "repcloud stream --source prod --until soon",
            "repcloud status --audit",
            "repcloud verify",
            "repcloud verify --connection prod",
            "repcloud verify --source a --connection b --table public.orders",
            "repcloud verify --source prod --table orders",
            "repcloud reset --source prod",
            "repcloud reset --source prod --all --table a.b",
            "repcloud reset --source prod --all --recopy --accept-target",
            "repcloud skip --source prod",
            "repcloud skip --source prod --lsn x",
            "repcloud drop-table orders",
            "repcloud completions tcl",
            "repcloud status -v -q",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn options_hold_what_was_typed() {
        let Ok(CommandLine { command: Command::Stream(stream), global }) =
            parse("repcloud stream --source prod --until 1/2 --config /etc/x.toml")
        else {
            panic!("not a stream");
        };
        assert_eq!(stream.until, Some(Until::Position(Lsn(0x1_0000_0002))));
        assert_eq!((global.config.as_str(), stream.capture), ("/etc/x.toml", None));
    }
}
