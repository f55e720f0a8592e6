//! What to do about an error.

/// What an error's owner should do. Every room's error type answers with `advice()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryAdvice {
    /// Passing: connect again and go on from the checkpoint, with back-off (a server restarted, a network cut,
    /// a deadlock, a serialization failure).
    Reconnect,
    /// A person must act; trying again changes nothing. The error's text says what to do.
    Stop,
}
