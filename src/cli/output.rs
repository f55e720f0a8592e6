//! Standard output: results, and nothing else.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// Writes results. A reader who has gone away (`| head`) is no error: there is nobody left to tell.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Results are JSON documents, one a line.
    pub json: bool,
}

impl Output {
    /// Writes text as it is.
    pub fn text(self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are.
    pub fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to standard output"),
        }
    }

    /// Writes one JSON document on a line of its own.
    pub fn document(self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(value).context("cannot write the result as JSON")?;
        line.push('\n');
        self.text(&line)
    }
}
