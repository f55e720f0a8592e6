//! Timeline history files. Pure.

use crate::model::Lsn;
use crate::pg::error::PgError;

/// What TIMELINE_HISTORY answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimelineHistory {
    /// The file as it is.
    pub raw: Vec<u8>,
    /// The timelines before the asked one, oldest first. Empty for timeline 1.
    pub switches: Vec<TimelineSwitch>,
}

/// A timeline's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where it was left: positions up to here are the same on both timelines.
    pub at: Lsn,
}

/// Reads a history file: on each line a timeline, the position where it was left, and a reason, separated by
/// white space; `#` begins a comment.
pub(crate) fn parse(raw: Vec<u8>) -> Result<TimelineHistory, PgError> {
    let mut switches = Vec::new();
    for line in String::from_utf8_lossy(&raw).lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let timeline = words.next().and_then(|word| word.parse().ok());
        let at = words.next().and_then(|word| word.parse().ok());
        let (Some(timeline), Some(at)) = (timeline, at) else {
            return Err(PgError::protocol(
                "reading a timeline history",
                "a line is not \"timeline position\"",
            ));
        };
        switches.push(TimelineSwitch { timeline, at });
    }
    Ok(TimelineHistory { raw, switches })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_switch_points() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# by hand\n2\t16/B374D848\tbefore \u{e9}\n";
        let history = parse(text.into()).unwrap();
        assert_eq!(
            history.switches,
            [
                TimelineSwitch { timeline: 1, at: Lsn(0x300_0148) },
                TimelineSwitch { timeline: 2, at: Lsn(0x16_B374_D848) }
            ]
        );
        assert!(parse(b"1".to_vec()).is_err());
        assert!(parse(b"x 0/1".to_vec()).is_err());
        assert!(parse(Vec::new()).unwrap().switches.is_empty());
    }
}
