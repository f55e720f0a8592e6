//! The keys of `[connections.NAME]` that are about repack.

use std::time::Duration;

use super::section::Section;
use super::settings::RepackConfig;
use super::values;
use crate::model::TablePattern;
use crate::model::name::parse_table_pattern;
use crate::repack::options::{DeadlockResolution, RepackSettings, Selection, TableRules, ThrottleOptions};

/// rpcl's `lock_timeout` went to the server as it was, and without a unit the server counts milliseconds.
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const RESOLUTIONS: &[(&str, DeadlockResolution)] = &[
    ("nothing", DeadlockResolution::Nothing),
    ("cancel_query", DeadlockResolution::CancelQuery),
    ("kill_query", DeadlockResolution::KillQuery),
];

/// Reads them; what could not be read has been reported, and its default stands.
pub(super) fn read(section: &Section<'_, '_>) -> RepackConfig {
    RepackConfig { selection: selection(section), settings: settings(section), rules: TableRules::default() }
}

fn selection(section: &Section<'_, '_>) -> Selection {
    let rpcl = section.reader.rpcl;
    let schema = |text: &str| match rpcl && !text.starts_with('"') {
        // rpcl compared the text with the catalog's.
        true => Some(text.to_owned()).filter(|name| !name.is_empty()),
        false => values::identifier(text),
    };
    let mut schemas = section.list("schemas", "the SQL name of a schema", schema).unwrap_or_default();
    let table = |text: &str| parse_table_pattern(text).ok();
    let patterns =
        section.list("tables", "a table like \"public.orders\" or \"sales.*\"", table).unwrap_or_default();
    let mut tables = Vec::new();
    for pattern in patterns {
        match pattern {
            TablePattern::Table(table) => tables.push(table),
            TablePattern::Schema(schema) => schemas.push(schema),
        }
    }
    Selection { tables, schemas, ..Selection::default() }
}

fn settings(section: &Section<'_, '_>) -> RepackSettings {
    const TIME: &str = "a time like \"500ms\" or \"10s\"";
    const SIZE: &str = "a size like \"50MB\"";
    let default = RepackSettings::default();
    RepackSettings {
        max_replay_rows: section
            .integer("max_replay_rows", 1..=100_000_000)
            .unwrap_or(default.max_replay_rows),
        lock_timeout: section
            .parsed("lock_timeout", TIME, |text| values::duration(text, MILLISECOND))
            .unwrap_or(default.lock_timeout),
        check_time: section
            .parsed("check_time", TIME, |text| values::duration(text, SECOND))
            .unwrap_or(default.check_time),
        analyze_tables: section.switch("analyze_tables").unwrap_or(default.analyze_tables),
        deadlock_resolution: section.choice("deadlock_resolution", RESOLUTIONS).unwrap_or_default(),
        throttle: ThrottleOptions {
            lag: section.parsed("throttle_lag", TIME, |text| values::duration(text, SECOND)),
            query: section.name_text("throttle_query"),
            file: section.path_value("throttle_file"),
            max_wal_rate: section.parsed("max_wal_rate", SIZE, values::size),
        },
        maintenance_work_mem: section.parsed(
            "maintenance_work_mem",
            "a size from \"1MB\" to \"2047GB\", with its unit",
            values::memory,
        ),
        index_workers: section
            .integer("index_workers", 1..=64)
            .and_then(|number| usize::try_from(number).ok()),
        ..default
    }
}
