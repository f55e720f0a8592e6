//! The slot that a stream has, or is told to have: whether a start would stop at it.

use super::finding::{Check, Remedy};
use crate::flow::{FlowError, StreamOptions, survey_slot};
use crate::pg::{self, Session};

/// What is wrong with it; `options` as the stream reads. The target is asked what it knows of it.
pub(super) async fn check(session: &Session, options: &StreamOptions) -> Result<Option<Check>, FlowError> {
    // Why it cannot be reached, its own checks say.
    let target = pg::connect(&options.target).await.ok();
    let found = survey_slot::slot(session, target.as_ref(), options).await;
    if let Some(target) = target {
        // Whether it ends politely is no finding.
        drop(target.close().await);
    }
    let failed = |reason: crate::flow::start::StopReason| {
        let hint = Remedy::note(reason.hint(&options.key.source));
        Check::fail(&format!("slot {}", options.slot()), reason.to_string()).help(hint)
    };
    Ok(found?.map(failed))
}
