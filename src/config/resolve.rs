//! From a file's text to [`Settings`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::error::Finding;
use super::not_built::Part;
use super::reader::Reader;
use super::section::{Section, kind};
use super::settings::{Connection, LogDest, LogLevel, Logging, Settings};
use super::{connection, replicate, rpcl, rules, table_conf};
use crate::repack::options::TableRules;

/// A configuration to be read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The file, for messages; relative paths in it begin at its folder.
    pub file: &'a Path,
    /// Its name without folder and `.toml`.
    pub name: &'a str,
    /// What it says.
    pub text: &'a str,
    /// Folder of log files unless it names another.
    pub log_dir: &'a Path,
}

/// A configuration that can be worked with.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What its owner should know, in the order of the file.
    pub warnings: Vec<Finding>,
}

/// Reads and checks a configuration: pure but for what `environment` answers. The error holds everything that is
/// wrong, in the order of the file.
pub fn resolve(source: Source<'_>, environment: &dyn Environment) -> Result<Loaded, Vec<Finding>> {
    let mut reader = Reader::new(source.file, source.text, environment);
    let document = parse(&reader, source.text);
    reader.rpcl = rpcl::is_rpcl(&document);
    // A text that is not TOML is read only as far as it was understood: what is missing then means nothing.
    if reader.has_errors() {
        return Err(reader.into_findings().0);
    }
    let top = Section::new(&reader, Part::Top, "", 1, &document);
    let logging = logging(&top, source.log_dir);
    let (mut connections, names) = connections(&top);
    let entries = entries(&top, &names);
    top.finish();
    rules::check(&reader, &connections, &entries);
    let rpcl = reader.rpcl;
    let (mut errors, mut warnings) = reader.into_findings();
    for name in names {
        let (rules, more_errors, more_warnings) = table_rules(source, name, rpcl, environment);
        if let Some(connection) = connections.get_mut(name) {
            connection.repack.rules = rules;
        }
        errors.extend(more_errors);
        warnings.extend(more_warnings);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let settings = Settings {
        name: source.name.to_owned(),
        file: source.file.to_owned(),
        connections,
        replicate: entries.into_iter().map(|read| read.entry).collect(),
        logging,
    };
    Ok(Loaded { settings, warnings })
}

/// The parsed text; what is not TOML is reported. The parser's messages name what it expected, never the text
/// itself, so that a password without its quotes is not shown.
fn parse<'d>(reader: &Reader<'_>, text: &'d str) -> DeTable<'d> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // Of a key that is there twice the span is the key itself.
        let key = if error.message() == "duplicate key" { text.get(span.clone()) } else { None };
        reader.error(reader.line_of(span.start), key.unwrap_or_default(), error.message(), "");
    }
    document.into_inner()
}

/// A sub-section; another kind of value is reported.
fn sub_section<'d>(top: &Section<'_, 'd>, key: &'static str) -> Option<(&'d DeTable<'d>, usize)> {
    let (value, line) = top.raw(key)?;
    let DeValue::Table(table) = value else {
        top.error(key, format!("expected a section, found {}", kind(value)), "");
        return None;
    };
    Some((table, line))
}

fn logging(top: &Section<'_, '_>, log_dir: &Path) -> Logging {
    const LEVELS: &[(&str, LogLevel)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("warning", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let default = Logging {
        log_dir: log_dir.to_owned(),
        log_level: LogLevel::default(),
        log_dest: LogDest::default(),
        log_days_keep: 7,
    };
    let Some((table, line)) = sub_section(top, "logging") else { return default };
    let section = Section::new(top.reader, Part::Logging, "logging", line, table);
    let keep = section.integer("log_days_keep", 1..=3650).and_then(|days| usize::try_from(days).ok());
    let logging = Logging {
        log_dir: section.path_value("log_dir").unwrap_or(default.log_dir),
        log_level: section.choice("log_level", LEVELS).unwrap_or_default(),
        log_dest: section
            .choice("log_dest", &[("console", LogDest::Console), ("file", LogDest::File)])
            .unwrap_or_default(),
        log_days_keep: keep.unwrap_or(default.log_days_keep),
    };
    if top.reader.rpcl && logging.log_dest == LogDest::File {
        section.warn(
            "log_dest",
            "the process stays in the foreground; it no longer goes to the background",
            "",
        );
    }
    section.finish();
    logging
}

/// The connections that could be read, and the names of all.
fn connections<'d>(top: &Section<'_, 'd>) -> (BTreeMap<String, Connection>, BTreeSet<&'d str>) {
    let Some((table, _)) = sub_section(top, "connections") else { return Default::default() };
    let mut connections = BTreeMap::new();
    for (key, value) in table.iter() {
        let (name, line) = (key.get_ref().as_ref(), top.reader.line_of(key.span().start));
        let DeValue::Table(table) = value.get_ref() else {
            let problem = format!("expected a section [connections.NAME], found {}", kind(value.get_ref()));
            top.reader.error(line, format!("connections.{name}"), problem, "");
            continue;
        };
        if let Some(connection) = connection::read(top.reader, name, line, table) {
            connections.insert(name.to_owned(), connection);
        }
    }
    (connections, table.keys().map(|name| name.get_ref().as_ref()).collect())
}

fn entries(top: &Section<'_, '_>, names: &BTreeSet<&str>) -> Vec<replicate::ReadEntry> {
    let Some((value, _)) = top.raw("replicate") else { return Vec::new() };
    let DeValue::Array(items) = value else {
        top.error(
            "replicate",
            format!("expected entries, found {}", kind(value)),
            "write it as [[replicate]]",
        );
        return Vec::new();
    };
    let mut entries = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let line = top.reader.line_of(item.span().start);
        match item.get_ref() {
            DeValue::Table(table) => {
                entries.extend(replicate::read(top.reader, index + 1, line, table, names))
            }
            other => {
                let problem = format!("expected an entry, found {}", kind(other));
                top.reader.error(
                    line,
                    format!("replicate[{}]", index + 1),
                    problem,
                    "write it as [[replicate]]",
                );
            }
        }
    }
    entries
}

/// What `table_conf/<config>_<connection>.toml` beside the configuration says, if it is there, and what is to be
/// said about it.
fn table_rules(
    source: Source<'_>,
    connection: &str,
    rpcl: bool,
    environment: &dyn Environment,
) -> (TableRules, Vec<Finding>, Vec<Finding>) {
    let folder = source.file.parent().map_or_else(PathBuf::new, |parent| parent.join("table_conf"));
    let file = folder.join(format!("{}_{connection}.toml", source.name));
    let text = match environment.read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Default::default(),
        Err(error) => {
            let reader = Reader::new(&file, "", environment);
            reader.error(1, "", format!("cannot be read: {error}"), "make it readable, or remove it");
            let (errors, warnings) = reader.into_findings();
            return (TableRules::default(), errors, warnings);
        }
    };
    let mut reader = Reader::new(&file, &text, environment);
    reader.rpcl = rpcl;
    let document = parse(&reader, &text);
    let rules =
        if reader.has_errors() { TableRules::default() } else { table_conf::read(&reader, &document) };
    let (errors, warnings) = reader.into_findings();
    (rules, errors, warnings)
}
