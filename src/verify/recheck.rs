//! The second look at what differed at first sight, and the state of a comparison.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use crate::model::Lsn;
use crate::verify::chunk::Key;
use crate::verify::digest::Suspect;
use crate::verify::error::VerifyError;
use crate::verify::judge::{Look, Verdict, judge};
use crate::verify::side::Side;
use crate::verify::spec::{Kind, Progress, Sample, VerifyOptions, VerifyOutcome};

/// A wait until the target has applied a position.
pub(crate) type Wait<'a> =
    Box<dyn FnMut(Lsn) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> + Send + 'a>;

/// Between two looks at most.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A comparison at work.
pub(crate) struct Work<'a> {
    pub(crate) source: Side<'a>,
    pub(crate) target: Side<'a>,
    pub(crate) options: VerifyOptions,
    pub(crate) keyed: bool,
    pub(crate) estimated_rows: Option<u64>,
    pub(crate) outcome: VerifyOutcome,
    pub(crate) wait: Wait<'a>,
    pub(crate) progress: Box<dyn FnMut(Progress) + Send + 'a>,
    pub(crate) pending: VecDeque<Suspect>,
}

impl Work<'_> {
    /// Enough differences were found to stop.
    pub(crate) fn enough(&self) -> bool {
        self.outcome.differences >= self.options.stop_after
    }

    /// Tells the caller how far we are.
    pub(crate) fn report(&mut self) {
        let progress = Progress {
            rows: self.outcome.rows,
            estimated_rows: self.estimated_rows,
            suspects: u64::try_from(self.pending.len()).unwrap_or(u64::MAX),
            differences: self.outcome.differences,
        };
        (self.progress)(progress);
    }

    /// Takes suspects in; looks at them again when there are many. Those found first have had the most time to settle by
    /// themselves.
    pub(crate) async fn suspect(&mut self, found: Vec<Suspect>) -> Result<(), VerifyError> {
        self.pending.extend(found);
        while self.pending.len() >= self.batch() && !self.enough() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Looks at all suspects that are left.
    pub(crate) async fn finish(&mut self) -> Result<(), VerifyError> {
        while !self.pending.is_empty() && !self.enough() {
            self.settle().await?;
        }
        Ok(())
    }

    /// A position behind everything visible on the source now, waited for.
    pub(crate) async fn pass(&mut self) -> Result<(), VerifyError> {
        let lsn = self.source.server.position().await?;
        let limit = self.options.wait_limit;
        let table = || self.target.server.table.clone();
        match tokio::time::timeout(limit, (self.wait)(lsn)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(VerifyError::Wait { table: table(), lsn, reason }),
            Err(_) => Err(VerifyError::NotApplied { table: table(), lsn, limit }),
        }
    }

    fn batch(&self) -> usize {
        self.options.recheck_rows.max(1)
    }

    /// Settles one batch.
    async fn settle(&mut self) -> Result<(), VerifyError> {
        let batch = self.batch().min(self.pending.len());
        let mut open: Vec<(Suspect, Option<Look>)> =
            self.pending.drain(..batch).map(|suspect| (suspect, None)).collect();
        let mut pause = self.options.back_off;
        for attempt in 0..self.options.attempts.max(2) {
            // The second look may follow at once: it proves what the first one saw, if nothing moves.
            if attempt >= 2 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            open = self.look(open).await?;
            if open.is_empty() {
                break;
            }
        }
        self.outcome.unsettled += u64::try_from(open.len()).unwrap_or(u64::MAX);
        self.report();
        Ok(())
    }

    /// One look at each; gives back what must be looked at again.
    async fn look(
        &mut self,
        open: Vec<(Suspect, Option<Look>)>,
    ) -> Result<Vec<(Suspect, Option<Look>)>, VerifyError> {
        let keys: Vec<&Key> = open.iter().map(|(suspect, _)| &suspect.key).collect();
        let before = self.source.states(&keys).await?;
        self.pass().await?;
        let target = self.target.states(&keys).await?;
        let after = self.source.states(&keys).await?;
        let mut again = Vec::new();
        let looks = before.into_iter().zip(target).zip(after);
        for ((suspect, last), ((before, target), after)) in open.into_iter().zip(looks) {
            let now = Look { before, target, after };
            match judge(suspect.only_target, last.as_ref(), &now) {
                Verdict::Equal | Verdict::Elsewhere => {}
                Verdict::Again => again.push((suspect, Some(now))),
                Verdict::Differs(kind, rows) => {
                    let key = self.keyed.then_some(suspect.key);
                    let place = match kind {
                        Kind::Extra => now.target.place,
                        Kind::Missing | Kind::Different => now.after.place,
                    };
                    self.outcome.add(kind, rows, Sample { kind, key, place }, self.options.samples);
                }
            }
        }
        Ok(again)
    }
}
