//! Signals → one "stop" that every task can wait for.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Which signal asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: a person at a terminal.
    Interrupt,
    /// SIGTERM: the service manager.
    Terminate,
}

/// The listener; dropping it restores nothing, the process is about to end.
#[derive(Debug)]
pub struct Shutdown {
    /// Turns true at the first signal.
    pub stop: watch::Receiver<bool>,
    asked: watch::Receiver<Option<Asked>>,
    _task: AbortOnDropHandle<()>,
}

impl Shutdown {
    /// Listens. A second signal ends the process at once: state in the databases is always resumable.
    pub fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (stop_in, stop) = watch::channel(false);
        let (asked_in, asked) = watch::channel(None);
        let task = tokio::spawn(async move {
            let first = tokio::select! {
                _ = interrupt.recv() => Asked::Interrupt,
                _ = terminate.recv() => Asked::Terminate,
            };
            asked_in.send_replace(Some(first));
            stop_in.send_replace(true);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
        Ok(Shutdown { stop, asked, _task: AbortOnDropHandle::new(task) })
    }

    /// Which signal came first; `None` while none has.
    pub fn asked(&self) -> Option<Asked> {
        *self.asked.borrow()
    }
}
