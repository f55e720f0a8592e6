//! How long a stream that fails is begun again, and when. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::flow::error::FlowError;
use crate::flow::start::StopReason;
use crate::flow::view::StreamView;
use crate::model::{Lsn, RetryAdvice};

/// Failures without any progress in between for so long end the stream.
const GIVE_UP_AFTER: Duration = Duration::from_secs(900);
/// Another process that has the stream or its slot from the beginning is not waited for much longer than a connection takes
/// to end.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    failing_since: Option<Instant>,
    applied: Lsn,
    copied: u64,
}

impl Patience {
    pub(crate) fn new(view: &StreamView) -> Self {
        let (applied, copied) = progress(view);
        Patience { pause: FIRST_PAUSE, failing_since: None, applied, copied }
    }

    /// It went well until now.
    pub(crate) fn renew(&mut self) {
        (self.pause, self.failing_since) = (FIRST_PAUSE, None);
    }

    /// How long to wait before the stream begins again after `error`, without the jitter; `None`: it ends. `streamed`: this
    /// process has had the stream before, so that it may be its own connection that is in the way.
    pub(crate) fn after(
        &mut self,
        error: &FlowError,
        view: &StreamView,
        streamed: bool,
        now: Instant,
    ) -> Option<Duration> {
        let (applied, copied) = progress(view);
        if applied > self.applied || copied > self.copied {
            self.renew();
            (self.applied, self.copied) = (self.applied.max(applied), self.copied.max(copied));
        }
        let since = *self.failing_since.get_or_insert(now);
        let limit = if is_busy(error) && !streamed { BUSY_LIMIT } else { GIVE_UP_AFTER };
        if error.advice() == RetryAdvice::Stop || now.duration_since(since) > limit {
            return None;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(if is_busy(error) { pause.min(BUSY_LIMIT / 6) } else { pause })
    }
}

/// What shows that something was achieved: the position, and rows of first copies.
fn progress(view: &StreamView) -> (Lsn, u64) {
    (view.applied_lsn, view.tables.iter().map(|t| t.rows_copied).sum())
}

fn is_busy(error: &FlowError) -> bool {
    matches!(error, FlowError::Running { .. } | FlowError::Stopped(StopReason::SlotActive { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::view::TableView;
    use crate::pg::PgError;

    fn cut() -> FlowError {
        FlowError::Source(PgError::timeout("waiting", Duration::from_secs(1)))
    }

    fn view(rows: u64) -> StreamView {
        let table = TableView { rows_copied: rows, ..TableView::default() };
        StreamView { tables: vec![table], ..StreamView::default() }
    }

    #[test]
    fn a_copy_that_makes_progress_is_begun_again_for_ever_one_that_does_not_is_given_up() {
        let (mut patience, begin) = (Patience::new(&view(0)), Instant::now());
        let hour = Duration::from_secs(3600);
        for n in 1..10 {
            assert!(patience.after(&cut(), &view(u64::from(n)), false, begin + hour * n).is_some());
        }
        assert!(patience.after(&cut(), &view(9), false, begin + hour * 9 + GIVE_UP_AFTER / 2).is_some());
        assert!(patience.after(&cut(), &view(9), false, begin + hour * 10).is_none());
    }

    #[test]
    fn another_process_is_not_waited_for_long_unless_it_may_be_our_own_connection() {
        let busy = || FlowError::Stopped(StopReason::SlotActive { slot: "s".into(), pid: 1 });
        let begin = Instant::now();
        for (streamed, goes_on) in [(false, false), (true, true)] {
            let mut patience = Patience::new(&view(0));
            assert!(patience.after(&busy(), &view(0), streamed, begin).is_some());
            let later = begin + BUSY_LIMIT * 2;
            assert_eq!(patience.after(&busy(), &view(0), streamed, later).is_some(), goes_on);
        }
    }
}
