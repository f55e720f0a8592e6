//! Waiting for something to become true: by looking, never by sleeping a while and hoping.

use std::time::Duration;

use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(10);

/// Polls until the condition holds; the test fails, naming `what`, when it does not within `limit`.
///
/// ```ignore
/// wait::until("the row is on the target", SHORT, async || target.value("select count(*) from t").await == "1").await;
/// ```
pub(crate) async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    value(what, limit, async || condition().await.then_some(())).await;
}

/// Polls until there is a value and gives it.
pub(crate) async fn value<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    // The look itself has the limit too: a query that hangs must not hang the test.
    let polling = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(limit, polling).await {
        Ok(found) => found,
        Err(_) => panic!("waited {:.1} s in vain until {what}", start.elapsed().as_secs_f64()),
    }
}
