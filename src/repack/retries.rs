//! How long a repack that loses its connection is begun again, and when. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// Failures without a catch-up in between for so long end the repack.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Retries {
    pause: Duration,
    failing_since: Option<Instant>,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { pause: FIRST_PAUSE, failing_since: None }
    }
}

impl Retries {
    /// It went well until now: a repack that waits for its swap for days may lose its connection every day.
    pub(crate) fn renew(&mut self) {
        *self = Self::default();
    }

    /// How long to wait before it begins again, without the jitter; `None`: it is given up.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert(now);
        if now.duration_since(since) > GIVE_UP_AFTER {
            return None;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_after_a_while_unless_it_went_well_in_between() {
        let (mut retries, begin) = (Retries::default(), Instant::now());
        assert_eq!(retries.next(begin), Some(FIRST_PAUSE));
        assert_eq!(retries.next(begin), Some(FIRST_PAUSE * 2));
        assert!(retries.next(begin + GIVE_UP_AFTER).is_some());
        assert_eq!(retries.next(begin + GIVE_UP_AFTER * 2), None);
        retries.renew();
        assert_eq!(retries.next(begin + GIVE_UP_AFTER * 2), Some(FIRST_PAUSE));
        for _ in 0..20 {
            assert!(retries.next(begin + GIVE_UP_AFTER * 2).is_some_and(|pause| pause <= LONGEST_PAUSE));
        }
    }
}
