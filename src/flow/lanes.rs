//! The planners and appliers of a pipeline: one of each, or several that divide one table's changes between them
//! (`apply::lanes`).

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::apply::group::GroupLimits;
use crate::apply::lanes::{Act, Splitter, together};
use crate::apply::plan::PlanOptions;
use crate::apply::route::RouteTable;
use crate::apply::{Applier, ApplyReport, Flusher};
use crate::flow::error::FlowError;
use crate::flow::pipeline::BATCH_CHANGES;
use crate::flow::planner;
use crate::model::{Lsn, TxnBatch};

/// An applier with what it reports.
pub type Lane = (Applier, watch::Receiver<ApplyReport>);

/// Appliers that share a flusher, before they are started.
#[derive(Debug)]
pub struct Lanes {
    list: Vec<Lane>,
    flusher: Flusher,
    report: watch::Receiver<ApplyReport>,
    /// The other end of `report` where it tells of several.
    combined: Option<watch::Sender<ApplyReport>>,
}

impl Lanes {
    /// At least one applier, in the order in which their positions are stored.
    pub fn new(list: Vec<Lane>, flusher: Flusher) -> Self {
        if let [(_, report)] = &list[..] {
            return Lanes { report: report.clone(), list, flusher, combined: None };
        }
        let now: Vec<ApplyReport> = list.iter().map(|(_, report)| *report.borrow()).collect();
        let (combined, report) = watch::channel(together(&now));
        Lanes { list, flusher, report, combined: Some(combined) }
    }

    /// What all have reached together.
    pub fn report(&self) -> watch::Receiver<ApplyReport> {
        self.report.clone()
    }

    /// Starts all but the flusher: it ends with the reader, not with its input.
    pub(super) fn start(
        self,
        batches: mpsc::Receiver<TxnBatch>,
        routes: &Arc<RouteTable>,
        limits: GroupLimits,
        tasks: &mut JoinSet<Result<(), FlowError>>,
    ) -> Flusher {
        let Lanes { list, flusher, combined, .. } = self;
        let Some(combined) = combined else {
            if let Some((applier, _)) = list.into_iter().next() {
                start_lane(applier, batches, routes, limits, tasks);
            }
            return flusher;
        };
        let reports: Vec<_> = list.iter().map(|(_, report)| report.clone()).collect();
        let from = reports.iter().map(|report| report.borrow().applied).collect();
        let splitter = Splitter::new(routes.clone(), from, limits.changes.min(BATCH_CHANGES));
        let mut inputs = Vec::with_capacity(list.len());
        for (applier, _) in list {
            let (input, batches) = mpsc::channel(4);
            inputs.push(input);
            start_lane(applier, batches, routes, limits, tasks);
        }
        let dividing = divide(splitter, batches, inputs, reports.clone());
        tasks.spawn(async move {
            dividing.await;
            Ok(())
        });
        tasks.spawn(async move {
            combine(reports, combined).await;
            Ok(())
        });
        flusher
    }
}

fn start_lane(
    applier: Applier,
    batches: mpsc::Receiver<TxnBatch>,
    routes: &Arc<RouteTable>,
    limits: GroupLimits,
    tasks: &mut JoinSet<Result<(), FlowError>>,
) {
    let (groups_in, groups) = mpsc::channel(1);
    let planning = planner::run(routes.clone(), limits, PlanOptions::default(), batches, groups_in);
    tasks.spawn(async move {
        planning.await;
        Ok(())
    });
    tasks.spawn(async move { Ok(applier.run(groups).await?) });
}

/// Hands each lane its part, until nothing comes any more or a lane has ended, whose own result tells why.
async fn divide(
    mut splitter: Splitter,
    mut batches: mpsc::Receiver<TxnBatch>,
    lanes: Vec<mpsc::Sender<TxnBatch>>,
    mut reports: Vec<watch::Receiver<ApplyReport>>,
) {
    while let Some(batch) = batches.recv().await {
        for act in splitter.push(batch) {
            let goes_on = match act {
                Act::Send(lane, batch) => match lanes.get(lane) {
                    Some(lane) => lane.send(batch).await.is_ok(),
                    None => false,
                },
                Act::Drain(to) => all_passed(&mut reports, to).await,
            };
            if !goes_on {
                return;
            }
        }
    }
}

/// True once every lane has committed what comes before `to`; false when one has ended.
async fn all_passed(reports: &mut [watch::Receiver<ApplyReport>], to: Lsn) -> bool {
    for report in reports {
        if report.wait_for(|report| report.passed >= to).await.is_err() {
            return false;
        }
    }
    true
}

/// Tells what all lanes have reached, until one has ended.
async fn combine(mut lanes: Vec<watch::Receiver<ApplyReport>>, combined: watch::Sender<ApplyReport>) {
    loop {
        let now: Vec<ApplyReport> = lanes.iter_mut().map(|lane| *lane.borrow_and_update()).collect();
        let now = together(&now);
        combined.send_if_modified(|told| std::mem::replace(told, now) != now);
        if select_all(lanes.iter_mut().map(|lane| Box::pin(lane.changed()))).await.0.is_err() {
            return;
        }
    }
}
