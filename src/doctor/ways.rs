//! How each piece of work on a connection reads changes: as it does already, as it is told to, or in the first way that works.

use std::collections::BTreeSet;

use super::capture;
use super::examine::Work;
use super::finding::{Check, Level};
use super::server::{self, ServerFacts};
use crate::capture::auto::{Asked, Way};
use crate::flow::{FlowError, StreamOptions, survey};
use crate::pg::Session;

/// How the changes for one piece of work are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `stream to warehouse`, `repack`.
    pub work: String,
    /// In which way; `None`: in none that it may go.
    pub way: Option<Way>,
}

impl Reading {
    /// As `status` has it.
    pub fn capture(&self) -> Option<&'static str> {
        self.way.map(|way| match way {
            Way::Slot(_) => "slot",
            Way::Triggers => "trigger",
        })
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// In the order of the streams.
    pub(super) streams: Vec<Option<Way>>,
    pub(super) repack: Option<Way>,
    /// Of the server's settings for slots, and of each way that was tried.
    pub(super) checks: Vec<Check>,
}

impl Ways {
    /// For each stream and for repack.
    pub(super) fn readings(&self, work: &Work) -> Vec<Reading> {
        let name = |s: &StreamOptions| format!("stream to {}", s.key.target);
        let mut all: Vec<Reading> = work
            .reads
            .iter()
            .zip(&self.streams)
            .map(|(stream, way)| Reading { work: name(stream), way: *way })
            .collect();
        // A source can be repacked too, in the way of its connection, whether or not tables are named for it.
        if work.needs_changes() {
            all.push(Reading { work: "repack".to_owned(), way: self.repack });
        }
        all
    }
}

/// Finds them. `slots`: those that are there. `readable`: we may look into schema `repcloud`, or it is not there.
pub(super) async fn find(
    work: &Work,
    session: &Session,
    facts: &ServerFacts,
    slots: &BTreeSet<String>,
    readable: bool,
) -> Result<Ways, FlowError> {
    let mut ways = Ways::default();
    if !work.needs_changes() {
        return Ok(ways);
    }
    if facts.in_recovery {
        // Nothing can be made there, which its own check says.
        ways.streams = vec![None; work.reads.len()];
        return Ok(ways);
    }
    for stream in &work.reads {
        let decided = match readable || work.capture.asked != Asked::Auto {
            true => survey::decided_way(session, stream).await?,
            false => None,
        };
        ways.streams.push(decided);
    }
    let begun = |stream: &StreamOptions, way: &Option<Way>| match way {
        Some(Way::Slot(_)) => slots.contains(&stream.slot()),
        Some(Way::Triggers) => true,
        None => false,
    };
    let begun: Vec<bool> = work.reads.iter().zip(&ways.streams).map(|(s, w)| begun(s, w)).collect();
    let to_begin = begun.iter().filter(|begun| !**begun).count();
    // A trial needs a slot's place, which streams that have their slots already do not.
    let tried = if to_begin > 0 || work.repack.is_some() || work.capture.asked == Asked::Trigger {
        let is_open = |way: &Way| facts.decodes() || *way == Way::Triggers;
        let open: Vec<Way> = work.capture.ways().into_iter().filter(is_open).collect();
        let (tried, checks) =
            capture::try_ways(&work.connect, &open, facts).await.map_err(FlowError::Source)?;
        ways.checks = checks;
        tried
    } else {
        ways.checks.push(Check::ok("capture", "every stream has begun, and goes on as it did"));
        ways.streams.iter().copied().flatten().next()
    };
    for (way, begun) in ways.streams.iter_mut().zip(begun) {
        if !begun {
            *way = tried;
        }
    }
    ways.repack = tried;
    settings(work, facts, to_begin, &mut ways);
    Ok(ways)
}

/// Puts the checks of the server's settings before those of the trials, where a slot is asked for. Where triggers are read instead, what
/// a slot lacks is no failure.
fn settings(work: &Work, facts: &ServerFacts, to_begin: usize, ways: &mut Ways) {
    if work.capture.asked == Asked::Trigger {
        return;
    }
    let new = i64::try_from(to_begin).unwrap_or(i64::MAX - 16) + i64::from(work.repack.is_some());
    let by_slot = ways.streams.iter().any(|w| *w != Some(Way::Triggers))
        || work.repack.is_some() && ways.repack != Some(Way::Triggers);
    let mut checks = server::judge_slots(facts, new);
    if !by_slot {
        for check in checks.iter_mut().filter(|c| c.level == Level::Fail) {
            check.level = Level::Warn;
        }
    }
    checks.append(&mut ways.checks);
    ways.checks = checks;
}
