//! Whether the slot of a stream is one that it can read, for somebody who asks before it is started. Nothing is changed.

use crate::apply::checkpoint::{self, Checkpoint};
use crate::apply::state_read;
use crate::flow::error::FlowError;
use crate::flow::facts;
use crate::flow::options::StreamOptions;
use crate::flow::start::{Facts, SlotFacts, Step, StopReason, SystemFacts, next_step};
use crate::pg::Session;

/// What the target tells of a stream.
#[derive(Debug)]
struct Recorded {
    position: Option<Checkpoint>,
    /// A process works on it.
    runs: bool,
}

/// What a start of this stream would stop at because of its slot. `target`: its database, where it can be reached; else less is known.
pub async fn slot(
    source: &Session,
    target: Option<&Session>,
    options: &StreamOptions,
) -> Result<Option<StopReason>, FlowError> {
    let slot = facts::read_slot(source, &options.slot()).await?.map(|row| row.facts);
    let recorded = match target {
        // What keeps it from being read is told where the target is looked at.
        Some(target) => recorded(target, options).await.ok(),
        None => None,
    };
    Ok(judge(options, slot, recorded))
}

async fn recorded(target: &Session, options: &StreamOptions) -> Result<Recorded, FlowError> {
    let runs = state_read::lock_holder(target, &options.key).await?.is_some();
    let position = match checkpoint::schema_version(target).await? {
        Some(_) => checkpoint::read(target, &options.key).await?,
        None => None,
    };
    Ok(Recorded { position, runs })
}

/// As `start` decides, with nothing else in the way.
fn judge(
    options: &StreamOptions,
    mut slot: Option<SlotFacts>,
    recorded: Option<Recorded>,
) -> Option<StopReason> {
    let knows_target = recorded.is_some();
    let Recorded { position, runs } = recorded.unwrap_or(Recorded { position: None, runs: false });
    if let Some(slot) = slot.as_mut().filter(|_| runs || !knows_target) {
        // The process that works on the stream reads it.
        slot.active_pid = None;
    }
    let system = SystemFacts {
        system_id: position.as_ref().map(|p| p.system_id.clone()).unwrap_or_default(),
        timeline: position.as_ref().map_or(0, |p| p.timeline),
        history: Vec::new(),
    };
    let all = Facts {
        system,
        slot_name: options.slot(),
        slot_is_given: options.slot_name.is_some(),
        slot,
        plugin: options.plugin().as_str().to_owned(),
        published: true,
        checkpoint: position.map(facts::of_checkpoint),
        snapshot: None,
        tables: Vec::new(),
    };
    match next_step(&all) {
        // Whether it is ours, the target alone can tell.
        Step::Stop(StopReason::SlotForeign { .. }) if !knows_target => None,
        Step::Stop(reason) => Some(reason),
        _ => None,
    }
}
