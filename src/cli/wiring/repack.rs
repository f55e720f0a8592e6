//! From a connection and what was typed to a repack's options.

use super::{capture_options, connect_options};
use crate::cli::args::{OnFailureArg, RepackArgs, VerifyLevelArg};
use crate::config::Connection;
use crate::model::TablePattern;
use crate::repack::options::{OnFailure, RepackOptions, RepackSettings, RunOptions, Selection, VerifyLevel};

/// The repack of one connection. Tables and schemas that were typed replace the configured ones.
pub(crate) fn repack(connection: &Connection, args: &RepackArgs) -> RepackOptions {
    let configured = &connection.repack;
    RepackOptions {
        connection: connection.name.clone(),
        connect: connect_options(connection),
        selection: selection(&configured.selection, args),
        settings: RepackSettings {
            max_retained_wal: connection.max_retained_wal,
            capture: capture_options(connection, args.capture),
            ..configured.settings.clone()
        },
        run: RunOptions {
            dry_run: args.dry_run,
            jobs: args.jobs,
            verify: match args.verify {
                VerifyLevelArg::Off => VerifyLevel::Off,
                VerifyLevelArg::Sample => VerifyLevel::Sample,
                VerifyLevelArg::Full => VerifyLevel::Full,
            },
            max_lock: args.max_lock(),
            attempts: args.attempts,
            on_failure: match args.on_failure {
                OnFailureArg::Keep => OnFailure::Keep,
                OnFailureArg::Abort => OnFailure::Abort,
            },
            postpone_swap: args.postpone_swap,
            window: args.window,
            rebuild: args.rebuild(),
        },
        rules: configured.rules.clone(),
    }
}

/// The repacks of one connection, whichever tables.
pub(crate) fn repack_of(connection: &Connection) -> RepackOptions {
    let configured = &connection.repack;
    RepackOptions {
        connection: connection.name.clone(),
        connect: connect_options(connection),
        selection: Selection::default(),
        settings: RepackSettings {
            max_retained_wal: connection.max_retained_wal,
            capture: capture_options(connection, None),
            ..configured.settings.clone()
        },
        run: RunOptions::default(),
        rules: configured.rules.clone(),
    }
}

fn selection(configured: &Selection, args: &RepackArgs) -> Selection {
    let limits = Selection { min_bloat: args.min_bloat, min_size: args.min_size, ..Selection::default() };
    if args.tables.is_empty() && args.schemas.is_empty() {
        return Selection {
            tables: configured.tables.clone(),
            schemas: configured.schemas.clone(),
            ..limits
        };
    }
    let mut selection = Selection { schemas: args.schemas.clone(), typed: true, ..limits };
    for pattern in &args.tables {
        match pattern {
            TablePattern::Table(table) => selection.tables.push(table.clone()),
            TablePattern::Schema(schema) => selection.schemas.push(schema.clone()),
        }
    }
    selection
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Command, CommandLine};
    use crate::model::TableName;

    fn typed(line: &str, configured: &Selection) -> Selection {
        let Ok(CommandLine { command: Command::Repack(args), .. }) =
            CommandLine::try_parse_from(format!("repcloud repack {line}").split_whitespace())
        else {
            panic!("{line}");
        };
        selection(configured, &args)
    }

    #[test]
    fn what_is_typed_replaces_what_is_configured() {
        let configured = Selection {
            tables: vec![TableName::new("public", "orders")],
            schemas: vec!["mart".into()],
            ..Selection::default()
        };
        assert_eq!(typed("", &configured), configured);
        let limited = Selection { min_bloat: Some(30.0), min_size: Some(1 << 20), ..configured.clone() };
        assert_eq!(typed("--min-bloat 30 --min-size 1MB", &configured), limited);
        let schemas = vec!["x".into(), "sales".into()];
        let sales = Selection { schemas, typed: true, ..Selection::default() };
        assert_eq!(typed("--table sales.* --schema x", &configured), sales);
    }
}
