//! Can what the copy is throttled by be told at all? Otherwise it would pause for ever.

use super::finding::{Finding, Severity};
use crate::pg::Session;
use crate::repack::ask::AskError;
use crate::repack::options::ThrottleOptions;
use crate::repack::throttle::{Known, Throttle, ThrottleFacts, first_reason};

const CHECK: &str = "throttle";

/// Reads it once: what is unknown refuses, a pause that is wanted now is told.
pub async fn check(session: &Session, options: &ThrottleOptions) -> Result<Vec<Finding>, AskError> {
    let facts = Throttle::new(options.clone()).facts(session).await?;
    Ok(judge(options, &facts))
}

fn judge(options: &ThrottleOptions, facts: &ThrottleFacts) -> Vec<Finding> {
    let unknown = |known: Option<&Known<bool>>| matches!(known, Some(Known::Unknown(_)));
    // One replica of which nothing is known may be on its way up.
    let replicas_unknown = matches!(facts.replicas, Some(Known::Unknown(_)));
    // Each by itself, so that all are told at once.
    let each = [
        (
            unknown(facts.file.as_ref()),
            ThrottleFacts { file: facts.file.clone(), ..ThrottleFacts::default() },
        ),
        (replicas_unknown, ThrottleFacts { replicas: facts.replicas.clone(), ..ThrottleFacts::default() }),
        (
            unknown(facts.query.as_ref()),
            ThrottleFacts { query: facts.query.clone(), ..ThrottleFacts::default() },
        ),
    ];
    let mut findings = Vec::new();
    for (is_unknown, facts) in each {
        let Some(reason) = first_reason(options, &facts) else { continue };
        let (severity, problem) = match is_unknown {
            true => (Severity::Refuse, format!("the copy would pause for ever: {reason}")),
            false => (Severity::Warn, format!("the copy would pause now: {reason}")),
        };
        findings.push(Finding::of_server(CHECK, severity, problem));
    }
    findings
}
