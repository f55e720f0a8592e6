//! The one place where a running stream keeps what it shows of itself.

use std::sync::{Arc, Mutex, PoisonError};

use crate::flow::view::{StreamView, TableView};

/// Shared by the tasks of a stream; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<StreamView>>);

impl Board {
    /// A board that begins with `view`.
    pub fn new(view: StreamView) -> Self {
        Board(Arc::new(Mutex::new(view)))
    }

    /// Changes what is shown.
    pub fn update(&self, change: impl FnOnce(&mut StreamView)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is shown now.
    pub fn view(&self) -> StreamView {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is shown of one target table.
    pub fn update_table(&self, target: &str, change: impl FnOnce(&mut TableView)) {
        self.update(|view| {
            if let Some(table) = view.tables.iter_mut().find(|t| t.target_table == target) {
                change(table);
            }
        });
    }
}
