//! Foreign keys of the target that no order of copying satisfies, where the role cannot let them rest.

use std::collections::BTreeMap;

use crate::catalog::TableDef;
use crate::copy::target::rows_exist;
use crate::flow::copy_order::{self, References};
use crate::flow::error::FlowError;
use crate::flow::work::{TableWork, TargetFinding};
use crate::model::TableName;
use crate::pg::Session;

const PROBLEM: &str = "its foreign keys and those of other tables form a circle, so their first rows can be copied in no order; drop one \
     of these foreign keys and make it again afterwards, or let the role set session_replication_role (GRANT SET ON PARAMETER \
     session_replication_role, PostgreSQL 15)";

/// Of the tables `to_copy` those in a circle. One with rows alone is none: there is nothing its rows could refer to.
pub(crate) async fn findings(
    source: &Session,
    to_copy: &[&TableWork],
    targets: &BTreeMap<TableName, TableDef>,
) -> Result<Vec<TargetFinding>, FlowError> {
    let there: Vec<(&TableWork, &TableDef)> =
        to_copy.iter().filter_map(|work| Some((*work, targets.get(&work.target)?))).collect();
    let references: Vec<References> = there
        .iter()
        .map(|(_, t)| (t.name.clone(), t.constraints.iter().filter_map(|c| c.references.clone()).collect()))
        .collect();
    let mut findings = Vec::new();
    for index in copy_order::in_circles(&references) {
        let (work, target) = there[index];
        if rows_exist(source, &work.source.name).await? {
            findings.push(TargetFinding {
                table: target.name.clone(),
                problem: PROBLEM.to_owned(),
                help: None,
            });
        }
    }
    if findings.len() < 2 {
        findings.clear();
    }
    Ok(findings)
}
