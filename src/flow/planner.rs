//! Between reader and applier: batches become groups, groups become plans. A task of its own, so that the next group is
//! planned while the target works on the last one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::apply::group::{GroupBuilder, GroupLimits, PlannedGroup};
use crate::apply::plan::{PlanOptions, plan, tally};
use crate::apply::route::{Bindings, RouteTable};
use crate::model::TxnBatch;

/// Runs until either channel closes.
///
/// A group is begun when the applier has room for it and closed as soon as no input waits, so groups are small while
/// the stream keeps up and grow when it does not.
pub async fn run(
    routes: Arc<RouteTable>,
    limits: GroupLimits,
    options: PlanOptions,
    mut batches: mpsc::Receiver<TxnBatch>,
    groups: mpsc::Sender<PlannedGroup>,
) {
    let mut bindings = Bindings::default();
    let mut builder = GroupBuilder::new(limits);
    while let Ok(permit) = groups.reserve().await {
        let Some(batch) = batches.recv().await else { return };
        builder.push(batch);
        while !builder.is_full() {
            match batches.try_recv() {
                Ok(batch) => builder.push(batch),
                // The rest of an open transaction is certain to come.
                Err(TryRecvError::Empty) if builder.is_open() => match batches.recv().await {
                    Some(batch) => builder.push(batch),
                    None => return,
                },
                Err(_) => break,
            }
        }
        let group = builder.take();
        let plan = plan(&group, &routes, &mut bindings, options);
        let counts = tally(&group, &routes, &mut bindings);
        permit.send(PlannedGroup { group, plan, counts });
    }
}
