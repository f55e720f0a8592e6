//! What a job tells the service about; the service decides what becomes a log line, a metric or a progress bar.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobEvent {
    /// A step of the work.
    Info(String),
    /// Something the operator should look at; the work goes on.
    Warning(String),
}

/// Receives events; cheap to clone, never blocks.
#[derive(Clone)]
pub struct Events {
    sink: Arc<dyn Fn(JobEvent) + Send + Sync>,
    /// What was told and is not to be told again.
    told: Arc<Mutex<BTreeSet<JobEvent>>>,
}

impl Events {
    /// Events go to `sink`, which must not block.
    pub fn new(sink: impl Fn(JobEvent) + Send + Sync + 'static) -> Self {
        Events { sink: Arc::new(sink), told: Arc::default() }
    }

    /// Tells of a step.
    pub fn info(&self, text: impl Into<String>) {
        (self.sink)(JobEvent::Info(text.into()));
    }

    /// Tells of something to look at.
    pub fn warning(&self, text: impl Into<String>) {
        (self.sink)(JobEvent::Warning(text.into()));
    }

    /// Tells it unless the very same was told by this before: for what a job comes by each time it begins again.
    pub fn once(&self, event: JobEvent) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(event.clone()) {
            drop(told);
            (self.sink)(event);
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_once_is_told_again_only_when_it_is_another() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let events = Events::new(move |event| sink.lock().unwrap().push(event));
        for text in ["a", "a", "b", "a"] {
            events.clone().once(JobEvent::Warning(text.to_owned()));
        }
        events.warning("a");
        let warning = |text: &str| JobEvent::Warning(text.to_owned());
        assert_eq!(*told.lock().unwrap(), [warning("a"), warning("b"), warning("a")]);
    }
}
