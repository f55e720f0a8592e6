//! From the command line to a command, and from its outcome to an exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use super::args::{Command, CommandLine, Global, PrepareArgs};
use super::commands;
use super::commands::control::Wish;
use super::output::Output;
use super::report::{self, Exit, Failure};
use super::{logging, report::warnings};
use crate::config::{Connection, Home, ProcessEnvironment, Settings, load};

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// `REPCLOUD_HOME`; all folders are there.
    pub home: Home,
    /// The configuration.
    pub settings: Settings,
    /// Standard output.
    pub output: Output,
    /// Progress bars are welcome: not refused, and no JSON. (Whether there is a terminal is not asked here.)
    pub progress: bool,
}

impl Context {
    /// The connection that `--source` names; it must feed something.
    pub fn source(&self, name: &str) -> Result<&Connection, Failure> {
        let connection = self.connection(name)?;
        if self.settings.entries_of(name).next().is_none() {
            let problem = format!("nothing is replicated from \"{name}\"");
            let file = self.settings.file.display();
            return Err(
                Failure::usage(problem).hint(format!("add a [[replicate]] with this source to {file}"))
            );
        }
        Ok(connection)
    }

    /// Where the streams of this configuration tell how they are doing.
    pub fn streams_folder(&self) -> PathBuf {
        self.home.streams(&self.settings.name)
    }

    /// The connection that `--connection` names, or every one.
    pub fn connections(&self, name: Option<&str>) -> Result<Vec<&Connection>, Failure> {
        match name {
            Some(name) => self.connection(name).map(|connection| vec![connection]),
            None if self.settings.connections.is_empty() => {
                let problem = format!("{} has no connections", self.settings.file.display());
                Err(Failure::usage(problem).hint("describe one as [connections.NAME]"))
            }
            None => Ok(self.settings.connections.values().collect()),
        }
    }

    /// The connection of this name.
    pub fn connection(&self, name: &str) -> Result<&Connection, Failure> {
        self.settings.connections.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.settings.connections.keys().map(String::as_str).collect();
            let file = self.settings.file.display();
            let hint = if names.is_empty() {
                format!("{file} has no connections; describe one as [connections.{name}]")
            } else {
                format!("{file} has: {}", names.join(", "))
            };
            Failure::usage(format!("there is no connection \"{name}\"")).hint(hint)
        })
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and the version are results; a reader who has gone away is no error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match run(&line) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report::failure(&failure);
            failure.exit.into()
        }
    }
}

/// Runs one command.
pub fn run(line: &CommandLine) -> Result<Exit, Failure> {
    let global = &line.global;
    let output = Output { json: global.json };
    match &line.command {
        Command::Completions(args) => commands::completions::run(output, *args),
        Command::Man => commands::man::run(output),
        Command::Init => commands::init::run(output, &Home::locate(&environment())?, &global.config),
        Command::Demo(args) => commands::demo::run(global, args),
        Command::ShowConnections => commands::show_connections::run(&context(line)?),
        Command::Doctor(args) => commands::doctor::run(&context(line)?, args),
        Command::CreateSchema(args) => commands::repack::create_schema(&context(line)?, args),
        Command::DropSchema(args) => commands::repack::drop_schema(&context(line)?, args),
        Command::Repack(args) => commands::repack::repack(&context(line)?, args),
        Command::Prepare(args) => commands::repack::prepare(&context(line)?, args),
        Command::ReplayData(args) => {
            commands::repack::prepare(&context(line)?, &PrepareArgs { follow: true, ..args.clone() })
        }
        Command::Swap(args) => commands::repack::swap(&context(line)?, args),
        Command::Abort(args) => commands::repack::abort(&context(line)?, args),
        Command::Pause(args) => commands::control::run(&context(line)?, args, Wish::Pause),
        Command::Resume(args) => commands::control::run(&context(line)?, args, Wish::Resume),
        Command::Stop(args) => commands::control::run(&context(line)?, args, Wish::Stop),
        Command::Throttle(args) => {
            commands::control::run(&context(line)?, &args.whose, Wish::Throttle(args.max_wal_rate.0))
        }
        Command::Stream(args) => commands::stream::run(&context(line)?, args),
        Command::Status(args) => commands::status::run(&context(line)?, args),
        Command::Verify(args) => commands::verify::run(&context(line)?, args),
        Command::Reset(args) => commands::reset::run(&context(line)?, args),
        Command::Skip(args) => commands::skip::run(&context(line)?, args),
        Command::DropTable(args) => commands::drop_table::run(&context(line)?, args),
    }
}

/// The process's environment, with the reader of password files (none yet: `pg` will have it).
fn environment() -> ProcessEnvironment {
    ProcessEnvironment::new(super::wiring::passfile_password)
}

/// Loads the configuration, tells its warnings and starts logging.
fn context(line: &CommandLine) -> Result<Context, Failure> {
    let global: &Global = &line.global;
    let environment = environment();
    let home = Home::locate(&environment)?;
    let loaded = load(&home, &global.config, &environment)?;
    if global.quiet == 0 {
        warnings(&loaded.warnings);
    }
    let settings = loaded.settings;
    let plan = logging::plan(&settings.logging, global, line.command.is_logged());
    logging::start(plan, &settings.logging, &settings.name)?;
    let progress = !global.no_progress && !global.json;
    Ok(Context { home, settings, output: Output { json: global.json }, progress })
}
