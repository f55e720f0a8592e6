//! Whether a catch-up comes to an end. Pure.

use std::time::Duration;

use crate::repack::preflight::space::bytes;

/// Looks at the distance without it getting smaller before a catch-up is given up.
const LOOKS_WITHOUT_GAIN: u32 = 30;

/// A span of a catch-up. All are bytes of WAL, or changes in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// What was left at its beginning.
    pub(crate) before: u64,
    /// What is left of that.
    pub(crate) rest: u64,
    /// What is left now, with what came meanwhile.
    pub(crate) now: u64,
    /// How long it was.
    pub(crate) span: Duration,
}

/// What is known of a catch-up.
#[derive(Debug)]
pub(crate) struct Convergence {
    queue: bool,
    smallest: u64,
    without_gain: u32,
    since: Duration,
}

impl Convergence {
    /// Nothing was looked at yet; `queue`: changes are counted, not bytes of WAL.
    pub(crate) fn new(queue: bool) -> Convergence {
        Convergence { queue, smallest: u64::MAX, without_gain: 0, since: Duration::ZERO }
    }

    /// Takes a look in. True: it has gone on for too long without coming nearer.
    pub(crate) fn gives_up(&mut self, look: &Look) -> bool {
        if look.rest < self.smallest {
            (self.smallest, self.without_gain, self.since) = (look.rest, 0, Duration::ZERO);
        } else {
            self.without_gain += 1;
            self.since += look.span;
        }
        self.without_gain >= LOOKS_WITHOUT_GAIN
    }

    /// How long it has not come nearer.
    pub(crate) fn seconds_without_gain(&self) -> u64 {
        self.since.as_secs()
    }

    /// The smallest distance there was.
    pub(crate) fn smallest(&self) -> String {
        amount(self.smallest, self.queue)
    }

    /// How it goes: the end is there once what is applied beyond what comes has used up what is left.
    pub(crate) fn forecast(&self, look: &Look) -> String {
        let seconds = look.span.as_secs_f64().max(0.001);
        let applied = look.before.saturating_sub(look.rest);
        let came = look.now.saturating_sub(look.rest);
        let left = amount(look.now, self.queue);
        if applied <= came {
            return if self.queue {
                format!(
                    "{left} left to apply; it does not converge, changes come as fast as they are applied"
                )
            } else {
                format!(
                    "{left} left to apply; it does not converge, {}/s are applied and {}/s come",
                    bytes(rate(applied, seconds)),
                    bytes(rate(came, seconds))
                )
            };
        }
        let gain = (applied - came) as f64 / seconds;
        format!("{left} left to apply, about {:.0} s", look.now as f64 / gain)
    }
}

fn rate(amount: u64, seconds: f64) -> u64 {
    // Of a float, `as` is cut at the ends of the range.
    (amount as f64 / seconds) as u64
}

/// What is left to apply: bytes of WAL, or changes in a queue.
fn amount(left: u64, queue: bool) -> String {
    if queue { format!("{left} changes") } else { format!("{} of WAL", bytes(left)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn look(before: u64, rest: u64, now: u64) -> Look {
        Look { before, rest, now, span: SPAN }
    }

    #[test]
    fn a_forecast_goes_by_what_is_applied_and_by_what_comes() {
        let wal = Convergence::new(false);
        let mb = 1 << 20;
        assert_eq!(
            wal.forecast(&look(30 * mb, 20 * mb, 20 * mb)),
            "20.0 MB of WAL left to apply, about 20 s",
            "nothing comes"
        );
        assert_eq!(
            wal.forecast(&look(30 * mb, 20 * mb, 25 * mb)),
            "25.0 MB of WAL left to apply, about 50 s",
            "half of what is applied comes again"
        );
        assert_eq!(
            wal.forecast(&look(30 * mb, 20 * mb, 40 * mb)),
            "40.0 MB of WAL left to apply; it does not converge, 1.0 MB/s are applied and 2.0 MB/s come"
        );
        let queue = Convergence::new(true);
        assert_eq!(queue.forecast(&look(300, 200, 200)), "200 changes left to apply, about 20 s");
        assert!(queue.forecast(&look(300, 300, 300)).contains("it does not converge"));
    }

    #[test]
    fn it_is_given_up_after_many_looks_without_gain_and_not_after_one_with() {
        let mut catch_up = Convergence::new(false);
        assert!(!catch_up.gives_up(&look(1000, 900, 1000)));
        for _ in 1..LOOKS_WITHOUT_GAIN {
            assert!(!catch_up.gives_up(&look(1000, 900, 1000)));
        }
        assert!(!catch_up.gives_up(&look(1000, 899, 1000)), "it came nearer, and the count begins anew");
        for _ in 1..LOOKS_WITHOUT_GAIN {
            assert!(!catch_up.gives_up(&look(2000, 1900, 2000)));
        }
        assert!(catch_up.gives_up(&look(2000, 1900, 2000)));
        assert_eq!((catch_up.smallest(), catch_up.seconds_without_gain()), (bytes(899) + " of WAL", 300));
    }
}
