//! Asking the person at the terminal before something is done that cannot be taken back.

use std::io::{self, IsTerminal as _, Write as _};

use super::report::Failure;

/// Tells `effects` on standard error and asks whether to go on. Without a terminal nobody can be asked, and `--yes` is
/// needed. An answer other than yes is a failure too: nothing was changed.
pub(crate) fn agree(effects: &[String]) -> Result<(), Failure> {
    let mut out = io::stderr().lock();
    for effect in effects {
        // Nobody can be asked where standard error is gone; the answer read below is then no.
        let _ = writeln!(out, "{effect}");
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask at")
            .hint("add --yes to do this; nothing was changed"));
    }
    let _ = write!(out, "Go on? [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::from(anyhow::Error::new(e)))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("nothing was changed")),
    }
}
