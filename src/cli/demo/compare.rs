//! The judgement: `repcloud verify`, row by row.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::stage::{Home, TABLES};
use super::stream::repcloud;
use crate::cli::report::Failure;

/// How long the comparison may take.
const LIMIT: Duration = Duration::from_secs(300);

/// One table's comparison, as `verify --json` writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Compared {
    pub(super) table: String,
    pub(super) rows: u64,
    pub(super) differences: u64,
}

/// Compares every table.
pub(super) async fn compare(home: &Home) -> Result<Vec<Compared>, Failure> {
    let mut command = repcloud(home)?;
    command.args(["verify", "--source", "shop", "--json"]);
    let output = timeout(LIMIT, command.output()).await;
    let output =
        output.context("the comparison did not end in time")?.context("cannot start `repcloud verify`")?;
    // 1 is said with every line that tells of a difference, and also without any when it could not compare.
    let compared = read(&String::from_utf8_lossy(&output.stdout))?;
    let unexplained = !output.status.success() && compared.iter().all(|table| table.differences == 0);
    if unexplained || compared.len() != TABLES.len() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!("`repcloud verify` failed ({}): {}", output.status, text.trim_end()).into());
    }
    Ok(compared)
}

fn read(lines: &str) -> Result<Vec<Compared>, Failure> {
    let read = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(read.context("what `repcloud verify --json` wrote cannot be read")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_verify_are_read() {
        let line = r#"{"table":"public.a","rows":7,"differences":1,"seconds":0.1}"#;
        let compared = read(&format!("{line}\n{line}\n")).unwrap();
        assert_eq!(compared.len(), 2);
        assert_eq!((compared[0].rows, compared[0].differences), (7, 1));
        assert!(read("no").is_err());
    }
}
