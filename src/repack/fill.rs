//! Fills the materialized views over the shadow shortly before the exchange, and tells whether somebody has filled the old ones since:
//! what they hold must never become older.

use crate::model::{Oid, TableName};
use crate::pg::{self, Session};
use crate::repack::dependents::Matview;
use crate::repack::error::{RepackError, doing};
use crate::repack::plan::SHADOW_SCHEMA;
use crate::repack::runner::Job;
use crate::repack::steps;

/// Of each old view, what every REFRESH changes: its row of the catalog is written anew, also by CONCURRENTLY.
pub(crate) async fn marks(session: &Session, views: &[Oid]) -> Result<String, RepackError> {
    let sql = "SELECT coalesce(pg_catalog.string_agg(oid::text || ':' || xmin::text, ' ' ORDER BY oid), '') \
               FROM pg_catalog.pg_class WHERE oid = ANY ($1)";
    let statement = session.prepared(sql).await?;
    Ok(session.query_one(&statement, &[&views]).await?.try_get(0)?)
}

/// The old views.
pub(crate) fn old_views(job: &Job<'_>) -> Result<Vec<Oid>, RepackError> {
    Ok(job.definition()?.inventory.matviews.iter().map(|view| view.oid).collect())
}

/// The one of the same name over the shadow.
fn in_shadow(view: &Matview) -> TableName {
    TableName::new(SHADOW_SCHEMA, &view.name)
}

/// Fills them; the marks of the old ones from before.
pub(crate) async fn fill(job: &mut Job<'_>) -> Result<String, RepackError> {
    let marks = marks(&job.session, &old_views(job)?).await?;
    // Which are filled is as of now: a first REFRESH, or one WITH NO DATA, is followed too.
    job.renew_definition().await?;
    let definition = job.definition()?;
    let views = definition.plan.refresh.clone();
    let filled = |view: &&Matview| view.populated;
    let names: Vec<String> =
        definition.inventory.matviews.iter().filter(filled).map(|view| view.place().to_string()).collect();
    let empty: Vec<TableName> =
        definition.inventory.matviews.iter().filter(|view| !view.populated).map(in_shadow).collect();
    if views.is_empty() && empty.is_empty() {
        return Ok(marks);
    }
    if !names.is_empty() {
        job.events.info(format!("{}: filling {}", job.table, names.join(", ")));
    }
    let watch = steps::control(job).await?;
    let mut following = job.following.take();
    let vacuum = if job.options.settings.analyze_tables { "VACUUM (ANALYZE)" } else { "VACUUM" };
    let connect = &job.options.connect;
    let work = async {
        let session = pg::connect(connect).await?;
        // A view is filled as its owner sees the table, policies and all.
        session.batch_execute("SET statement_timeout = 0; SET row_security = on").await?;
        for view in &empty {
            // It may have been filled for an earlier attempt.
            let sql = format!("REFRESH MATERIALIZED VIEW {view} WITH NO DATA");
            session.batch_execute(&sql).await.map_err(doing(format!("emptying {view}")))?;
        }
        for view in &views {
            let sql = format!("REFRESH MATERIALIZED VIEW {view}");
            session.batch_execute(&sql).await.map_err(doing(format!("filling {view}")))?;
            let sql = format!("{vacuum} {view}");
            session.batch_execute(&sql).await.map_err(doing(format!("vacuuming {view}")))?;
        }
        session.close().await?;
        Ok(())
    };
    let result = Box::pin(watch.over(steps::beside(&mut following, work))).await;
    drop(watch);
    job.following = following;
    result?;
    let note = format!(
        "filled anew just before the exchange, so they may hold more than their last REFRESH gave: {}",
        names.join(", ")
    );
    if !names.is_empty() && !job.report.notes.contains(&note) {
        job.report.notes.push(note);
    }
    Ok(marks)
}
