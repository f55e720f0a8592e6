//! `init`: the home folder and a commented configuration.

use serde::Serialize;

use crate::cli::output::Output;
use crate::cli::report::{Exit, Failure};
use crate::config::Home;

#[derive(Serialize)]
struct Made {
    home: String,
    config: String,
    written: bool,
}

/// Makes what is not there; leaves what is.
pub fn run(output: Output, home: &Home, config: &str) -> Result<Exit, Failure> {
    home.ensure()?;
    let (file, _) = home.config_file(config);
    let written = home.write_example(&file)?;
    let shown = file.display().to_string();
    if output.json {
        output.document(&Made { home: home.dir().display().to_string(), config: shown, written })?;
    } else if written {
        output.text(&format!("{shown} is written: describe your connections in it\n"))?;
    } else {
        output.text(&format!("{shown} was there already and is as it was\n"))?;
    }
    Ok(Exit::Done)
}
