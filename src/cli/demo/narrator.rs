//! What the demo says: steps and notes as plain lines, and one line that changes in place on a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::args::Global;
use crate::cli::output::Output;

/// Off a terminal a changing line is written anew after so long.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// The voice of the demo.
#[derive(Debug)]
pub(super) struct Narrator {
    output: Output,
    moving: bool,
    began: Instant,
}

impl Narrator {
    pub(super) fn new(global: &Global) -> Self {
        let moving = std::io::stderr().is_terminal() && !global.no_progress && !global.json;
        Narrator { output: Output { json: global.json }, moving, began: Instant::now() }
    }

    /// A step begins.
    pub(super) fn step(&self, number: u8, title: &str) -> anyhow::Result<()> {
        self.say(&format!("\n{number}. {title}\n"))
    }

    /// Something about the present step.
    pub(super) fn note(&self, text: &str) -> anyhow::Result<()> {
        let indented: Vec<String> = text.lines().map(|line| format!("   {line}\n")).collect();
        self.say(&indented.concat())
    }

    /// Text as it is. With `--json` standard output belongs to the result, so it goes to standard error.
    pub(super) fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.output.json {
            // Where standard error itself is gone, there is nobody left to tell.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            return Ok(());
        }
        self.output.text(text)
    }

    /// The result, with `--json`.
    pub(super) fn result(&self, value: &serde_json::Value) -> anyhow::Result<()> {
        if self.output.json { self.output.document(value) } else { Ok(()) }
    }

    /// Since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A line that changes.
    pub(super) fn live(&self) -> LiveLine<'_> {
        let bar = self.moving.then(|| {
            let style = ProgressStyle::with_template("   {spinner} {msg}");
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        LiveLine { narrator: self, bar, written: Instant::now() }
    }
}

/// See [`Narrator::live`]. On a terminal it disappears when dropped.
#[derive(Debug)]
pub(super) struct LiveLine<'a> {
    narrator: &'a Narrator,
    bar: Option<ProgressBar>,
    written: Instant,
}

impl LiveLine<'_> {
    /// Shows `text` instead of what it showed.
    pub(super) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            None if self.written.elapsed() >= PLAIN_EVERY => {
                self.written = Instant::now();
                self.narrator.note(text)?;
            }
            None => {}
        }
        Ok(())
    }
}

impl Drop for LiveLine<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `[######------]`.
pub(super) fn bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 30;
    let filled = (done.min(total) * WIDTH).checked_div(total).unwrap_or(0);
    let width = |cells: u64| usize::try_from(cells).unwrap_or(0);
    format!("[{}{}]", "#".repeat(width(filled)), "-".repeat(width(WIDTH - filled)))
}

/// 1234567 → `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn a_bar_fills_and_never_overflows() {
        assert_eq!(bar(0, 0), format!("[{}]", "-".repeat(30)));
        assert_eq!(bar(50, 100), format!("[{}{}]", "#".repeat(15), "-".repeat(15)));
        assert_eq!(bar(900, 100), format!("[{}]", "#".repeat(30)));
    }
}
