//! What a job tells the service about; the service decides what becomes a log line, a metric or a progress bar.

use std::sync::Arc;

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A step of the work.
    Info(String),
    /// Something the operator should look at; the work goes on.
    Warning(String),
}

/// Receives events; cheap to clone, never blocks.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(JobEvent) + Send + Sync>);

impl Events {
    /// Events go to `sink`, which must not block.
    pub fn new(sink: impl Fn(JobEvent) + Send + Sync + 'static) -> Self {
        Events(Arc::new(sink))
    }

    /// Tells of a step.
    pub fn info(&self, text: impl Into<String>) {
        (self.0)(JobEvent::Info(text.into()));
    }

    /// Tells of something to look at.
    pub fn warning(&self, text: impl Into<String>) {
        (self.0)(JobEvent::Warning(text.into()));
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}
