//! Limits of the server that meet ours. Pure.

use std::time::Duration;

use super::finding::{Finding, Severity};
use super::server::ServerFacts;
use crate::repack::options::RepackSettings;

const CHECK: &str = "limits";

/// How long one lock attempt may wait: what was asked for, but never more than half of `deadlock_timeout`, so that in a
/// deadlock it is always we who give way and never a client.
pub fn lock_wait(wanted: Duration, deadlock_timeout: Duration) -> Duration {
    // A server with a deadlock_timeout of a millisecond still gets an attempt.
    wanted.min(deadlock_timeout / 2).max(Duration::from_millis(1))
}

/// What the settings and the server's limits do to each other.
pub fn judge(server: &ServerFacts, settings: &RepackSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wait = lock_wait(settings.lock_timeout, server.deadlock_timeout);
    if wait < settings.lock_timeout {
        let problem = format!(
            "lock_timeout is {:?}, but deadlock_timeout is {:?}: a lock attempt waits {wait:?}, so that no client is \
             ever ended for our sake",
            settings.lock_timeout, server.deadlock_timeout
        );
        findings.push(Finding::of_server(CHECK, Severity::Warn, problem));
    }
    if let Some(limit) = server.idle_slot_limit {
        let problem = format!(
            "idle_replication_slot_timeout is {limit:?}: a prepared repack that nobody follows loses its slot after it"
        );
        findings.push(
            Finding::of_server(CHECK, Severity::Warn, problem).help("prepare with --follow, or swap before"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::server::tests::server;
    use super::*;

    #[test]
    fn a_lock_attempt_ends_before_the_server_looks_for_deadlocks() {
        let ms = Duration::from_millis;
        for (wanted, deadlock, expected) in [(500, 1000, 500), (3000, 1000, 500), (500, 200, 100), (50, 1, 1)]
        {
            assert_eq!(lock_wait(ms(wanted), ms(deadlock)), ms(expected), "{wanted} {deadlock}");
        }
    }

    #[test]
    fn a_cut_limit_is_a_warning() {
        let settings = RepackSettings::default();
        assert_eq!(judge(&server(), &settings), []);
        let rpcl = RepackSettings { lock_timeout: Duration::from_secs(3), ..settings.clone() };
        let findings = judge(&server(), &rpcl);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].problem.contains("a lock attempt waits 500ms"), "{findings:?}");
        let idle = ServerFacts { idle_slot_limit: Some(Duration::from_secs(3600)), ..server() };
        assert_eq!(judge(&idle, &settings)[0].severity, Severity::Warn);
    }
}
