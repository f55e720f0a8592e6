//! `show-connections`: what is configured, without its secrets and without a database.

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::cli::report::{Exit, Failure};
use crate::cli::run::Context;
use crate::config::Settings;

#[derive(Serialize)]
struct Document<'a> {
    connections: Vec<Row<'a>>,
}

/// Chosen field by field, so that a secret cannot come along.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    user: &'a str,
    /// Whether there is one.
    password: bool,
    database: &'a str,
    sslmode: &'static str,
    capture: &'static str,
    targets: Vec<&'a str>,
}

/// Shows every connection.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let connections = rows(&context.settings);
    if context.output.json {
        context.output.document(&Document { connections })?;
    } else if connections.is_empty() {
        let file = context.settings.file.display();
        context.output.text(&format!("{file} has no connections yet\n"))?;
    } else {
        context.output.text(&format!("{}\n", table(&connections)))?;
    }
    Ok(Exit::Done)
}

fn rows(settings: &Settings) -> Vec<Row<'_>> {
    settings
        .connections
        .values()
        .map(|connection| Row {
            name: &connection.name,
            host: &connection.host,
            port: connection.port,
            user: &connection.user,
            password: connection.password.is_some(),
            database: &connection.database,
            sslmode: connection.sslmode.as_str(),
            capture: connection.capture.as_str(),
            targets: settings.targets_of(&connection.name).iter().map(|t| t.name.as_str()).collect(),
        })
        .collect()
}

fn table(rows: &[Row<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_HORIZONTAL_ONLY);
    table.set_header([
        "connection",
        "host",
        "port",
        "user",
        "password",
        "database",
        "sslmode",
        "capture",
        "feeds",
    ]);
    for row in rows {
        table.add_row([
            row.name,
            row.host,
            &row.port.to_string(),
            row.user,
            if row.password { "hidden" } else { "none" },
            row.database,
            row.sslmode,
            row.capture,
            &row.targets.join(", "),
        ]);
    }
    table
}
