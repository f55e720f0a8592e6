//! What may be confirmed to the source, and when. Pure.
//!
//! Target sessions commit without waiting for the disk. A position may be confirmed only when a commit that did wait
//! was *sent* after the acknowledgement of the commit that wrote it: the target's WAL is flushed in order, so such a
//! commit covers every commit acknowledged before it was sent, and no others.

use crate::model::Lsn;

/// Account of one target's commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    applied: Lsn,
    durable: Lsn,
}

/// A durability commit that was sent; covers what was applied at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flush {
    covers: Lsn,
}

impl Progress {
    /// Starts at a checkpoint that was read from the target: a restarted target can only show what is durable, a
    /// running one may show a commit that is not, so nothing beyond the slot's own position is assumed durable.
    pub fn resume(applied: Lsn, confirmed: Lsn) -> Self {
        Progress { applied, durable: confirmed.min(applied) }
    }

    /// The target acknowledged a commit whose checkpoint row says `position`.
    pub fn committed(&mut self, position: Lsn) {
        self.applied = self.applied.max(position);
    }

    /// The target acknowledged a commit that waited for the disk and whose checkpoint row says `position`.
    pub fn committed_durably(&mut self, position: Lsn) {
        self.committed(position);
        self.durable = self.durable.max(position);
    }

    /// Call just before a durability commit is sent; `None` when there is nothing it would add.
    pub fn start_flush(&self) -> Option<Flush> {
        (self.applied > self.durable).then_some(Flush { covers: self.applied })
    }

    /// The durability commit was acknowledged.
    pub fn finish_flush(&mut self, flush: Flush) {
        self.durable = self.durable.max(flush.covers);
    }

    /// In the target for its readers.
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// Safe from a crash of the target: may be confirmed.
    pub fn durable(&self) -> Lsn {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_only_what_was_acknowledged_before_it_was_sent() {
        let mut progress = Progress::resume(Lsn(10), Lsn(10));
        assert_eq!(progress.start_flush(), None);
        progress.committed(Lsn(20));
        let flush = progress.start_flush().unwrap();
        progress.committed(Lsn(30));
        assert_eq!(progress.durable(), Lsn(10));
        progress.finish_flush(flush);
        assert_eq!((progress.applied(), progress.durable()), (Lsn(30), Lsn(20)));
    }

    #[test]
    fn what_a_restarted_process_reads_is_not_taken_for_durable() {
        let progress = Progress::resume(Lsn(20), Lsn(10));
        assert_eq!(progress.durable(), Lsn(10));
        assert!(progress.start_flush().is_some());
    }
}
