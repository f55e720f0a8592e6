//! The application: pgbench's TPC-B, writing to the source while the stream follows.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::stage::{DATABASE, Stage};
use crate::cli::report::Failure;

/// How long it may run beyond its time.
const GRACE: Duration = Duration::from_secs(30);

/// A running pgbench; killed when dropped.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    limit: Duration,
}

impl Load {
    /// Transactions for `seconds` seconds. The rate is held, so that there is something to see on any machine and the
    /// demo does not depend on how fast it is.
    pub(super) fn start(stage: &Stage, seconds: u64, transactions_per_second: u32) -> Result<Self, Failure> {
        let mut command = Command::from(stage.source.client("pgbench").context("cannot make load")?);
        command.args([
            "-n",
            "-c",
            "4",
            "-T",
            &seconds.to_string(),
            "-R",
            &transactions_per_second.to_string(),
        ]);
        command.arg(DATABASE).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().context("cannot start pgbench")?;
        Ok(Load { child, limit: Duration::from_secs(seconds) + GRACE })
    }

    /// Waits for its end; gives the number of transactions.
    pub(super) async fn finish(self) -> Result<u64, Failure> {
        let output = timeout(self.limit, self.child.wait_with_output()).await;
        let output = output.context("pgbench did not end in time")?.context("cannot wait for pgbench")?;
        let report = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr);
            return Err(anyhow::anyhow!("pgbench failed ({}): {}", output.status, problem.trim_end()).into());
        }
        Ok(transactions(&report).context("pgbench's report does not say how many transactions it ran")?)
    }
}

/// `number of transactions actually processed: 1234` (with `/5678` behind it when the number was given).
fn transactions(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.starts_with("number of transactions actually processed"))?;
    line.rsplit(':').next()?.split('/').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_transactions_is_read_from_the_report() {
        let report = "scaling factor: 5\nnumber of transactions actually processed: 21034\nlatency = 1 ms\n";
        assert_eq!(transactions(report), Some(21034));
        assert_eq!(transactions("number of transactions actually processed: 10/10"), Some(10));
        assert_eq!(transactions("nothing"), None);
    }
}
