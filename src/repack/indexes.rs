//! Builds the shadow's indexes: several at once, then what turns them into constraints.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;

use crate::model::TableName;
use crate::pg::{self, ConnectOptions, Session};
use crate::repack::error::{RepackError, doing};
use crate::repack::long_work::LongWork;
use crate::repack::plan::IndexBuild;
use crate::repack::shadow::{OURS, relation_oid};

/// Builds what is not there yet: after a crash the rest is built.
pub(crate) async fn build(
    connect: &ConnectOptions,
    session: &Session,
    builds: &[IndexBuild],
    workers: usize,
    maintenance_work_mem: Option<&str>,
    long: &LongWork,
) -> Result<(), RepackError> {
    let mut missing = Vec::new();
    for build in builds {
        if relation_oid(session, &TableName::new(OURS, &build.name)).await?.is_none() {
            missing.push(build);
        }
    }
    // The biggest first: the last one to end decides.
    missing.sort_by_key(|build| std::cmp::Reverse(build.bytes_before));
    let left: Mutex<VecDeque<&IndexBuild>> = Mutex::new(missing.into());
    let count = left.lock().unwrap_or_else(PoisonError::into_inner).len();
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let next = &next;
    let worker = || async move {
        let session = index_session(connect, maintenance_work_mem, long).await?;
        while let Some(build) = next() {
            let what = format!("building index {} of the shadow", build.name);
            session.batch_execute(&build.statements.join("; ")).await.map_err(doing(what))?;
        }
        session.close().await?;
        Ok::<_, RepackError>(())
    };
    try_join_all((0..workers.clamp(1, count.max(1))).map(|_| worker())).await?;
    attach(connect, builds).await
}

/// Constraints, one after the other: each wants the shadow for itself for a moment.
async fn attach(connect: &ConnectOptions, builds: &[IndexBuild]) -> Result<(), RepackError> {
    let session = pg::connect(connect).await?;
    let there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace \
                 WHERE n.nspname = $1 AND c.conname = $2)";
    for build in builds {
        if build.attach.is_empty() {
            continue;
        }
        if session.query_one(there, &[&OURS, &build.name]).await?.try_get::<_, bool>(0)? {
            continue;
        }
        session
            .batch_execute(&build.attach.join("; "))
            .await
            .map_err(doing(format!("making constraint {} of the shadow", build.name)))?;
    }
    session.close().await?;
    Ok(())
}

async fn index_session(
    connect: &ConnectOptions,
    maintenance_work_mem: Option<&str>,
    long: &LongWork,
) -> Result<Session, RepackError> {
    let session = long.session(connect).await?;
    session.batch_execute("SET synchronous_commit = off; SET search_path = ''").await?;
    if let Some(memory) = maintenance_work_mem {
        let sql = "SELECT pg_catalog.set_config('maintenance_work_mem', $1, false)";
        session.execute(sql, &[&memory]).await.map_err(doing("setting maintenance_work_mem"))?;
    }
    Ok(session)
}
